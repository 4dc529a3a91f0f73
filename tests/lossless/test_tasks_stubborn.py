"""A task that ignores everything: the stop ends all the same, in time, and the message is back in its queue."""

from __future__ import annotations

import time

import pytest

from tests.lossless.queue_shop import SECONDS, QueueShop
from tests.support.dose import FULL, dose, report

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(1500 if FULL else 180)]

STOP, STOP_SECONDS = "TERM 2s, QUIT 2s, KILL", 4.0
SLACK_SECONDS = 1.0
BUSY_SECONDS = 0.0 if FULL else 2.0
"""What the short dose leaves for the other tests that run beside it."""


def test_a_task_that_ignores_everything() -> None:
    times = dose(1, 20)
    took: list[float] = []
    with QueueShop(late=True, workers=1, concurrency=1, stop=STOP) as shop:
        for number in range(1, times + 1):
            with shop.load(rate=20, seconds=(600, 600), most=1, task="stubborn") as load:
                shop.records.wait("started", number, SECONDS)
            began = time.monotonic()
            shop.must("stop", "queue", seconds=SECONDS)
            shop.wait_pool("queue", "stopped", SECONDS)
            took.append(time.monotonic() - began)
            (task,) = load.told.sent
            held = shop.broker.held()
            assert (list(held.queued), list(held.unacked)) == ([task], [])
            shop.broker.clear()
            shop.must("start", "queue", seconds=SECONDS)
            shop.wait_running("queue", seconds=SECONDS)
    report(
        "stop of a task that ignores everything",
        times,
        must_hold="at most the sum of the steps and 1 s; the message is back in its queue",
        steps_s=STOP_SECONDS,
        took_at_worst_s=round(max(took), 1),
        messages_back=times,
    )
    assert max(took) < STOP_SECONDS + SLACK_SECONDS + BUSY_SECONDS
