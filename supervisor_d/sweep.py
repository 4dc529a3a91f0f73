"""End what a stop of the service has left: run by the units (supervisor_d/cli/units.py), in two ways.

    python -m supervisor_d.sweep               as ExecStopPost= of the service, after every end of the daemon
    python -m supervisor_d.sweep shop.service  as a service beside it, which systemd starts when that one has stopped

What keeps processes over the death of the daemon keeps them over a stop too, where the daemon could not end them: it
hung when it was told to, or was just about to start.  Nobody wants them then any more.  They live in the service's
cgroup, or in the scope beside it (runtime/scopes.py).

In the first way it does nothing unless the service is being stopped: $SERVICE_RESULT (systemd.exec(5)) is `success`
where the daemon ended as it was told to, or by TERM before it could listen, and `timeout` where it did not end in time.
After a crash it is something else, the processes live on, and the next daemon adopts them.

In the second way it ends at once when a daemon is there again: what was left is that one's.

Shims and the zygote ignore TERM, and wait for a daemon to take note of what they know.  When only they are left, there
is nothing more to wait for.

The standard library alone, and nothing of ours: it must work when the package is half installed.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

STOPPED = ("success", "timeout")
TERM_SECONDS = 10.0
KILL_SECONDS = 10.0
ROUND_SECONDS = 0.02
_OURS = b"/supervisor_d/shim/zygote.py\0"
"""In the command line of the zygote, and of the shims that it forks.  Who pretends to be one is killed the sooner."""
_DAEMON = b"\0-m\0supervisor_d\0run\0"


def main(unit: str = "") -> int:
    """0 when nothing is left, or nothing is to be ended; 1 when something could not be ended."""
    if not unit and os.environ.get("SERVICE_RESULT") not in STOPPED:
        return 0
    own = own_cgroup()
    if own is None:
        return 0
    service = own.with_name(unit) if unit else own
    cgroups = (service, service.with_name(scope_name(service.name)))
    left = _end(cgroups, signal.SIGTERM, TERM_SECONDS)
    if left:
        left = _end(cgroups, signal.SIGKILL, KILL_SECONDS)
    if left:
        print(f"cannot end {len(left)} processes: {sorted(left)}", file=sys.stderr)  # noqa: T201
    return 1 if left else 0


def scope_name(unit: str) -> str:
    """As in runtime/scopes.py, which is not imported here."""
    return f"{unit.removesuffix('.service').replace('@', '-')}-processes.scope"


def own_cgroup() -> Path | None:
    """The cgroup of the service that we run in; None without cgroup v2."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    inside = next((line[3:] for line in lines if line.startswith("0::")), None)
    mount = next((fields[4] for fields in map(str.split, mounts) if "cgroup2" in fields[6:]), None)
    if inside is None or mount is None:
        return None
    # Where a unit's cgroup is delegated, systemd puts control processes into one of their own below it.
    path = Path(mount + inside.removesuffix("/.control"))
    return path if path.name.endswith(".service") else None


def members(cgroups: tuple[Path, ...]) -> set[int]:
    """All that lives in cgroups and below them, but for control processes."""
    found: set[int] = set()
    for cgroup in cgroups:
        for directory, _, _ in os.walk(cgroup):
            if not directory.endswith("/.control"):
                with suppress(OSError):
                    found.update(map(int, Path(directory, "cgroup.procs").read_text(encoding="ascii").split()))
    return {pid for pid in found if pid not in (0, os.getpid()) and not _ended(pid)}


def _end(cgroups: tuple[Path, ...], number: signal.Signals, seconds: float) -> set[int]:
    """Signal all, and again those that come later; who is left when all are gone, or there is no use in waiting."""
    deadline = time.monotonic() + seconds
    asked: set[int] = set()
    while (left := members(cgroups)) and time.monotonic() < deadline:
        lines = [_command_line(pid) for pid in left]
        if any(_DAEMON in line for line in lines):
            return set()
        if number == signal.SIGTERM and all(not line or _OURS in line for line in lines):
            break
        for pid in left - asked if number == signal.SIGTERM else left:
            _signal(pid, number, cgroups)
        asked |= left
        time.sleep(ROUND_SECONDS)
    return left


def _signal(pid: int, number: signal.Signals, cgroups: tuple[Path, ...]) -> None:
    """By pidfd, and only who is still in a cgroup once it is open: a pid may have become another's."""
    with suppress(OSError):
        pidfd = os.pidfd_open(pid)
        try:
            if pid in members(cgroups):
                signal.pidfd_send_signal(pidfd, number)
        finally:
            os.close(pidfd)


def _command_line(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def _ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2][1] in "ZX"
    except (OSError, IndexError):
        return True


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
