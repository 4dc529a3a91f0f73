"""Waiting for a fact, with a deadline, or looking on while one holds: the tests' only ways to let time pass."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

T = TypeVar("T")

POLL_SECONDS = 0.005


class WaitedTooLongError(AssertionError):
    """The fact did not come true in time."""


def wait_for(predicate: Callable[[], T], seconds: float = 10.0, what: str = "a fact") -> T:
    """The first true value of `predicate`, asked every 5 ms; when late, AssertionError with `what`."""
    deadline = time.monotonic() + seconds
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise WaitedTooLongError(f"waited {seconds:g} s for {what}; the last answer was {value!r}")
        time.sleep(POLL_SECONDS)


@overload
async def eventually(predicate: Callable[[], Awaitable[T]], seconds: float = ..., what: str = ...) -> T: ...
@overload
async def eventually(predicate: Callable[[], T], seconds: float = ..., what: str = ...) -> T: ...
async def eventually(predicate: Callable[[], object], seconds: float = 10.0, what: str = "a fact") -> object:
    """`wait_for` that lets the event loop run meanwhile; the predicate may be async."""
    deadline = time.monotonic() + seconds
    while True:
        answer = predicate()
        value = await answer if isinstance(answer, Awaitable) else answer
        if value:
            return value
        if time.monotonic() >= deadline:
            raise WaitedTooLongError(f"waited {seconds:g} s for {what}; the last answer was {value!r}")
        await asyncio.sleep(POLL_SECONDS)


async def throughout(predicate: Callable[[], object], seconds: float, what: str = "a fact") -> None:
    """Look every 5 ms for so long, with the event loop running; AssertionError as soon as `predicate` is not true.

    For what must not happen: it shows no more than that it did not within this time.
    """
    until = time.monotonic() + seconds
    while True:
        assert predicate(), f"{what} did not hold for {seconds:g} s"
        if time.monotonic() >= until:
            return
        await asyncio.sleep(POLL_SECONDS)
