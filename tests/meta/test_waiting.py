from __future__ import annotations

import asyncio
from itertools import count

import pytest

from tests.support.waiting import WaitedTooLongError, eventually, throughout, wait_for


def test_wait_for_returns_the_first_true_value() -> None:
    answers = iter([0, "", None, "yes", "later"])
    assert wait_for(lambda: next(answers)) == "yes"


def test_wait_for_says_what_it_waited_for() -> None:
    with pytest.raises(WaitedTooLongError, match=r"waited 0.02 s for the moon; the last answer was 0"):
        wait_for(lambda: 0, 0.02, "the moon")


async def test_eventually_lets_the_loop_run_and_takes_async_predicates() -> None:
    done = asyncio.Event()
    asyncio.get_running_loop().call_later(0.01, done.set)

    async def ask() -> str:
        return "done" if done.is_set() else ""

    assert await eventually(ask, 5, "the event") == "done"
    assert await eventually(done.is_set) is True


async def test_eventually_ends_too() -> None:
    with pytest.raises(WaitedTooLongError, match="for the sun; the last answer was False"):
        await eventually(lambda: False, 0.02, "the sun")


async def test_throughout_looks_until_the_end() -> None:
    looks = count(1)
    await throughout(lambda: next(looks), 0.05)
    assert next(looks) > 3


async def test_throughout_ends_with_the_fact() -> None:
    answers = iter([True, True, False])
    with pytest.raises(AssertionError, match="the silence did not hold for 30 s"):
        await throughout(lambda: next(answers), 30, "the silence")
