"""How much memory this daemon's processes can still have: the host's, or less where a cgroup limits it.

/proc/meminfo's MemAvailable (proc_meminfo(5)) is the kernel's own estimate of what can be had without swapping.  A
limit of a cgroup v2 (memory.max, Documentation/admin-guide/cgroup-v2.rst) holds for it and all below it; what its page
cache holds and nobody maps (inactive_file) is given back when it is needed, so it counts as available.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def available_bytes(cgroup: Path | None = None, meminfo: Path = Path("/proc/meminfo")) -> int:
    """What can still be had; `cgroup` is the directory of our own, None where none is known."""
    host = _numbers(meminfo).get("MemAvailable:", 0) * 1024
    return max(0, min([host, *_below_limits(cgroup)]))


def _below_limits(cgroup: Path | None) -> Iterator[int]:
    """What each limit on the way up leaves."""
    while cgroup is not None and (cgroup / "cgroup.procs").exists():
        limit, current = _number(cgroup / "memory.max"), _number(cgroup / "memory.current")
        if limit is not None and current is not None:
            yield limit - current + _numbers(cgroup / "memory.stat").get("inactive_file", 0)
        cgroup = cgroup.parent


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # "max", or no such controller
        return None


def _numbers(path: Path) -> dict[str, int]:
    """The lines `name number ...` of a file."""
    try:
        words = [line.split() for line in path.read_text(encoding="ascii").splitlines()]
    except (OSError, UnicodeDecodeError):
        return {}
    return {word[0]: int(word[1]) for word in words if len(word) > 1 and word[1].isdigit()}
