"""Named places where a test lets the daemon die: the proof of crash-only is to crash there.

SUPERVISOR_D_CRASH_AT=reload-after-intent:2 ends this process by SIGKILL the second time it comes to that place.  For
tests alone; where the variable is not set, a place is a call of a function that does nothing.
"""

from __future__ import annotations

import os
import signal

ENV = "SUPERVISOR_D_CRASH_AT"

POINTS = (
    "spawn-before-record", "spawn-after-record", "spawn-before-gate", "spawn-after-gate",
    "stop-before-signal", "stop-after-signal",
    "scale-before-intent", "scale-after-intent",
    "reload-before-intent", "reload-after-intent",
    "conclude-before-intent", "conclude-after-intent",
    "state-before-rename", "state-after-rename",
)  # fmt: skip

_name, _, _count = os.environ.get(ENV, "").partition(":")
_left = [int(_count) if _count.isdecimal() else 1]


def _count_down(name: str) -> None:
    if name != _name:
        return
    _left[0] -= 1
    if _left[0] <= 0:
        os.kill(os.getpid(), signal.SIGKILL)


def _nothing(name: str) -> None:
    """Nobody wants it."""


point = _count_down if _name else _nothing
