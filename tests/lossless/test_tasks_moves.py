"""Celery is stopped, rolled and scaled under load: whatever an operator does, each task runs once."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

import pytest

from tests.lossless.queue_shop import SECONDS, QueueShop
from tests.support.dose import FULL, dose, report

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(1500 if FULL else 180)]


def _stop(shop: QueueShop) -> None:
    """Stopped, nothing is held by anybody: all that is not done is in its queue."""
    shop.must("stop", "queue", seconds=SECONDS)
    shop.wait_pool("queue", "stopped", SECONDS)
    assert not shop.broker.held().unacked
    shop.must("start", "queue", seconds=SECONDS)
    shop.wait_running("queue", seconds=SECONDS)


def _roll(shop: QueueShop) -> None:
    old = set(shop.mains())
    shop.must("restart", "queue", seconds=SECONDS)
    shop.wait_pids("queue", 2, SECONDS)
    assert old.isdisjoint(shop.mains())


def _scale(shop: QueueShop) -> None:
    workers = random.choice([n for n in (2, 3, 4, 5, 6) if n != shop.pool("queue").workers_desired])
    shop.must("scale", f"queue={workers}", seconds=SECONDS)
    shop.wait_running("queue", seconds=SECONDS)


ACTIONS: Mapping[str, tuple[Callable[[QueueShop], None], int, int]] = {
    "stops and starts": (_stop, 1, 20),
    "rolls": (_roll, 1, 20),
    "scales up and down": (_scale, 2, 50),
}
"""What is done, how often in a short dose, and in a full one."""
ROLL_SECONDS = 0.3
SETTINGS = [(True, 4), (False, 1), *([(True, 1), (False, 4)] if FULL else [])]
"""Late acknowledgement or not, and prefetch; the most and the least that a node can hold, and in full the others."""


@pytest.mark.parametrize(("late", "prefetch"), SETTINGS)
def test_an_operators_actions(late: bool, prefetch: int) -> None:
    with QueueShop(late=late, prefetch=prefetch) as shop:
        for action in ACTIONS:
            _act(shop, action, f"{'late' if late else 'early'} acknowledgement, prefetch {prefetch}")


def _act(shop: QueueShop, action: str, settings: str) -> None:
    act, short, full = ACTIONS[action]
    times = dose(short, full)
    with shop.load(rate=20, seconds=(0.02, 0.1)) as load:
        load.wait_more(20)
        for _ in range(times):
            act(shop)
            load.wait_more(20)
        verdict = shop.settle(load)
    wait = f", no task waits longer than {ROLL_SECONDS:g} s" if action == "rolls" else ""
    told = verdict.in_numbers()
    report(f"Celery {action}, {settings}", times, must_hold=f"0 lost, 0 doubled{wait}", **told)
    assert (verdict.lost, verdict.stranded, verdict.doubled, verdict.again) == ([], [], [], [])
    assert verdict.finished == verdict.sent
    if FULL and action == "rolls":  # the short dose runs beside other tests
        assert verdict.slowest_wait_seconds < ROLL_SECONDS
