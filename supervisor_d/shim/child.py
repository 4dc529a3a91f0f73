"""What happens in the program's process between fork and exec.

One step after the other, in an order that matters:

    signals         Python ignores SIGPIPE, shims ignore SIGTERM: a program expects neither
    session         its own, so that a terminal's signals, and killpg of others, pass it by
    descriptors     /dev/null, the FIFO twice, the listeners as 3.., the agent's; all else is closed
    limits          before privileges go: only root may raise a hard limit, or lower a nice value or an oom score
    privileges      groups, gid, uid, no new ones: in this order each call still may, and no later one can undo
    proof           setuid(0) must fail, no capability may be left
    directory       as the user, who must be allowed to enter it
    gate            until the shim is on the daemon's books and our pid is on record; at EOF we end
    exec

The first step that fails is reported over the gate, which exec closes: silence and EOF is success.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
from typing import NoReturn

from supervisor_d.shim import kernel, wire

IGNORED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""By zygote and shims: who stops a whole control group must not take away what holds exits and logs."""
_NOT_DEFAULT = (*map(int, IGNORED), int(signal.SIGPIPE), int(signal.SIGXFSZ))
"""Those, and what Python ignores.  The zygote made all others default when it began, and exec resets handlers."""

_RLIMITS = {
    "open_files": resource.RLIMIT_NOFILE,
    "processes": resource.RLIMIT_NPROC,
    "core_size_bytes": resource.RLIMIT_CORE,
    # Writable private memory (getrlimit(2), since Linux 4.7).  RLIMIT_AS also counts what is merely reserved, and each
    # malloc arena of a thread reserves 64 MiB.
    "memory_bytes": resource.RLIMIT_DATA,
}
_CLOSE_TO = 1 << 20


class Child:
    """The steps to exec.  `step` says what is being done, in words that go on after "cannot start X: "."""

    def __init__(self, gate: int, record: int, spec: wire.Spec, passed: list[int]) -> None:
        self._record = record
        self._spec = spec
        self._passed = passed
        # Out of the way of the places that the passed descriptors will have.
        self._gate = fcntl.fcntl(gate, fcntl.F_DUPFD_CLOEXEC, 3 + len(passed))
        self.step = "prepare it"

    def run(self) -> NoReturn:
        """Become the program; or report the step that failed, and end."""
        try:
            self._become()
            if os.read(self._gate, 1):
                self.step = f"exec {self._spec['argv'][0]}"
                os.execve(self._spec["argv"][0], self._spec["argv"], self._environment())  # noqa: S606
        except OSError as error:
            self._report(error.errno or errno.EIO)
        except Exception as error:  # noqa: BLE001  (a bug of ours must not pass for a program that ran)
            self.step += f" ({error!r})"
            self._report(errno.EINVAL)
        finally:
            os._exit(127)

    def _report(self, number: int) -> None:
        os.write(self._gate, wire.encode({"step": self.step, "errno": number}))

    def _become(self) -> None:
        spec = self._spec
        kernel.set_wakeup_fd(-1)
        for number in _NOT_DEFAULT:
            kernel.set_handler(number, 0)  # SIG_DFL
        os.setsid()
        self.step = "open its output"
        output = os.open(wire.FIFO, os.O_RDWR | os.O_CLOEXEC, dir_fd=self._record)
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._place([null, output, output, *self._passed])
        self._limit(spec["limits"])
        if account := spec["account"]:
            self._drop_privileges(account)
        self.step = f"enter the directory {spec['cwd']}"
        os.chdir(spec["cwd"])

    def _place(self, wanted: list[int]) -> None:
        """Make `wanted` the descriptors 0, 1, 2 ..; beside them only the gate stays, until exec closes it.

        All are first lifted above the last place, so that none is overwritten before it was copied.
        """
        end = len(wanted)
        lifted = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, end) for fd in wanted]
        for place, fd in enumerate(lifted):
            os.dup2(fd, place)
        os.closerange(end, self._gate)
        os.closerange(self._gate + 1, _CLOSE_TO)

    def _limit(self, limits: wire.LimitsSpec) -> None:
        os.umask(limits["umask"])
        for key, number in _RLIMITS.items():
            value: int | None = limits[key]  # type: ignore[literal-required]
            if value is not None:
                self.step = f"limit {key} to {value}"
                _set_rlimit(number, value)
        if limits["nice"] is not None:
            self.step = f"set nice to {limits['nice']}"
            os.setpriority(os.PRIO_PROCESS, 0, limits["nice"])
        if limits["oom_score_adj"] is not None:
            self.step = f"set oom_score_adj to {limits['oom_score_adj']}"
            _set_oom_score(limits["oom_score_adj"])

    def _drop_privileges(self, account: wire.Account) -> None:
        """setgroups(2), setresgid(2), setresuid(2), and the proof that there is no way back (credentials(7))."""
        uid, gid = account["uid"], account["gid"]
        self.step = f"become user {uid}"
        os.setgroups(account["groups"])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        kernel.forbid_new_privileges()
        if uid != 0:
            self.step = f"give up the rights of root for user {uid}"
            _prove_dropped()

    def _environment(self) -> dict[str, str]:
        """The environment as given, and where the passed descriptors are (sd_listen_fds(3), sd_notify(3))."""
        spec, env = self._spec, dict(self._spec["env"])
        if spec["listeners"]:
            env |= {"LISTEN_FDS": str(spec["listeners"]), "LISTEN_PID": str(os.getpid())}
        if spec["notify"]:
            env["NOTIFY_SOCKET"] = f"{spec['private_dir']}/{wire.NOTIFY}"
        if spec["agent"]:
            env[wire.AGENT_ENV] = str(2 + len(self._passed))
        return env


def _set_rlimit(number: int, value: int) -> None:
    """Soft and hard limit.  Raises PermissionError where only root may (the resource module says ValueError)."""
    try:
        resource.setrlimit(number, (value, value))
    except ValueError as error:
        raise PermissionError(errno.EPERM, str(error)) from error


def _set_oom_score(value: int) -> None:
    """Only root may go below the score that a session gave us (a desktop gives 100 or 200): then 0, which is what we
    set unasked, is a wish; less than 0 was asked for and must be had."""
    file = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(file, b"%d" % value)
    except PermissionError:
        if value != 0:
            raise
    os.close(file)


def _prove_dropped() -> None:
    """Raises PermissionError when root can come back, or any capability is left."""
    try:
        os.setuid(0)
    except PermissionError:
        pass
    else:
        raise PermissionError(errno.EPERM, "root came back")
    for line in wire.read("/proc/self/status").splitlines():
        if line.startswith((b"CapPrm:", b"CapEff:")) and int(line.split()[1], 16):
            raise PermissionError(errno.EPERM, "capabilities are left")
