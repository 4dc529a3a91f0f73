"""A process's own cgroup (v2), made by the daemon where it may; an empty path is none.

`cgroup.kill` (Linux 5.14) is the kernel's own loop over a tree.  Here it only helps: the proof is waitpid's ECHILD.
"""

from __future__ import annotations

import os
from contextlib import suppress


def kill(path: str) -> None:
    """SIGKILL to all in the cgroup and below it, if it is there."""
    if path:
        with suppress(OSError), open(f"{path}/cgroup.kill", "w", encoding="ascii") as file:
            file.write("1")


def remove(path: str) -> None:
    """Remove the cgroup with those that the program made below it; what is still busy stays."""
    if path:
        for directory, _, _ in os.walk(path, topdown=False):
            with suppress(OSError):
                os.rmdir(directory)
