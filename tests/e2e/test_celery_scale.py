"""Celery workers under load: resized in place, rolled, and replaced when they hang; no task is lost or run twice."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from typing import Any

import pytest

from supervisor_d.core.snapshot import Work
from tests.e2e.test_celery_stop import SLOWNESS, send
from tests.lossless.queue_shop import QueueShop
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.real, pytest.mark.slow]

SECONDS = 60.0


def shop(**keys: Any) -> QueueShop:
    return QueueShop(**{"workers": 2, "concurrency": 4, "prefetch": 1, **keys})


def _has(shop: QueueShop, workers: int) -> bool:
    return len(shop.pool_processes()) == workers


def test_a_node_grows_and_shrinks_in_place_and_nothing_is_lost() -> None:
    with shop() as queue:
        (main,) = queue.mains()
        with queue.load(rate=20.0, seconds=(0.05, 0.4)) as load:
            for workers in (4, 2, 3, 1, 4, 2):
                queue.must("scale", f"queue={workers}", seconds=SECONDS)
                assert queue.mains() == [main], f"the node was replaced on the way to {workers}"
                wait_for(partial(_has, queue, workers), SECONDS, f"{workers} pool processes")
            verdict = queue.settle(load)
        assert (verdict.lost, verdict.stranded, verdict.doubled, verdict.again) == ([], [], [], [])
        assert verdict.finished == verdict.sent > 20


def test_then_nodes_come_and_go() -> None:
    with shop(workers=4) as queue:
        (main,) = queue.mains()
        with queue.load(rate=20.0, seconds=(0.05, 0.4)) as load:
            for workers in (6, 10, 5, 4):
                queue.must("scale", f"queue={workers}", seconds=SECONDS)
                assert main in queue.mains()
            queue.wait_pids("queue", 1, SECONDS)
            verdict = queue.settle(load)
        assert (verdict.lost, verdict.stranded, verdict.doubled, verdict.again) == ([], [], [], [])


def slowest_wait(shop: QueueShop, sent: dict[str, float]) -> float:
    """From the sending of a task to its first start."""
    started: dict[str, float] = {}
    for note in shop.records.notes():
        if note.word == "started":
            started.setdefault(note.task, note.at)
    return max(started[task] - at for task, at in sent.items())


def test_a_restart_lets_no_task_wait() -> None:
    with shop(workers=4, concurrency=2) as queue:
        before = set(queue.mains())
        with queue.load(rate=20.0, seconds=(0.02, 0.1)) as load:
            wait_for(lambda: load.sent() > 60, SECONDS, "some tasks")
            began = time.monotonic()
            queue.must("restart", "queue", seconds=SECONDS)
            wait_for(lambda: not before & set(queue.mains()), SECONDS, "the old nodes' end")
            verdict = queue.settle(load)
        assert (verdict.lost, verdict.stranded, verdict.doubled, verdict.again) == ([], [], [], [])
        usual = slowest_wait(queue, {task: at for task, at in load.told.sent.items() if at < began})
        slowest = slowest_wait(queue, {task: at for task, at in load.told.sent.items() if at >= began})
        print(f"slowest wait {slowest:.3f} s, {usual:.3f} s before the restart")
        assert slowest < max(0.3, usual) * SLOWNESS


def test_a_worker_that_hangs_is_replaced_and_says_in_what() -> None:
    with shop(stuck_after="8s", stop=["DRAIN 1s", "TERM 1s", "QUIT 1s", "KILL-WORKERS 1s", "KILL"]) as queue:
        (main,) = queue.mains()
        os.kill(main, signal.SIGSTOP)
        told = queue.wait_event("take-stacks", pool="queue", seconds=SECONDS)
        assert "its loop has shown no sign of life" in told.reason
        queue.wait_event("became-ready", after=told.serial, pool="queue", seconds=SECONDS)
        assert queue.mains() != [main]
        assert queue.pool("queue").restarts_total.get("stuck") == 1
        assert "most recent call first" in queue.log("queue.0"), "the stacks of its pool processes are in its log"


def test_its_figures_are_shown_and_outlive_it() -> None:
    with shop(stop=["DRAIN 2s", "TERM 30s", "KILL"]) as queue:
        with queue.load(rate=20.0, seconds=(0.05, 0.2)) as load:
            wait_for(lambda: load.sent() >= 40, SECONDS, "some tasks")
            verdict = queue.settle(load)

        def work() -> Work:
            found = queue.pool("queue").work
            assert found is not None
            return found

        wait_for(lambda: work().tasks_total["succeeded"] == verdict.sent, SECONDS, "every task to be counted")
        assert sum(work().run_counts) == work().started_total == verdict.sent
        queue.must("restart", "queue", seconds=SECONDS)
        queue.wait_pids("queue", 1, SECONDS)
        assert work().started_total >= verdict.sent, "what the former worker did is kept"
        send(queue, "work", 8.0)
        wait_for(lambda: work().active == 1, SECONDS, "the task to be shown")
        (process,) = queue.live("queue")
        assert process.tasks is not None
        assert process.tasks.oldest_name == "work"
        told = queue.cli("stop", "queue", "--progress", seconds=SECONDS)
        assert "1 task left, the oldest" in told.stderr, told.stderr
