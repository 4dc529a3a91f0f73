"""The names of a slot's log files: lanes, rotated segments and the time index (written by shim/logfile.py).

web.0.log        what is written now           web.0.log.idx      its index
web.0.log.1      what was written before       web.0.log.1.idx    its index
web.0~1.log      a second process of the slot at the same time (a rollout): another lane
web.canary.log   what a canary wrote, and web.preflight.log
"""

from __future__ import annotations

import os
import re
import stat
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

SEGMENTS_MAX = 1000
LANES_MAX = 1000
INDEX_BYTES = 4 * 1024 * 1024

TRIALS = ("preflight", "canary")
_LANE = re.compile(rf"((?P<pool>[^/]+)\.(?:[0-9]{{1,6}}|{'|'.join(TRIALS)}))(?:~[0-9]{{1,4}})?\.log")
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


@dataclass(frozen=True, slots=True, order=True)
class Lane:
    """One file that a shim writes, with the slot it belongs to."""

    source: str
    path: Path


@dataclass(frozen=True, slots=True)
class Selection:
    """Which logs are wanted: all of `pools` (pool -> directory), or what `names` (`web`, `worker.0`) picks of them."""

    pools: Mapping[str, Path]
    names: Collection[str] = ()

    @property
    def directories(self) -> frozenset[Path]:
        """Where the wanted pools' logs lie."""
        return frozenset(path for pool, path in self.pools.items() if self._names(pool))

    def lane(self, path: Path) -> Lane | None:
        """The lane at `path`; None for any other file, another pool's or one that is not wanted."""
        match = _LANE.fullmatch(path.name)
        if match is None or self.pools.get(match["pool"]) != path.parent:
            return None
        wanted = not self.names or match["pool"] in self.names or match[1] in self.names
        return Lane(match[1], path) if wanted else None

    def _names(self, pool: str) -> bool:
        return not self.names or any(name == pool or name.rpartition(".")[0] == pool for name in self.names)


def lanes(selection: Selection) -> list[Lane]:
    """Every wanted lane there is, in the order of names; a directory that is not there has none."""
    found = [lane for path in _files(selection.directories) if (lane := selection.lane(path))]
    return sorted(found)[:LANES_MAX]


def _files(directories: Iterable[Path]) -> Iterator[Path]:
    for directory in directories:
        try:
            names = os.listdir(directory)  # noqa: PTH208  names are matched before they are worth a Path
        except OSError:
            continue
        yield from (directory / name for name in names)


def open_log(path: Path) -> int | None:
    """A descriptor of the regular file at `path`, None when there is none: no link and no FIFO is ever followed."""
    try:
        fd = os.open(path, _FLAGS)
    except OSError:
        return None
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    return None


def segment(path: Path, number: int) -> Path:
    """The lane's file `number` turns ago; 0 is the one that is written."""
    return path.with_name(f"{path.name}.{number}") if number else path


@dataclass(frozen=True, slots=True)
class Index:
    """Which second a part of a file was written in: parallel tuples, one entry for each second with a write.

    What lies before the first entry was written in the same second, or not long before: a file that was begun in the
    midst of a second may have its first entry only in the next.
    """

    seconds: tuple[int, ...] = ()
    offsets: tuple[int, ...] = ()

    def at(self, offset: int) -> float | None:
        """The second that the byte at `offset` was written in."""
        place = max(0, bisect_right(self.offsets, offset) - 1)
        return float(self.seconds[place]) if self.seconds else None

    def since(self, unix_seconds: float) -> int | None:
        """Where the first byte written in that second or later lies; None when all is older."""
        place = bisect_left(self.seconds, int(unix_seconds))
        if place == len(self.offsets):
            return None
        return self.offsets[place] if place else 0


def read_index(path: Path) -> Index:
    """The index of the file at `path`: its newest INDEX_BYTES, a torn or foreign line left out."""
    fd = open_log(path.with_name(path.name + ".idx"))
    if fd is None:
        return Index()
    try:
        size = os.fstat(fd).st_size
        data = os.pread(fd, INDEX_BYTES, max(0, size - INDEX_BYTES))
    finally:
        os.close(fd)
    return _parsed(data)


def _parsed(data: bytes) -> Index:
    seconds: list[int] = []
    offsets: list[int] = []
    for line in data.splitlines():
        fields = line.split()
        if len(fields) != 2 or not (fields[0].isdigit() and fields[1].isdigit()) or len(line) > 40:
            continue
        offset = int(fields[1])
        while offsets and offset <= offsets[-1]:  # an empty write, or a file that began anew
            seconds.pop()
            offsets.pop()
        # A clock that was set back must not unsort the seconds.
        seconds.append(max(int(fields[0]), seconds[-1] if seconds else 0))
        offsets.append(offset)
    return Index(tuple(seconds), tuple(offsets))
