"""One lane that is followed through its rotations, without losing or repeating a byte.

The open descriptor stays on its file however that is renamed.  When the lane's name shows another file, the old one is
read to its end once more (its writer may have added to it before it turned over) and then every file between the two,
oldest first: a writer may turn over several times between two reads.
"""

from __future__ import annotations

import os
import time
from collections import deque

from supervisor_d.logs.files import SEGMENTS_MAX, Lane, open_log, segment
from supervisor_d.logs.history import Position, pieces
from supervisor_d.logs.line import LINE_BYTES, LogLine

CHUNK_BYTES = 256 * 1024


class Tail:
    """Reads what is added to a lane, from `position` on, or from the beginning of its file."""

    def __init__(self, lane: Lane, position: Position | None = None) -> None:
        self.lane = lane
        self._partial = b""
        self._offset = 0
        self._fd = -1
        self._next: deque[int] = deque()
        if position is not None:
            self._resume(position)

    def read(self) -> tuple[list[LogLine], bool]:
        """Whole lines that were added, at most about CHUNK_BYTES of them, and whether there may be more at once."""
        if self._fd < 0 and not self._advance():
            return [], False
        data = self._chunk()
        if not data:
            if not self._is_turned_over():
                return [], False
            data = self._chunk()  # added between the read above and the turn
            if not data:
                rest = self._flush()
                self._advance()
                return rest, True
        return self._lines(data), True

    def close(self) -> None:
        """Close every file."""
        for fd in (self._fd, *self._next):
            if fd >= 0:
                os.close(fd)
        self._fd = -1
        self._next.clear()

    def _chunk(self) -> bytes:
        size = os.fstat(self._fd).st_size
        if size < self._offset:  # someone truncated it
            self._offset, self._partial = size, b""
        data = os.pread(self._fd, CHUNK_BYTES, self._offset)
        self._offset += len(data)
        return data

    def _lines(self, data: bytes) -> list[LogLine]:
        *whole, self._partial = (self._partial + data).split(b"\n")
        if len(self._partial) >= LINE_BYTES:
            whole.append(self._partial)
            self._partial = b""
        now = float(int(time.time()))
        return [LogLine(self.lane.source, piece, now) for line in whole for piece in pieces(line)]

    def _flush(self) -> list[LogLine]:
        """The last words of a file that has no more to come."""
        rest, self._partial = self._partial, b""
        return [LogLine(self.lane.source, piece, float(int(time.time()))) for piece in pieces(rest)] if rest else []

    def _resume(self, position: Position) -> None:
        """Go on in the file of that inode, and then in those that came after it."""
        newer: list[int] = []
        for number in range(SEGMENTS_MAX):
            fd = open_log(segment(self.lane.path, number))
            if fd is None:
                break
            newer.insert(0, fd)
            if os.fstat(fd).st_ino == position.inode:
                break
        self._next.extend(newer)
        if self._next and self._advance() and os.fstat(self._fd).st_ino == position.inode:
            self._offset = position.offset

    def _is_turned_over(self) -> bool:
        """Whether another file comes after this one; found files wait in `_next`."""
        if self._next:
            return True
        here = os.fstat(self._fd)
        for number in range(SEGMENTS_MAX):
            fd = open_log(segment(self.lane.path, number))
            if fd is None:
                break
            found = os.fstat(fd)
            if found.st_ino == here.st_ino or (number and found.st_mtime < here.st_mtime):
                os.close(fd)
                break
            self._next.appendleft(fd)
        return bool(self._next)

    def _advance(self) -> bool:
        """Go on to the next file, if there is one."""
        if not self._next:
            fd = open_log(self.lane.path)
            if fd is None:
                return False
            self._next.append(fd)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._offset = self._next.popleft(), 0
        return True
