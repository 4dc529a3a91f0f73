"""Many lanes followed at once: the history first, then what is added, with no line lost or told twice in between.

Nothing is read while nothing is written: inotify wakes the reader.  Only where the kernel does not tell of splice(2)
(before Linux 6.4) is a look taken every TICK_SECONDS, for as long as somebody follows.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from supervisor_d.logs.files import Lane, Selection, lanes
from supervisor_d.logs.history import Position, read_history
from supervisor_d.logs.inotify import Inotify, tells_of_splice
from supervisor_d.logs.line import LogLine
from supervisor_d.logs.tails import Tail

TICK_SECONDS = 0.25
REST_SECONDS = 0.02
"""The shortest time between two reads: a writer of many small lines is read in batches."""


class Follower:
    """Reads lanes and goes on reading them.  `select` says which are wanted; it is asked again at `refresh`."""

    def __init__(self, select: Callable[[], Selection]) -> None:
        self._select = select
        self._selection = select()
        self._tails: dict[Lane, Tail] = {}
        self._dirty: set[Lane] = set()
        self._inotify = Inotify()
        self._watch()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def history(self, lines: int, since: float | None) -> list[LogLine]:
        """The last whole lines; what comes after them is told by `added`.  May block: fit for a thread."""
        found = lanes(self._selection)
        history = read_history(found, lines=lines, since=since, whole_lines=True)
        for lane in found:
            self._add(lane, history.positions.get(lane))
        return history.lines

    def refresh(self) -> None:
        """Ask again which logs are wanted (the config changed), and look at every file."""
        self._selection = self._select()
        self._watch()
        for lane in lanes(self._selection):
            self._add(lane, None)
        self._dirty.update(self._tails)

    async def added(self) -> AsyncIterator[list[LogLine]]:
        """Batches of lines as they are written, for ever."""
        self._dirty.update(self._tails)
        while True:
            batch = self._read_once()
            if batch:
                yield batch
            if self._dirty:
                await asyncio.sleep(0 if batch else REST_SECONDS)
            else:
                await self._woken()

    def close(self) -> None:
        """Close every file."""
        for tail in self._tails.values():
            tail.close()
        self._tails.clear()
        self._dirty.clear()
        self._inotify.close()

    def _watch(self) -> None:
        for directory in self._selection.directories:
            self._inotify.watch(directory)

    def _add(self, lane: Lane, position: Position | None) -> None:
        if lane not in self._tails:
            self._tails[lane] = Tail(lane, position)
            self._dirty.add(lane)

    def _read_once(self) -> list[LogLine]:
        """A chunk of every lane that has something; the others are left out until they are told of."""
        batch: list[LogLine] = []
        for lane in sorted(self._dirty):
            found, more = self._tails[lane].read()
            batch += found
            if not more:
                self._dirty.discard(lane)
        return batch

    async def _woken(self) -> None:
        """Return when a followed file may have grown."""
        while not self._dirty:
            with _readable(self._inotify.fileno()) as ready:
                try:
                    async with asyncio.timeout(None if tells_of_splice() else TICK_SECONDS):
                        await ready
                except TimeoutError:
                    self.refresh()
            if not self._dirty:
                await asyncio.sleep(REST_SECONDS)
            self._note_changes()

    def _note_changes(self) -> None:
        paths, lost = self._inotify.changed()
        if lost:
            self.refresh()
        for path in paths:
            self._note(path)

    def _note(self, path: Path) -> None:
        lane = self._selection.lane(path)
        if lane is None:
            return
        self._add(lane, None)
        self._dirty.add(lane)


@contextmanager
def _readable(fd: int) -> Iterator[asyncio.Future[None]]:
    """A future that is done once `fd` can be read."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def tell() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(fd, tell)
    try:
        yield ready
    finally:
        loop.remove_reader(fd)


def selection_of(directories: Callable[[], Mapping[str, str]], names: tuple[str, ...]) -> Callable[[], Selection]:
    """A `select` for Follower out of a function that knows where each pool's logs lie."""
    return lambda: Selection({pool: Path(os.path.realpath(path)) for pool, path in directories().items()}, names)
