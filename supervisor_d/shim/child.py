"""What happens in the program's process between fork and exec.

It waits at a gate of its own until the shim has put its pid on record: EOF there (the shim died) means that nobody
knows of it, and it ends.  Then one step after the other, in an order that matters:

    signals         Python ignores SIGPIPE, shims ignore SIGTERM: a program expects neither
    session         its own, so that a terminal's signals, and killpg of others, pass it by
    descriptors     /dev/null, the FIFO twice, the listeners as 3.., the agent's; all else is closed
    limits          before privileges go: only root may raise a hard limit, or lower a nice value or an oom score
    privileges      groups, gid, uid, no new ones: in this order each call still may, and no later one can undo
    proof           setuid(0) must fail, no capability may be left
    directory       as the user, who must be allowed to enter it
    exec

The first step that fails is reported over the gate, which exec closes: silence and EOF is success.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from supervisor_d.shim import kernel, wire

_RLIMITS = {
    "open_files": resource.RLIMIT_NOFILE,
    "processes": resource.RLIMIT_NPROC,
    "core_size_bytes": resource.RLIMIT_CORE,
    # Writable private memory (getrlimit(2), since Linux 4.7).  RLIMIT_AS also counts what is merely reserved, and each
    # malloc arena of a thread reserves 64 MiB.
    "memory_bytes": resource.RLIMIT_DATA,
}
_CLOSE_TO = 1 << 20


class StepError(Exception):
    """A step that failed: words that go on after "cannot start X: ", and an errno."""

    def __init__(self, step: str, number: int) -> None:
        super().__init__(step, number)
        self.step = step
        self.number = number


@contextmanager
def step(words: str) -> Iterator[None]:
    """Turn what the kernel refuses into a StepError."""
    try:
        yield
    except OSError as error:
        raise StepError(words, error.errno or errno.EIO) from error
    except ValueError as error:  # how the resource module says EPERM and EINVAL, and os.execve that a NUL is inside
        raise StepError(f"{words}: {error}", errno.EINVAL) from error


def run(gate: int, record: int, spec: wire.Spec, passed: list[int]) -> NoReturn:
    """Become the program.  `passed` are the descriptors for 3.., the agent's last when there is one."""
    gate = fcntl.fcntl(gate, fcntl.F_DUPFD_CLOEXEC, 3 + len(passed))  # out of the way of the places it will have
    try:
        if os.read(gate, 1):
            _become(gate, record, spec, passed)
    except StepError as failed:
        _report(gate, failed)
    except Exception as error:  # noqa: BLE001  (a bug of ours must not pass for a program that ran)
        _report(gate, StepError(f"prepare it: {error!r}", errno.EINVAL))
    finally:
        os._exit(127)


def _report(gate: int, failed: StepError) -> None:
    os.write(gate, wire.encode({"step": failed.step, "errno": failed.number}))


def _become(gate: int, record: int, spec: wire.Spec, passed: list[int]) -> None:
    _reset_signals()
    os.setsid()
    with step("open its output"):
        output = os.open(wire.FIFO, os.O_RDWR | os.O_CLOEXEC, dir_fd=record)
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        _place([null, output, output, *passed], gate)
    _limit(spec["limits"])
    if account := spec["account"]:
        _drop_privileges(account)
    with step(f"enter the directory {spec['cwd']}"):
        os.chdir(spec["cwd"])
    with step(f"exec {spec['argv'][0]}"):
        os.execve(spec["argv"][0], spec["argv"], _environment(spec, len(passed)))  # noqa: S606


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _place(wanted: list[int], gate: int) -> None:
    """Make `wanted` the descriptors 0, 1, 2 ..; beside them only the gate stays, until exec closes it.

    All are first lifted above the last place, so that none is overwritten before it was copied.
    """
    end = len(wanted)
    lifted = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, end) for fd in wanted]
    for place, fd in enumerate(lifted):
        os.dup2(fd, place)
    os.closerange(end, gate)
    os.closerange(gate + 1, _CLOSE_TO)


def _limit(limits: wire.LimitsSpec) -> None:
    os.umask(limits["umask"])
    for key, number in _RLIMITS.items():
        value: int | None = limits[key]  # type: ignore[literal-required]
        if value is not None:
            with step(f"limit {key} to {value}"):
                resource.setrlimit(number, (value, value))
    if limits["nice"] is not None:
        with step(f"set nice to {limits['nice']}"):
            os.setpriority(os.PRIO_PROCESS, 0, limits["nice"])
    if limits["oom_score_adj"] is not None:
        _set_oom_score(limits["oom_score_adj"])


def _set_oom_score(value: int) -> None:
    """Only root may go below the score that a session gave us (a desktop gives 100 or 200): then 0, which is what we
    set unasked, is a wish; less than 0 was asked for and must be had."""
    with step(f"set oom_score_adj to {value}"):
        try:
            with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
                file.write(str(value))
        except PermissionError:
            if value != 0:
                raise


def _drop_privileges(account: wire.Account) -> None:
    """setgroups(2), setresgid(2), setresuid(2), and the proof that there is no way back (credentials(7))."""
    uid, gid = account["uid"], account["gid"]
    with step(f"become user {uid}"):
        os.setgroups(account["groups"])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        kernel.forbid_new_privileges()
    if uid == 0:
        return
    with step(f"give up the rights of root for user {uid}"):
        try:
            os.setuid(0)
        except PermissionError:
            pass
        else:
            raise PermissionError(errno.EPERM, "root came back")
        with open("/proc/self/status", "rb") as status:
            kept = [line for line in status if line.startswith((b"CapPrm:", b"CapEff:")) and int(line.split()[1], 16)]
        if kept:
            raise PermissionError(errno.EPERM, "capabilities are left")


def _environment(spec: wire.Spec, passed: int) -> dict[str, str]:
    """The environment as given, and where the passed descriptors are (sd_listen_fds(3), sd_notify(3))."""
    env = dict(spec["env"])
    if spec["listeners"]:
        env |= {"LISTEN_FDS": str(spec["listeners"]), "LISTEN_PID": str(os.getpid())}
    if spec["notify"]:
        env["NOTIFY_SOCKET"] = f"{spec['private_dir']}/{wire.NOTIFY}"
    if spec["agent"]:
        env[wire.AGENT_ENV] = str(2 + passed)
    return env
