"""Log files as a shim writes them, without a shim: the real LogFile, fed through a pipe."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

from supervisor_d.shim import logfile


class Writer:
    """One lane of a slot's log.  `at` is the clock that the index is written by."""

    def __init__(self, directory: Path, name: str, *, max_size: int = 2**20, keep: int = 3) -> None:
        self._directory = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        self._log = logfile.LogFile(self._directory, name, max_size, keep)
        self._read, self._write = os.pipe()
        self.name = self._log.name

    def write(self, text: str | bytes, at: float | None = None) -> None:
        data = text.encode() if isinstance(text, str) else text
        os.write(self._write, data)
        with patch("time.time", lambda: at) if at is not None else nullcontext():
            left = len(data)
            while left:
                left -= self._log.take(self._read)

    def close(self) -> None:
        self._log._close()
        for fd in (self._directory, self._read, self._write):
            os.close(fd)
