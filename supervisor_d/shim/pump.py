"""From the FIFO to the log file: when to look, and what to do when the file can't take it.

The bytes are spliced, so that they never enter this process.  What costs is being woken: a program that writes a
thousand lines a second must not wake the shim a thousand times.  So after each look the pump doesn't wait for the FIFO
but for a while, as long as the program will take, at its last rate, to fill half of the FIFO: LINGER_SECONDS at most
(the time after which a line is in the file), nothing at all for a program that writes as fast as it can.

    idle            the FIFO wakes us with the first line; it is in the file at once
    1,000 lines/s   a look every 10 ms, 10 lines each
    100 MB/s        a look every millisecond or so, half a FIFO each
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
AT_ONCE_SECONDS = 0.0002
"""A wait shorter than this is none: going to sleep and waking cost as much."""
RETRY_SECONDS = 0.1


class Pump:
    """Moves the output of one program, from `fifo` (open without blocking) to its log."""

    def __init__(self, fifo: int, size_bytes: int, log: LogFile, block_seconds: float) -> None:
        self._fifo = fifo
        self._half = size_bytes / 2
        self._log = log
        self._block_seconds = block_seconds
        self._looked_at = 0.0
        self._full_since: float | None = None
        self.dropped_bytes = 0

    def look(self) -> float | None:
        """Move what is there.  Seconds until the next look; None: when the FIFO has something again."""
        now = time.monotonic()
        try:
            moved = self._log.take(self._fifo)
        except BlockingIOError:
            return None
        except OSError:
            return self._stuck(now)
        self._full_since = None
        since, self._looked_at = now - self._looked_at, now
        pause = min(LINGER_SECONDS, since * self._half / max(moved, 1))
        return pause if pause > AT_ONCE_SECONDS else 0.0

    def drain(self) -> None:
        """Move all that is there, as far as the file takes it: the last words of a program."""
        try:
            while self._log.take(self._fifo):
                pass
        except OSError:
            return

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
