"""How a Celery worker is stopped, for real: drained, asked, made to give back what it has; across a daemon's death."""

from __future__ import annotations

import time
from typing import Any

import pytest
from celery import Celery

from tests.lossless.queue_shop import QueueShop
from tests.support.waiting import wait_for

pytestmark = pytest.mark.real

SHORT = ["DRAIN 2s", "TERM 1s", "QUIT 2s", "KILL-WORKERS 3s", "KILL"]
SECONDS = 60.0


def send(shop: QueueShop, task: str, seconds: float) -> str:
    """Send one task, and wait until it runs."""
    with Celery("sender", broker=f"redis://127.0.0.1:{shop.redis_port}/0", set_as_current=False) as app:
        sent = app.send_task(task, (seconds,), ignore_result=True)
    wait_for(lambda: (str(sent), "started") in words(shop), SECONDS, "the task to run")
    return str(sent)


def words(shop: QueueShop) -> list[tuple[str, str]]:
    """What the tasks noted: (id, word)."""
    return [(note.task, note.word) for note in shop.records.notes()]


def steps(shop: QueueShop) -> list[str]:
    """The steps of the stop, as the journal tells them."""
    told = [e for e in shop.events(pool="queue") if e.name in ("signal", "driver-step", "kill")]
    return [entry.reason.partition(":")[0] for entry in told]


def shop(**keys: Any) -> QueueShop:
    return QueueShop(**{"workers": 2, "concurrency": 2, "stop": SHORT, **keys})


def test_a_task_that_ignores_everything_goes_back_to_its_queue() -> None:
    with shop() as queue:
        task = send(queue, "stubborn", 300.0)
        began = time.monotonic()
        queue.must("stop", "queue")
        took = time.monotonic() - began
        assert steps(queue) == ["DRAIN", "TERM", "QUIT", "KILL-WORKERS"]
        assert took < 2 + 1 + 2 + 3 + 1 + 3, "the sum of the steps, one more, and the command itself"
        told = queue.wait_event("driver-step", pool="queue", text="KILL-WORKERS")
        assert "still there 2 s after QUIT; 1 task left, the oldest" in told.reason
        assert told.reason.endswith(": stubborn")
        assert "exited with code 0" in queue.wait_event("main-exited", pool="queue").reason
        held = queue.broker.held()
        assert (len(held.queued), len(held.unacked)) == (1, 0)
        assert (task, "finished") not in words(queue)


def test_a_stop_goes_on_where_a_dead_daemon_left_it() -> None:
    with shop(stop=["DRAIN 2s", "TERM 8s", "QUIT 2s", "KILL-WORKERS 3s", "KILL"]) as queue:
        task = send(queue, "work", 5.0)
        began = time.monotonic()
        queue.must("stop", "queue", "--no-wait")
        queue.wait_event("signal", pool="queue", text="TERM")
        queue.kill()
        queue.start()
        queue.wait_pool("queue", "stopped", SECONDS)
        assert time.monotonic() - began < 5 + 8, "it was not asked from the beginning again"
        assert steps(queue)[:2] == ["DRAIN", "TERM"]
        assert "QUIT" not in steps(queue)
        assert words(queue) == [(task, "started"), (task, "finished")]
        held = queue.broker.held()
        assert (len(held.queued), len(held.unacked)) == (0, 0)


def test_a_task_that_cannot_be_given_back_has_a_longer_grace() -> None:
    with shop(late=False, unsafe_grace="60s") as queue:
        task = send(queue, "work", 6.0)
        queue.must("stop", "queue")
        assert steps(queue) == ["DRAIN", "TERM"]
        assert words(queue) == [(task, "started"), (task, "finished")]
