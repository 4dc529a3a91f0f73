"""Grow and shrink: at once, and without a task lost or run twice, also under a flood of short ones."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable

import pytest

from tests.agents.harness import Node, Truth, full_dose
from tests.support.dose import FULL
from tests.support.waiting import wait_for

pytestmark = pytest.mark.real

Start = Callable[..., Node]


def test_grown_the_new_processes_work_at_once(start: Start, truth: Truth) -> None:
    node = start(concurrency=1, conf={"task_acks_late": True})
    node.ready()
    truth.send(range(4), 2.0)
    wait_for(lambda: len(truth.started()) == 1, 20, "a running task")
    began = time.monotonic()
    assert node.done("grow", n=3) == {"processes": 4}
    assert len(node.children()) == 4
    wait_for(lambda: len(truth.started()) == 4, 5, "four running tasks")
    print(f"grown by 3, working after {time.monotonic() - began:.2f} s")
    beat = wait_for(lambda: node.beat()["active"] == 4 and node.beat(), 5, "the heartbeat")
    assert (beat["processes"], beat["target"]) == (4, 4)


def test_shrunk_busy_processes_end_their_tasks_first(start: Start, truth: Truth) -> None:
    node = start(concurrency=4)  # early acknowledgement: what is interrupted is lost
    node.ready()
    truth.send(range(8), 1.5)
    wait_for(lambda: len(truth.started()) == 4, 20, "four running tasks")
    assert node.done("shrink", n=3) == {"processes": 1}
    assert (node.beat()["processes"], node.beat()["target"]) == (4, 1)
    assert node.done("shrink", n=3) == {"processes": 1}, "never below one"
    wait_for(lambda: len(node.children()) == 1, 15, "three processes to go")
    truth.wait_finished(8, 30)
    assert sorted(truth.started()) == list(range(8))
    before = node.beat()["at"]
    wait_for(lambda: node.beat()["at"] > before + 6, 15, "Celery's own maintenance to have run")
    assert len(node.children()) == 1
    assert "exited with" not in node.text()
    assert node.done("grow") == {"processes": 2}
    wait_for(lambda: len(node.children()) == 2, 5, "another one")


@full_dose
def test_grown_again_while_others_are_on_their_way_out(start: Start, truth: Truth) -> None:
    node = start(concurrency=3)
    node.ready()
    truth.send(range(3), 4.0)
    wait_for(lambda: len(truth.started()) == 3, 20, "three running tasks")
    assert node.done("shrink", n=2) == {"processes": 1}
    assert node.done("grow", n=2) == {"processes": 3}
    assert len(node.children()) == 5
    truth.send(range(10, 12), 0.1)
    truth.wait_finished(2, 3)
    assert set(truth.finished()) == {10, 11}, "the new ones work while the old ones end"
    wait_for(lambda: len(node.children()) == 3, 15, "the two to be gone")


@pytest.mark.parametrize("late", [True, False] if FULL else [False])
def test_under_a_flood_nothing_is_lost_or_run_twice(start: Start, truth: Truth, late: bool) -> None:
    chance = random.Random(20)
    node = start(concurrency=4, prefetch=2, conf={"task_acks_late": late})
    node.ready()
    truth.send(range(500), 0.005)
    size = 4
    while len(truth.finished()) < 450:
        if size > 1 and (size >= 6 or chance.random() < 0.6):
            answer = node.ask("shrink", n=chance.randint(1, size - 1))
        else:
            answer = node.ask("grow", n=chance.randint(1, 3))
        assert answer["ok"] or "try again" in answer["error"], answer
        size = answer["data"].get("processes", size)
        seen = len(truth.finished())
        wait_for(lambda seen=seen: len(truth.finished()) > min(seen + 10, 499), 20, "some work")  # type: ignore[misc]
    truth.wait_finished(500, 30)
    wait_for(lambda: truth.unacked() == 0, 10, "the acknowledgements")
    wait_for(lambda: len(node.children()) == size, 20, "the pool to have its size")
    assert sorted(truth.started()) == list(range(500)), "each once"
    assert node.stop() == 0


@full_dose
def test_a_process_that_dies_on_its_way_out_leaves_nothing_behind(start: Start, truth: Truth) -> None:
    node = start(concurrency=2, conf={"task_acks_late": True, "task_reject_on_worker_lost": True})
    node.ready()
    before = set(node.children())
    truth.send(range(2), 3.0)
    wait_for(lambda: len(truth.started()) == 2, 20, "two running tasks")
    node.done("shrink")
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: len(node.children()) == 1 and not before & set(node.children()), 15, "one other process")
    truth.wait_finished(2, 30)
    assert node.done("grow", n=2) == {"processes": 3}
    truth.send(range(10, 30))
    truth.wait_finished(22, 20)
    assert node.stop() == 0


@full_dose
def test_recycled_processes_and_shrinking_go_together(start: Start, truth: Truth) -> None:
    node = start(concurrency=3, args=("--max-tasks-per-child", "2"))
    node.ready()
    truth.send(range(12), 0.01)
    wait_for(lambda: len(truth.finished()) >= 4, 30, "some work")
    wait_for(lambda: node.ask("shrink", n=2)["ok"], 10, "the shrink")
    truth.wait_finished(12, 60)
    node.done("grow", n=2)
    truth.send(range(12, 18), 0.01)
    truth.wait_finished(18, 60)
    assert sorted(truth.started()) == list(range(18))
