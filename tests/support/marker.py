"""A mark on processes that nothing they do takes off: the proof that a test left none behind.

Where a cgroup (v2) can be made, the mark is being in it: children are born into it, and neither setsid nor a double
fork nor the death of every parent leads out.  Where it cannot (a plain user, a read-only mount), the mark is that a
process mentions the test's directory in its command line, environment, working directory or descriptors; a program
that sheds all four is missed, and `sure` is False.
"""

from __future__ import annotations

import itertools
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from tests.support import procs
from tests.support.waiting import wait_for

_serials = itertools.count(1)


class Marker(Protocol):
    """Marks a command and all that comes of it."""

    sure: bool

    def entering(self, argv: list[str]) -> list[str]:
        """`argv`, to be started with the mark."""
        ...

    def members(self) -> set[int]:
        """Every live process with the mark."""
        ...

    def clear(self) -> None:
        """Kill what still has the mark, and take the mark away."""
        ...


def new_marker(directory: Path) -> Marker:
    """The surest mark that can be had here; `directory` is the test's own."""
    parent = _own_cgroup()
    if parent is not None:
        path = parent / f"supervisor-d-test-{os.getpid()}-{next(_serials)}"
        with suppress(OSError):
            path.mkdir()
            return CgroupMarker(path)
    return MentionMarker(directory)


def _own_cgroup() -> Path | None:
    """The directory of this process's own cgroup v2, wherever the hierarchy is mounted."""
    own = [line for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::")]
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if own and after.split()[0] == "cgroup2":
            root, mounted = before.split()[3:5]
            if root == "/":
                return Path(mounted) / own[0].removeprefix("0::").lstrip("/")
    return None


class CgroupMarker:
    """Membership of a cgroup of the test's own."""

    sure = True

    def __init__(self, path: Path) -> None:
        self._path = path

    def entering(self, argv: list[str]) -> list[str]:
        return ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(self._path / "cgroup.procs"), *argv]

    def members(self) -> set[int]:
        found: set[int] = set()
        for directory, _, _ in os.walk(self._path):
            with suppress(OSError):
                found |= {int(pid) for pid in Path(directory, "cgroup.procs").read_text().split()}
        return {pid for pid in found if procs.alive(pid)}

    def clear(self) -> None:
        kill = self._path / "cgroup.kill"
        if kill.exists():
            kill.write_text("1")
        _kill_all(self)
        wait_for(self._removed, 5, f"the cgroup {self._path} to be empty")

    def _removed(self) -> bool:
        for directory, _, _ in os.walk(self._path, topdown=False):
            with suppress(OSError):
                Path(directory).rmdir()
        return not self._path.exists()


class MentionMarker:
    """A mention of the test's directory."""

    sure = False

    def __init__(self, directory: Path) -> None:
        self._needle = os.fsencode(directory)

    def entering(self, argv: list[str]) -> list[str]:
        return argv

    def members(self) -> set[int]:
        return {process.pid for process in procs.everyone() if process.pid != os.getpid() and self._on(process.pid)}

    def _on(self, pid: int) -> bool:
        for name in ("cmdline", "environ"):
            with suppress(OSError):
                if self._needle in Path(f"/proc/{pid}/{name}").read_bytes():
                    return True
        with suppress(OSError):
            links = [str(Path(f"/proc/{pid}/cwd").readlink()), *procs.descriptors(pid).values()]
            return any(self._needle in os.fsencode(link) for link in links)
        return False

    def clear(self) -> None:
        _kill_all(self)


def _kill_all(marker: Marker) -> None:
    """SIGKILL by pidfd, each pid checked for the mark again once it is held."""

    def nobody_left() -> bool:
        left = marker.members()
        for pid in left:
            with suppress(ProcessLookupError):
                pidfd = os.pidfd_open(pid)
                try:
                    if pid in marker.members():
                        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                finally:
                    os.close(pidfd)
        return not left

    wait_for(nobody_left, 10, "the marked processes to be gone")
