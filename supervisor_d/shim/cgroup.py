"""A process's own cgroup (v2), made by the daemon where it may; an empty path is none.

`cgroup.kill` (Linux 5.14) is the kernel's own loop over a tree.  Here it only helps: the proof is waitpid's ECHILD.
"""

from __future__ import annotations

import os
from contextlib import suppress


def admit(path: str, pid: int) -> bool:
    """Move a process into the cgroup.  Whether it is there."""
    try:
        members = os.open(f"{path}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(members, b"%d" % pid)
        finally:
            os.close(members)
    except OSError:
        return False
    return True


def kill(path: str) -> None:
    """SIGKILL to all in the cgroup and below it, if it is there."""
    if not path:
        return
    try:
        switch = os.open(f"{path}/cgroup.kill", os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return
    os.write(switch, b"1")
    os.close(switch)


def remove(path: str) -> None:
    """Remove the cgroup with those that the program made below it; what is still busy stays."""
    if not path:
        return
    try:
        os.rmdir(path)
    except OSError:
        for directory, _, _ in os.walk(path, topdown=False):
            with suppress(OSError):
                os.rmdir(directory)
