"""Named places where a test lets a shim die: as runtime/crash.py, with the word that the zygote was given."""

from __future__ import annotations

import os
import signal

ENV = "SUPERVISOR_D_CRASH_AT"
POINTS = ("rotate-after-rename", "rotate-after-open")

_name = os.environ.get(ENV, "").partition(":")[0]


def _die(name: str) -> None:
    if name == _name:
        os.kill(os.getpid(), signal.SIGKILL)


def _nothing(name: str) -> None:
    """Nobody wants it."""


point = _die if _name in POINTS else _nothing
