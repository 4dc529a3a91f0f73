"""Threads beside the event loop, of which none may be had: a kernel without memory or processes to give refuses them.

What was to be done beside the loop is then done in it.  A loop that waits for a file for some milliseconds is better
than an operator who is told of a bug, just when there is something to look into.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, ParamSpec, TypeVar

HELD_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""What asks the daemon for something."""
P = ParamSpec("P")
T = TypeVar("T")


class Threads(ThreadPoolExecutor):
    """A pool of threads that makes do without."""

    def __init__(self, most: int, name: str = "beside") -> None:
        super().__init__(most, thread_name_prefix=name, initializer=leave_signals_to_the_loop)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As a thread pool's.  Raises RuntimeError after its end."""
        work = _Once(fn)
        try:
            return super().submit(work.run, *args, **kwargs)
        except RuntimeError as error:
            if "start new thread" not in str(error):
                raise
        # It is queued all the same (CPython queues before it looks for a thread), and may be found there one day.
        future: Future[T] = Future()
        try:
            future.set_result(work.run(*args, **kwargs))
        except Exception as error:  # noqa: BLE001  it is whoever asked that wants to know
            future.set_exception(error)
        return future


def leave_signals_to_the_loop() -> None:
    """To be called in each thread as it begins: a signal to the process goes to any thread that lets it through
    (signal(7)), and what the loop's thread holds back, for the next daemon, another one would take and lose."""
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD_SIGNALS)


class _Once(Generic[P, T]):
    """Work that is done once, whoever comes first."""

    def __init__(self, fn: Callable[P, T]) -> None:
        self._fn: Callable[P, T] | None = fn

    def run(self, *args: P.args, **kwargs: P.kwargs) -> T:
        fn, self._fn = self._fn, None
        if fn is None:
            raise RuntimeError("it was done already")
        return fn(*args, **kwargs)
