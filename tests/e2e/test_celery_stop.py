"""How a Celery worker is stopped, for real: drained, asked, made to give back what it has; across a daemon's death."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest
from celery import Celery

from tests.lossless.queue_shop import QueueShop
from tests.support.waiting import wait_for

pytestmark = pytest.mark.real

SHORT = ["DRAIN 2s", "TERM 1s", "QUIT 2s", "KILL-WORKERS 3s", "KILL"]
SECONDS = 60.0
SLOWNESS = 3.0
"""Of a machine that does other things as well."""


def send_only(shop: QueueShop, task: str, seconds: float, padding: int = 0) -> str:
    """Send one task, in a message that is larger by so many bytes."""
    with Celery("sender", broker=f"redis://127.0.0.1:{shop.redis_port}/0", set_as_current=False) as app:
        return str(app.send_task(task, (seconds,), ignore_result=True, headers={"padding": "x" * padding}))


def send(shop: QueueShop, task: str, seconds: float) -> str:
    """Send one task, and wait until it runs."""
    sent = send_only(shop, task, seconds)
    wait_for(lambda: (sent, "started") in words(shop), SECONDS, "the task to run")
    return sent


def words(shop: QueueShop) -> list[tuple[str, str]]:
    """What the tasks noted: (id, word)."""
    return [(note.task, note.word) for note in shop.records.notes()]


def held(shop: QueueShop) -> int:
    """How many messages the broker holds, delivered or not."""
    found = shop.broker.held()
    return found.queued.total() + found.unacked.total()


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
        told = queue.wait_event("signal", pool="queue", text="QUIT")
        assert "still there 1 s after TERM; 1 task left, the oldest" in told.reason
        assert told.reason.endswith(": stubborn")
        told = queue.wait_event("driver-step", pool="queue", text="KILL-WORKERS")
        assert "still there 2 s after QUIT" in told.reason, (
            "whether Celery still counts the task it cancelled is chance"
        )
        assert "exited with code 0" in queue.wait_event("main-exited", pool="queue").reason
        assert (queue.broker.held().queued.total(), queue.broker.held().unacked.total()) == (1, 0)
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
        assert not held(queue)


def test_an_old_generations_task_keeps_its_grace_though_its_rollout_is_over_and_the_daemon_dies() -> None:
    with shop(late=False, unsafe_grace="60s") as queue:
        task = send(queue, "work", 9.0)
        queue.must("restart", "queue")
        queue.kill()
        queue.start()
        wait_for(lambda: (task, "finished") in words(queue), SECONDS, "the task to end")
        told = [e.reason for e in queue.events(pool="queue") if e.name == "signal" and "@g1." in e.subject]
        assert [reason.partition(":")[0] for reason in told] == ["TERM"]
        assert words(queue) == [(task, "started"), (task, "finished")]


def test_a_task_that_cannot_be_given_back_has_a_longer_grace() -> None:
    with shop(late=False, unsafe_grace="60s") as queue:
        task = send(queue, "work", 6.0)
        queue.must("stop", "queue")
        assert steps(queue) == ["DRAIN", "TERM"]
        assert words(queue) == [(task, "started"), (task, "finished")]


def test_what_a_killed_worker_held_is_back_in_seconds_and_runs_once_elsewhere() -> None:
    with shop(workers=4, concurrency=2, prefetch=2) as queue:
        tasks = [send(queue, "work", 3.0) for _ in range(4)]
        waiting = [send_only(queue, "work", 0.1) for _ in range(4)]
        victim = min(queue.pids("queue").values())
        wait_for(lambda: queue.broker.held().unacked.total() == 8, SECONDS, "all messages to be delivered")
        os.kill(victim, signal.SIGKILL)
        killed_at = time.monotonic()
        told = queue.wait_event("restored", pool="queue")
        took = time.monotonic() - killed_at
        assert "4 messages held: 4 back in their queues" in told.reason
        assert took < 2.0 * SLOWNESS, f"the messages were back after {took:.2f} s"
        wait_for(lambda: not held(queue), SECONDS, "all tasks to be done")
        finished = [task for task, word in words(queue) if word == "finished"]
        assert sorted(finished) == sorted([*tasks, *waiting]), "each once"


def handed_to_the_stopped(queue: QueueShop, victim: int, padding: int) -> str:
    """Stop a main with its question open, and send a task: Redis hands it over, and it is gone from the broker.

    The question is open for a second at a time: where there was none, it is tried again.
    """
    for _ in range(30):
        os.kill(victim, signal.SIGSTOP)
        task = send_only(queue, "work", 0.1, padding)
        if not held(queue):
            return task
        os.kill(victim, signal.SIGCONT)
        wait_for(lambda: not held(queue), SECONDS, "the task to be done")
    raise AssertionError("Redis never handed a message to the one that is stopped")


@pytest.mark.parametrize("padding", [0, 300_000])
def test_what_redis_hands_to_a_dead_man_goes_back_to_its_queue(padding: int) -> None:
    """A stopped main cannot read: what Redis answers it is in nobody's hands when it is killed.

    Nor is what the connection's buffer, of 128,000 bytes, has no room for.
    """
    with shop(workers=1, concurrency=1) as queue:
        send(queue, "work", 0.1)
        wait_for(lambda: not held(queue), SECONDS, "the first task to be done")
        victim = queue.pid_of("queue")
        task = handed_to_the_stopped(queue, victim, padding)
        os.kill(victim, signal.SIGKILL)
        assert "1 message held: 1 back in their queues" in queue.wait_event("restored", pool="queue").reason
        wait_for(lambda: (task, "finished") in words(queue), SECONDS, "the task to be done by the next one")
        assert words(queue).count((task, "started")) == 1
