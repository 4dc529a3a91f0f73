"""From the FIFO to the log file: when to look, and what to do when the file can't take it.

The bytes are spliced, so that they never enter this process.  What costs is being woken: a program that writes a
thousand lines a second must not wake the shim a thousand times.  So after each look the pump doesn't wait for the FIFO
but for a pause, which finds its own length: a quarter of it after a FIFO that was full (then the program was blocked),
half as long again after one that was not even a quarter full; LINGER_SECONDS at most, which is so the time after which
a line is in the file.

    idle            the FIFO wakes us with the first line; it is in the file at once
    1,000 lines/s   a look every 10 ms, 10 lines each
    100 MB/s        a look every millisecond or so, some 100 KB each
    as fast as can be    10 ms, 2.5 ms, 600 us, 150 us, none: look after look
    nothing came    back to idle

When the file can't be written (full disk, I/O error), nothing is lost at first: what is in the FIFO stays there, the
pump tries again every RETRY_SECONDS, and a program that fills the FIFO blocks.  One that has been blocked for
`block_seconds` is worth more than its log: from then on the FIFO is emptied into /dev/null whenever it is full, and
the bytes are counted, until the file can be written again.
"""

from __future__ import annotations

import os
import select
import time

from supervisor_d.shim.logfile import CHUNK_BYTES, LogFile

LINGER_SECONDS = 0.010
LEAST_SECONDS = 0.0001
"""Going to sleep and waking costs as much."""
RETRY_SECONDS = 0.1


class Pump:
    """Moves the output of one program, from `fifo` (open without blocking) to its log."""

    def __init__(self, fifo: int, size_bytes: int, log: LogFile, block_seconds: float) -> None:
        self._fifo = fifo
        self._size_bytes = size_bytes
        self._log = log
        self._block_seconds = block_seconds
        self._pause = LINGER_SECONDS
        self._full_since: float | None = None
        self.dropped_bytes = 0

    def look(self) -> float | None:
        """Move what is there.  Seconds until the next look; None: when the FIFO has something again."""
        try:
            moved = self._log.take(self._fifo)
        except BlockingIOError:
            return None
        except OSError:
            return self._stuck(time.monotonic())
        self._full_since = None
        if moved > 0.9 * self._size_bytes:
            self._pause = self._pause / 4 if self._pause > LEAST_SECONDS else 0.0
        elif moved < 0.25 * self._size_bytes:
            self._pause = min(LINGER_SECONDS, max(LEAST_SECONDS, self._pause * 1.5))
        return self._pause

    def drain(self) -> None:
        """Move all that is there: the last words of a program.  What the file does not take is lost, and counted."""
        try:
            while self._log.take(self._fifo):
                pass
        except BlockingIOError:
            return
        except OSError:
            self._drop()

    def _stuck(self, now: float) -> float:
        if not self._is_full():
            return RETRY_SECONDS
        if self._full_since is None:
            self._full_since = now
        if now - self._full_since < self._block_seconds:
            return RETRY_SECONDS
        self._drop()
        return LINGER_SECONDS

    def _is_full(self) -> bool:
        return not select.select([], [self._fifo], [], 0)[1]

    def _drop(self) -> None:
        with open(os.devnull, "wb", buffering=0) as null:
            try:
                while moved := os.splice(self._fifo, null.fileno(), CHUNK_BYTES):
                    self.dropped_bytes += moved
            except BlockingIOError:
                return
