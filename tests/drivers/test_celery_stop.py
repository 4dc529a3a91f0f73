"""How Celery's driver takes part in a stop, with a program that only looks like a worker: one main, two forked."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from supervisor_d.core.events import StepDone, TasksReported
from supervisor_d.core.process import Process, State, StopProgress, TasksLeft
from supervisor_d.core.spec import Launch, PoolSpec
from supervisor_d.programs.celery import CeleryKeys
from supervisor_d.runtime.drivers.celery import CeleryDriver, pool_processes
from tests.drivers.support import Told, process_of
from tests.drivers.test_heartbeat import facts, write
from tests.support.waiting import eventually, throughout

pytestmark = pytest.mark.real

WORKER = """
import os, signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for number in range(2):
    if not os.fork():
        if number:
            signal.signal(signal.SIGRTMIN + 6, lambda *_: os._exit(7))
        break
signal.pause()
"""
SPEC = PoolSpec("worker", "celery", 2, CeleryKeys(app="shop"))
ID = "worker.0@g1.1"


class Stage:
    """A driver, a program, and what passes between the driver and the agent that the test plays."""

    def __init__(self, child: asyncio.subprocess.Process, private_dir: Path) -> None:
        self.child, self.private_dir = child, private_dir
        self.told = Told()
        self.asked: list[dict[str, Any]] = []
        self.driver = CeleryDriver(
            self.told.events.append, self.told.ready.append, lambda _, text: self.asked.append(json.loads(text))
        )

    @property
    def pid(self) -> int:
        return self.child.pid

    def starts(self, *, agent: bool = True, **others: Any) -> None:
        """The program is there."""
        process: Process = replace(process_of(SPEC, self.pid), **others)
        self.driver.started(process, Launch(("python",), {}, "/", agent=agent), str(self.private_dir))

    def says(self, **said: Any) -> None:
        """The agent says something."""
        self.driver.told(ID, json.dumps({"pid": self.pid, **said}))

    def is_ready(self, *features: str) -> None:
        """The agent says hello."""
        self.says(ready=True, features=features, broker="redis")

    def beats(self, **others: Any) -> None:
        """The agent writes a heartbeat."""
        write(self.private_dir, facts(**{"pid": self.pid, **others}))

    @property
    def done(self) -> list[int]:
        return [event.step for event in self.told.events if isinstance(event, StepDone)]

    @property
    def left(self) -> list[TasksLeft]:
        return [event.tasks for event in self.told.events if isinstance(event, TasksReported)]


@pytest_asyncio.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", WORKER, start_new_session=True)
    made = Stage(child, tmp_path)
    await eventually(lambda: len(pool_processes(child.pid)) == 2, what="its two pool processes")
    yield made
    made.driver.close()
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    await child.wait()


async def test_a_drain_is_done_when_the_agent_says_so(stage: Stage) -> None:
    stage.starts()
    stage.is_ready("drain")
    stage.driver.step(ID, "DRAIN", 0)
    (question,) = stage.asked
    assert question["do"] == "drain"
    assert stage.done == []
    stage.says(reply=question["ask"] + 1, ok=True)
    assert stage.done == []
    stage.says(reply=question["ask"], ok=True, data={"held": 2})
    stage.says(reply=question["ask"], ok=True)
    assert stage.done == [0]


async def test_a_drain_that_is_refused_is_done_too(stage: Stage) -> None:
    stage.starts()
    stage.is_ready("drain")
    stage.driver.step(ID, "DRAIN", 0)
    stage.says(reply=stage.asked[0]["ask"], ok=False, error="no consumer")
    assert stage.done == [0]


@pytest.mark.parametrize("why", ["no agent", "not ready yet", "feature missing", "cut off", "unknown", "ended"])
async def test_a_drain_that_nobody_can_do_is_done_at_once(stage: Stage, why: str) -> None:
    if why != "unknown":
        stage.starts(agent=why != "no agent")
    if why not in ("not ready yet", "unknown", "no agent"):
        stage.is_ready(*(() if why == "feature missing" else ("drain",)))
    if why == "cut off":
        stage.driver.cut_off(ID)
    if why == "ended":
        stage.driver.ended(ID)
    stage.driver.step(ID, "DRAIN", 0)
    assert (stage.asked, stage.done) == ([], [0])


@pytest.mark.parametrize("agent", [True, False])
async def test_the_pool_processes_alone_are_killed(stage: Stage, agent: bool) -> None:
    stage.starts(agent=agent)
    stage.driver.step(ID, "KILL-WORKERS", 3)
    assert stage.done == []
    await eventually(lambda: not pool_processes(stage.pid), what="the end of its pool processes")
    assert stage.child.returncode is None

    def again() -> list[int]:
        stage.driver.step(ID, "KILL-WORKERS", 3)
        return stage.done

    assert await eventually(again, what="nobody being left to kill") == [3]


async def test_what_is_left_is_told_while_it_stops_and_as_it_changes(stage: Stage) -> None:
    stage.starts()
    stage.beats()
    await asyncio.sleep(0)
    assert stage.left == []
    stage.driver.stopping(ID)
    stage.driver.stopping(ID)
    first = TasksLeft(1, 0, 1, 10.5, "shop.tasks.export")
    assert stage.left == [first]
    stage.beats(active=0, unsafe=0, oldest_started_at=None, tasks=[])
    await eventually(lambda: stage.left == [first, TasksLeft()], what="the change")


async def test_an_adopted_worker_that_stops_is_watched_and_asked_anew(stage: Stage) -> None:
    stage.beats()
    stop = StopProgress(1, 99.0, "asked", expected=True)
    stage.starts(state=State.STOPPING, stop=stop, ready_at=1.0, adopted=True)
    assert [question["do"] for question in stage.asked] == ["hello"]
    assert len(stage.left) == 1


async def test_ready_is_who_asks_the_broker_for_messages(stage: Stage) -> None:
    stage.starts()
    stage.is_ready("heartbeat")
    stage.beats(take_at=None)
    await throughout(lambda: stage.told.ready == [], 0.1)
    stage.beats(take_at=49.0)
    await stage_ready(stage)


@pytest.mark.parametrize(
    "hello",
    [{"features": []}, {"features": ["heartbeat"], "broker": "amqp"}, {"features": ["heartbeat"], "canary": True}],
)
async def test_ready_by_word_where_no_heartbeat_can_show_more(stage: Stage, hello: dict[str, Any]) -> None:
    stage.starts()
    stage.says(**{"ready": True, "broker": "redis", **hello})
    await stage_ready(stage)


async def stage_ready(stage: Stage) -> None:
    """Wait for its readiness."""
    await eventually(lambda: stage.told.ready, what="readiness")
