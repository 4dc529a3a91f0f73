"""A loop of one thread: epoll, and deadlines by name.  With nothing to do it is blocked and costs nothing."""

from __future__ import annotations

import select
import time
from collections.abc import Callable

IN = select.EPOLLIN
OUT = select.EPOLLOUT
ONESHOT = select.EPOLLONESHOT

_EPOLL_RESOLUTION_SECONDS = 0.001


class Loop:
    """Calls back when a descriptor is ready or a deadline has come, until `stop`."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watchers: dict[int, Callable[[], None]] = {}
        self._deadlines: dict[str, tuple[float, Callable[[], None]]] = {}
        self._running = True

    def watch(self, fd: int, callback: Callable[[], None], events: int = IN) -> None:
        """Call back when `fd` is ready, hung up or in error; again for a watched fd: with other events."""
        if fd in self._watchers:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._watchers[fd] = callback

    def unwatch(self, fd: int) -> None:
        """To be called before `fd` is closed; no-op for one that is not watched."""
        if self._watchers.pop(fd, None):
            self._epoll.unregister(fd)

    def after(self, seconds: float, name: str, callback: Callable[[], None]) -> None:
        """Call back once after `seconds`; replaces the deadline of that name."""
        self._deadlines[name] = (time.monotonic() + seconds, callback)

    def stop(self) -> None:
        """Let `run` return."""
        self._running = False

    def run(self) -> None:
        """Until `stop`."""
        while self._running:
            for fd, _ in self._epoll.poll(self._patience()):
                if watcher := self._watchers.get(fd):
                    watcher()
            if self._deadlines:
                self._call_due()

    def _patience(self) -> float | None:
        """How long epoll may wait.  It counts in whole milliseconds; a shorter wait is done here, by select(2)."""
        if not self._running:
            return 0
        if not self._deadlines:
            return None
        seconds = max(0.0, min(deadline for deadline, _ in self._deadlines.values()) - time.monotonic())
        if 0 < seconds < _EPOLL_RESOLUTION_SECONDS:
            select.select([self._epoll], [], [], seconds)
            return 0
        return seconds

    def _call_due(self) -> None:
        now = time.monotonic()
        for name in [name for name, (deadline, _) in self._deadlines.items() if deadline <= now]:
            if due := self._deadlines.pop(name, None):
                due[1]()
