"""A wall clock that a test sets, in a daemon and in the commands that speak to it.

time.time() is shifted by a module that the interpreter imports by itself at its start (sitecustomize, of Python's site
module): the daemon's code stays as it is, and tests/faults/test_clock.py holds that it has no other wall clock.  Shims
start with -S and keep the true time, as does the kernel for files.
"""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.daemon import ROOT, Daemon

_SHIFTING = """
import time
_true = time.time
def _shifted():
    with open({path!r}) as file:
        return _true() + float(file.read())
time.time = _shifted
"""


class WallClock:
    """The wall clock of one daemon's world: to be made before it is started."""

    def __init__(self, daemon: Daemon) -> None:
        directory = daemon.directory / "clock"
        directory.mkdir()
        self._path = directory / "ahead"
        self.set(0)
        (directory / "sitecustomize.py").write_text(_SHIFTING.format(path=str(self._path)))
        daemon.env["PYTHONPATH"] = os.pathsep.join((str(directory), str(ROOT)))

    def set(self, seconds_ahead: float) -> None:
        """Set it to so many seconds ahead of the true time, at once."""
        new = Path(f"{self._path}.new")
        new.write_text(str(seconds_ahead))
        new.replace(self._path)
