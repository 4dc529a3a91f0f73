"""ExecStopPost of the plain user's unit: end what a stop of the service has left in its cgroup.

With KillMode=process systemd ends the daemon alone.  That is what keeps processes over its death; but a daemon that
hung when it was told to stop, or was just about to start, leaves processes that nobody wants any more.

Run after every end of the daemon, it does nothing unless the service is being stopped: $SERVICE_RESULT
(systemd.exec(5)) is `success` where the daemon ended as it was told to, or by TERM before it could listen, and
`timeout` where it did not end in time.  After a crash it is something else, the processes live on, and the next daemon
adopts them.

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


def main() -> int:
    """0 when nothing is left, or nothing is to be ended; 1 when something could not be ended."""
    if os.environ.get("SERVICE_RESULT") not in STOPPED:
        return 0
    service = service_cgroup()
    if service is None:
        return 0
    left = _end(service, signal.SIGTERM, TERM_SECONDS)
    if left:
        left = _end(service, signal.SIGKILL, KILL_SECONDS)
    if left:
        print(f"cannot end {len(left)} processes: {sorted(left)}", file=sys.stderr)  # noqa: T201
    return 1 if left else 0


def service_cgroup() -> Path | None:
    """The cgroup of the service that we are a control process of; None without cgroup v2."""
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


def members(service: Path) -> set[int]:
    """All that lives in a cgroup and below it, but for control processes."""
    found: set[int] = set()
    for directory, _, _ in os.walk(service):
        if not directory.endswith("/.control"):
            with suppress(OSError):
                found.update(map(int, Path(directory, "cgroup.procs").read_text(encoding="ascii").split()))
    return {pid for pid in found if pid not in (0, os.getpid()) and not _ended(pid)}


def _end(service: Path, number: signal.Signals, seconds: float) -> set[int]:
    """Signal all, and again those that come later; who is left when all are gone or time is over."""
    deadline = time.monotonic() + seconds
    asked: set[int] = set()
    while (left := members(service)) and time.monotonic() < deadline:
        for pid in left - asked if number == signal.SIGTERM else left:
            _signal(pid, number, service)
        asked |= left
        time.sleep(ROUND_SECONDS)
    return left


def _signal(pid: int, number: signal.Signals, service: Path) -> None:
    """By pidfd, and only who is still in the cgroup once it is open: a pid may have become another's."""
    with suppress(OSError):
        pidfd = os.pidfd_open(pid)
        try:
            if pid in members(service):
                signal.pidfd_send_signal(pidfd, number)
        finally:
            os.close(pidfd)


def _ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2][1] in "ZX"
    except (OSError, IndexError):
        return True


if __name__ == "__main__":
    sys.exit(main())
