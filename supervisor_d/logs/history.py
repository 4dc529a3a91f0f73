"""What stands in the logs already: the last lines, or those since a time, merged over slots and lanes.

Lines carry no time of their own; the index says in which second each was written, and that is how lanes are merged.
Each lane is read backwards from its end, so that the cost depends on what is asked for and not on the log's size.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from supervisor_d.logs.files import SEGMENTS_MAX, Index, Lane, open_log, read_index, segment
from supervisor_d.logs.line import LINE_BYTES, LogLine

LINES_MAX = 10_000
LANE_BYTES = 8 * 1024 * 1024
"""The most that is read of one lane."""
BLOCK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Position:
    """How far a lane was read: the inode of its file, and the offset behind the last whole line."""

    inode: int
    offset: int


@dataclass(frozen=True, slots=True)
class History:
    """Lines in the order in which they were written, and where to go on reading each lane."""

    lines: list[LogLine]
    positions: dict[Lane, Position]


def read_history(
    wanted: Iterable[Lane], *, lines: int = 100, since: float | None = None, whole_lines: bool = False
) -> History:
    """The last `lines` lines of all the lanes together (at most LINES_MAX), none written before `since` (Unix seconds).

    `whole_lines` leaves out a last line that is still being written, for a reader that goes on from `positions`.
    """
    count = max(0, min(lines, LINES_MAX))
    positions: dict[Lane, Position] = {}
    streams = [_lane_lines(lane, count, since, positions, whole_lines=whole_lines) for lane in wanted]
    merged = list(heapq.merge(*streams, key=lambda line: line.at or 0.0))
    return History(merged[-count:] if count else [], positions)


def _lane_lines(
    lane: Lane, count: int, since: float | None, positions: dict[Lane, Position], *, whole_lines: bool
) -> list[LogLine]:
    found: list[LogLine] = []
    budget = LANE_BYTES
    seen = 0
    for number in range(SEGMENTS_MAX):
        path = segment(lane.path, number)
        fd = open_log(path)
        if fd is None:
            break
        try:
            status = os.fstat(fd)
            if status.st_ino == seen:
                continue  # turned over while we read
            seen, stop = status.st_ino, status.st_size
            if number == 0:
                positions[lane] = Position(seen, _line_start(fd, stop))
                stop = positions[lane].offset if whole_lines else stop
            index = read_index(path)
            start = _start(fd, index, since)
            part = _Segment(fd, max(start, stop - budget), stop, index).last(count - len(found))
        finally:
            os.close(fd)
        found = [*(LogLine(lane.source, text, at) for text, at in part), *found]
        budget -= stop - start
        if len(found) >= count or budget <= 0 or (since is not None and start > 0):
            break
    return found


def _start(fd: int, index: Index, since: float | None) -> int:
    """Where reading of a segment may begin at the earliest."""
    status = os.fstat(fd)
    if since is None:
        return 0
    if status.st_mtime < int(since):
        return status.st_size
    if not index.offsets:
        return 0
    found = index.since(since)
    return status.st_size if found is None else _line_start(fd, found)


def _line_start(fd: int, offset: int) -> int:
    """The beginning of the line that `offset` lies in; a line longer than LINE_BYTES is given up on."""
    floor = max(0, offset - LINE_BYTES)
    before = os.pread(fd, offset - floor, floor)
    newline = before.rfind(b"\n")
    if newline >= 0:
        return floor + newline + 1
    return 0 if floor == 0 else offset


@dataclass(frozen=True, slots=True)
class _Segment:
    """The bytes from `start` to `stop` of one open file."""

    fd: int
    start: int
    stop: int
    index: Index

    def last(self, count: int) -> list[tuple[str, float | None]]:
        """The last `count` lines with the second of each, oldest first."""
        if count <= 0 or self.stop <= self.start:
            return []
        offset, data, step = self.stop, b"", BLOCK_BYTES
        while offset > self.start and data.count(b"\n", 0, -1) < count:
            block = max(self.start, offset - step)
            data = os.pread(self.fd, offset - block, block) + data
            offset, step = block, step * 2
        if offset > self.start or (offset and os.pread(self.fd, 1, offset - 1) != b"\n"):
            cut = data.find(b"\n") + 1  # the first line is not whole
            data, offset = data[cut:], offset + cut
        found = list(self._split(data, offset))
        return found[-count:]

    def _split(self, data: bytes, offset: int) -> Iterator[tuple[str, float | None]]:
        for line in data.splitlines(keepends=True) if b"\r" not in data else _on_newlines(data):
            at = self.index.at(offset)
            offset += len(line)
            for piece in pieces(line):
                yield piece, at


def _on_newlines(data: bytes) -> Iterator[bytes]:
    """As splitlines(keepends=True), at newlines alone: a progress bar's carriage returns are part of its line."""
    *whole, rest = data.split(b"\n")
    yield from (line + b"\n" for line in whole)
    if rest:
        yield rest


def pieces(line: bytes) -> Iterator[str]:
    """A line as text, without its end; one longer than LINE_BYTES in pieces."""
    body = line.rstrip(b"\r\n")
    for place in range(0, max(len(body), 1), LINE_BYTES):
        yield body[place : place + LINE_BYTES].decode(errors="replace")
