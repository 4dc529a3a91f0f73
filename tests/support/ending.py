"""The instant at which a process ends, by the kernel's word: its pidfd becomes readable (pidfd_open(2))."""

from __future__ import annotations

import os
import select
import time
from types import TracebackType
from typing import Self


class Watched:
    """A process that is held by its pidfd, so that its pid cannot come to mean another."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        os.close(self._pidfd)

    def ended(self, seconds: float = 0.0) -> bool:
        """Whether it has ended, or does so within that time."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def end_time(self, seconds: float) -> float:
        """The monotonic instant of its end, which must come within that time."""
        assert self.ended(seconds), f"pid {self.pid} still lives after {seconds:g} s"
        return time.monotonic()
