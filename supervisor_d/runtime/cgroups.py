"""A cgroup (v2) for each process, below the daemon's own, where we may make one.

It is never more than a help: a process's tree is killed and proven empty without it as long as its shim lives.  When
the shim is dead, the cgroup alone can still name every process of the tree, and say that none is left.

No controller is ever enabled: in a service's own subtree that would keep systemd from starting it again
("no internal processes", cgroups(7)).
"""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path

CLOSE_SECONDS = 0.25


def own_cgroup() -> Path | None:
    """The directory of the cgroup that we are in; None without cgroup v2."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    inside = next((line[3:] for line in lines if line.startswith("0::")), None)
    mount = next((fields[4] for fields in map(str.split, mounts) if "cgroup2" in fields[6:]), None)
    if inside is None or mount is None:
        return None
    return Path(mount + inside.rstrip("/"))


class Cgroups:
    """The cgroups of one runtime directory: `<own cgroup>/supervisor-d.<hash of the directory>/<process id>`."""

    def __init__(self, runtime_dir: Path, own: Path | None) -> None:
        digest = hashlib.sha256(str(runtime_dir.resolve()).encode()).hexdigest()[:12]
        self._parent = own / f"supervisor-d.{digest}" if own else None

    def create(self, process_id: str) -> str:
        """The path of a new cgroup; "" where none can be had."""
        if self._parent is None:
            return ""
        path = self._parent / process_id
        try:
            self._parent.mkdir(exist_ok=True)
            path.mkdir(exist_ok=True)
        except FileNotFoundError:
            return ""  # the scope that it would be in is gone, until the next zygote makes it again
        except OSError:
            self._parent = None  # no rights: the same for the next one
            return ""
        return str(path)

    def close(self) -> None:
        """Remove the common parent, if no process needs it; the last shims may be removing theirs just now."""
        deadline = time.monotonic() + CLOSE_SECONDS
        while self._parent and self._parent.exists() and not populated(str(self._parent)):
            try:
                self._parent.rmdir()
            except OSError:
                if time.monotonic() > deadline:
                    return
                time.sleep(CLOSE_SECONDS / 50)


def populated(path: str) -> bool:
    """Whether any process lives in the cgroup or below it."""
    try:
        return "populated 1" in Path(path, "cgroup.events").read_text(encoding="ascii")
    except OSError:
        return False


def members(path: str) -> set[int]:
    """The pids in the cgroup and below it, at this instant."""
    pids: set[int] = set()
    for directory, _, _ in os.walk(path):
        with suppress(OSError):
            pids.update(map(int, Path(directory, "cgroup.procs").read_text(encoding="ascii").split()))
    return pids


def kill(path: str) -> None:
    """SIGKILL to every process in the cgroup and below it (Linux 5.14); no-op where that is not known."""
    with suppress(OSError):
        Path(path, "cgroup.kill").write_text("1", encoding="ascii")


def remove(path: str) -> None:
    """Remove the cgroup with those below it; what is busy stays."""
    for directory, _, _ in os.walk(path, topdown=False):
        with suppress(OSError):
            os.rmdir(directory)
