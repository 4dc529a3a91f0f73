"""A gunicorn master without a control socket: its workers counted from outside, its size changed by signals.

Older than 25.1 there is none, a configuration file can switch it off, and a master may fail to answer there.  TTIN is
one worker more, TTOU one less.  Signals of one kind that wait for a process are one signal (signal(7)), so each is
followed by a look: the next is sent once the last one has shown its effect, or after enough time for it to be lost.
A worker that is to go may first finish what it serves: it is counted until then, and no other one is told meanwhile.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass

from supervisor_d.runtime.proc import children_of

EFFECT_SECONDS = 5.0
_CMDLINE_BYTES = 4096


@dataclass(slots=True)
class Nudge:
    """The last signal to a master: how many workers it had then, and when that was."""

    total: int = -1
    at: float = float("-inf")


def nudge(master: int, total: int, wanted: int, last: Nudge, grace_seconds: float) -> Nudge:
    """Move a master with `total` workers one step towards `wanted`, unless the last step is still under way.

    `grace_seconds` is how long a worker that is told to end may take.
    """
    now = time.monotonic()
    patience = EFFECT_SECONDS + (grace_seconds if total > wanted else 0.0)
    if total == wanted or (total == last.total and now - last.at < patience):
        return last
    try:
        held = os.pidfd_open(master)
    except OSError:
        return last
    try:
        # It is the master for sure while it has workers of the kind that only gunicorn forks.
        if workers_of(master):
            signal.pidfd_send_signal(held, signal.SIGTTIN if total < wanted else signal.SIGTTOU)
    except OSError:
        return last
    finally:
        os.close(held)
    return Nudge(total, now)


def workers_of(master: int) -> frozenset[int]:
    """The children that a master forked and that did not exec anything else: its workers."""
    own = _cmdline(master)
    return frozenset(pid for pid in children_of(master) if own and _is_worker(_cmdline(pid), own))


def _is_worker(cmdline: bytes, masters: bytes) -> bool:
    """The same command line, or the title that gunicorn gives where setproctitle is installed (util.py)."""
    return cmdline == masters or cmdline.startswith(b"gunicorn: worker [")


def _cmdline(pid: int) -> bytes:
    """The first bytes of a command line; empty for what is gone, or a zombie."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as cmdline:
            return cmdline.read(_CMDLINE_BYTES)
    except OSError:
        return b""
