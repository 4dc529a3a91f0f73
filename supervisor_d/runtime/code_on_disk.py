"""Whether the code that a process imported at its start is still what lies on disk.

A worker that is added to a living master imports what is there by then: half of a site on new code is a deploy that
nobody asked for, and new code that does not import takes gunicorn's master down with it.  So whoever wants one more
worker asks here first, and has the whole process replaced where the answer is yes: a rollout tries before it trusts.

Looked at are the `*.py` files below the working directory, without hidden directories, virtual environments and
node_modules, no link followed and no more than FILES_MAX entries: beyond that nothing is known, and nothing is said.
What counts is a file's status change (ctime): unlike the time of its contents no `rsync -t` and no `tar` can set it.
Blocking: call it in a thread.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from supervisor_d.runtime.proc import started_at

FILES_MAX = 20_000
DEPTH_MAX = 32
IMPORT_SECONDS = 0.1
"""No process has imported anything of its own sooner; start times are told in ticks of 10 ms, and rounded down."""
_NO_CODE = frozenset({"node_modules", "__pycache__", "site-packages"})


def changed_code(cwd: str, pid: int) -> str:
    """What changed below `cwd` since process `pid` started there, in words; empty when nothing did, or it is gone."""
    began = started_at(pid)
    if began is None:
        return ""
    try:
        if not os.path.samefile(f"/proc/{pid}/cwd", cwd):
            return f"{cwd} is another directory than when it started"
    except OSError:
        pass  # of another user: its files are looked at all the same
    name = first_changed(cwd, time.time() - (time.monotonic() - began) + IMPORT_SECONDS)
    return f"code under {cwd} changed since it started ({name})" if name else ""


def first_changed(root: str, since: float) -> str:
    """A `*.py` file below `root` that is newer than `since` (Unix seconds), relative to it; empty without one."""
    for path, changed_at in _python_files(root):
        if changed_at > since:
            return os.path.relpath(path, root)
    return ""


def _python_files(root: str) -> Iterator[tuple[str, float]]:
    left, waiting = FILES_MAX, [(root, 0)]
    while waiting:
        directory, depth = waiting.pop()
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    left -= 1
                    if left < 0:
                        return
                    if entry.is_dir(follow_symlinks=False):
                        if depth < DEPTH_MAX and _may_hold_code(entry):
                            waiting.append((entry.path, depth + 1))
                    elif entry.name.endswith(".py"):
                        yield entry.path, entry.stat(follow_symlinks=False).st_ctime
        except OSError:  # gone meanwhile, or not ours to read
            continue


def _may_hold_code(entry: os.DirEntry[str]) -> bool:
    if entry.name.startswith(".") or entry.name in _NO_CODE:
        return False
    return not os.path.exists(f"{entry.path}/pyvenv.cfg")
