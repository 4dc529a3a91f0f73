"""`upgrade`: the daemon becomes its successor, in place.

Theory of operation.  Two steps, and nothing has changed until the second one succeeds:

    prove     the new interpreter runs `-m supervisor_d.proof` beside us, with a time limit: it imports everything and
              reads, with its own code, what we have written down.  A no is the answer to the operator; we rule on.
    execve    the process image is replaced: same pid, so systemd, a container's init and the terminal notice nothing.

execve(2) closes all that is close-on-exec in the instant it succeeds, and nothing when it fails: there is no clean-up
before it that would have to be undone.  What must not close goes across: the lock (no second daemon can slip in), and
the listening sockets, told in the environment (runtime/inherited.py).  TERM, INT and HUP are blocked over the hand-over
and reach the new daemon once it listens to them; one that was heard before ends the upgrade.  From there on it is the
start that follows every crash: adopt, and go on.

The predecessor's children (its zygote, a probe) are ours by pid, but nobody waits for them: `reap_inherited` does.

A new daemon that was proven and cannot start all the same (a fault that only shows in earnest) executes its
predecessor again, with the reason; that one does not try a third time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import msgspec

from supervisor_d.errors import PrepareError
from supervisor_d.runtime.inherited import HANDOVER_ENV, HANDOVER_VERSION, HandOver, Predecessor, Socket
from supervisor_d.runtime.places import Places
from supervisor_d.runtime.threads import HELD_SIGNALS

PROVE_SECONDS = 60.0
OUTPUT_MAX_BYTES = 64 * 1024
REASON_MAX_CHARACTERS = 500
LOOP_TURNS = 3
_PROOF = ("-I", "-m", "supervisor_d.proof")


@dataclass(frozen=True, slots=True)
class Proof:
    """What a successor says of itself."""

    version: str
    python: str
    records: int


@dataclass(frozen=True, slots=True)
class Estate:
    """What a daemon hands over: its name, and what must not close."""

    version: str
    argv: tuple[str, ...]
    """What would start this daemon again."""
    lock: int
    sockets: tuple[Socket, ...]
    stored: frozenset[str]
    environ: Mapping[str, str]


def run_argv(python: str, config_path: str, flags: tuple[str, ...]) -> tuple[str, ...]:
    """The command line of a daemon under that interpreter."""
    return (python, "-I", "-m", "supervisor_d", "run", "--config", config_path, *flags)


async def prove(python: str, places: Places, config_path: str, seconds: float = PROVE_SECONDS) -> Proof:
    """Let the code of `python` prove that it can take over.  Raises PrepareError with the reason when it can't."""
    child = _prover(python, places, config_path)
    try:
        out, err = await asyncio.to_thread(child.communicate, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise _refused(f"{python} did not prove itself within {seconds:g} s") from None
    finally:
        _end(child)
    if child.returncode != 0:
        raise _refused(_last_words(err) or f"{python} ended with {child.returncode}")
    try:
        return msgspec.json.decode(out[:OUTPUT_MAX_BYTES], type=Proof)
    except msgspec.DecodeError:
        raise _refused(f"{python} did not answer as a supervisor-d does") from None


def _prover(python: str, places: Places, config_path: str) -> subprocess.Popen[bytes]:
    where = ("--runtime-dir", str(places.runtime_dir), "--state-dir", str(places.state_dir), "--config", config_path)
    pipe = subprocess.PIPE
    try:
        return subprocess.Popen(
            (python, *_PROOF, *where),
            stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, cwd="/", start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise _refused(f"{python} cannot be executed: {error.strerror}") from error


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Signals that ask the daemon for something wait, for the end of this or for the next daemon.

    Threads that could get them in our place have them blocked from their start (runtime/threads.py).
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


async def signals_heard() -> None:
    """Return once the loop has carried out what came before they were held: it takes one turn to read that there was
    a signal, and one for its handler."""
    for _ in range(LOOP_TURNS):
        await asyncio.sleep(0)


def hand_over(argv: tuple[str, ...], estate: Estate) -> NoReturn:
    """Become the daemon of `argv`.  Raises OSError when the kernel refuses; then nothing has changed."""
    _become(argv, estate, Predecessor(estate.version, estate.argv, time.monotonic()))


def go_back(predecessor: Predecessor, estate: Estate, reason: str) -> None:
    """Become the predecessor again, with the reason.  Returns when that cannot be, or was done already."""
    if not predecessor.failed:
        told = f"supervisor-d {estate.version} could not start: {reason}"[:REASON_MAX_CHARACTERS]
        with contextlib.suppress(OSError):
            _become(predecessor.argv, estate, replace(predecessor, failed=told))


def reap_inherited(loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
    """Wait for the children that this process has already, each by its pid.  To be called before the first own one.

    Returns what ends the watch.
    """
    watched = [pidfd for pid in _children() if (pidfd := _open(pid)) is not None]
    for pidfd in watched:
        loop.add_reader(pidfd, _reap, loop, pidfd, watched)

    def close() -> None:
        for pidfd in watched:
            loop.remove_reader(pidfd)
            os.close(pidfd)
        watched.clear()

    return close


def _become(argv: tuple[str, ...], estate: Estate, predecessor: Predecessor) -> NoReturn:
    handover = HandOver(
        HANDOVER_VERSION, predecessor, estate.lock, estate.sockets, tuple(sorted(estate.stored)), dict(estate.environ)
    )
    environ = {**os.environ, HANDOVER_ENV: msgspec.json.encode(handover).decode()}
    fds = (estate.lock, *(each.fd for each in estate.sockets))
    with signals_held():
        try:
            _let_through(fds, inheritable=True)
            os.execve(argv[0], argv, environ)  # noqa: S606
        finally:
            _let_through(fds, inheritable=False)


def _let_through(fds: tuple[int, ...], *, inheritable: bool) -> None:
    for fd in fds:
        with contextlib.suppress(OSError):
            os.set_inheritable(fd, inheritable)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill what did not end in time, with its session; a child that is not reaped keeps its number."""
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    for pipe in (child.stdout, child.stderr):
        if pipe:
            pipe.close()


def _last_words(stderr: bytes) -> str:
    lines = [line for line in stderr.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip()[:REASON_MAX_CHARACTERS] if lines else ""


def _refused(reason: str) -> PrepareError:
    return PrepareError(f"cannot upgrade: {reason}", hint="nothing was changed: the daemon that ran before goes on")


def _children() -> list[int]:
    found: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            found += map(int, (task / "children").read_text(encoding="ascii").split())
    return found


def _open(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _reap(loop: asyncio.AbstractEventLoop, pidfd: int, watched: list[int]) -> None:
    loop.remove_reader(pidfd)
    watched.remove(pidfd)
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    os.close(pidfd)
