"""Who makes no progress is told once; and its stacks can be had."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import replace

import pytest

from supervisor_d.core.events import FoundStuck
from supervisor_d.core.process import State
from supervisor_d.core.spec import Launch
from supervisor_d.runtime.drivers import vigil
from supervisor_d.runtime.drivers.celery import pool_processes
from supervisor_d.runtime.proc import catches, stat_fields
from tests.drivers.support import process_of
from tests.drivers.test_celery_stop import ID, SPEC, Stage, stage
from tests.support.waiting import eventually, throughout

__all__ = ["stage"]

pytestmark = pytest.mark.real


def attended(stage: Stage, after_seconds: float) -> None:
    """It is ready, and expected to make progress."""
    process = replace(process_of(SPEC, stage.pid), state=State.READY, ready_at=1.0)
    launch = Launch(("python",), {}, "/", agent=True, stuck_after_seconds=after_seconds)
    stage.driver.started(process, launch, str(stage.private_dir))


def found(stage: Stage) -> list[FoundStuck]:
    return [event for event in stage.told.events if isinstance(event, FoundStuck)]


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vigil, "LOOK_SECONDS", 0.05)


async def test_one_that_falls_silent_is_told_once(stage: Stage) -> None:
    attended(stage, 20.0)
    stage.beats(at=asyncio.get_running_loop().time() - 21.0, connected=True)
    await eventually(lambda: found(stage), what="its being found stuck")
    await throughout(lambda: found(stage) == [FoundStuck(ID, "its loop has shown no sign of life for 21 s")], 0.3)


@pytest.mark.parametrize(("waits", "stuck"), [(1.0, True), (30.0, False), (0.0, False)])
async def test_who_has_its_broker_answer_late_is_not_deaf(stage: Stage, waits: float, stuck: bool) -> None:
    attended(stage, 600.0)
    now = asyncio.get_running_loop().time()
    alive = {"connected": True, "consuming": True, "can_consume": True}
    stage.beats(at=now, take_at=max(0.0, now - 25.0), take_waits=waits, **alive)
    if stuck:
        await eventually(lambda: found(stage), what="its being found stuck")
    else:
        await throughout(lambda: found(stage) == [], 0.4)


@pytest.mark.parametrize("why", ["never", "stopping", "ended", "no heartbeat"])
async def test_nobody_else_is(stage: Stage, why: str) -> None:
    attended(stage, 0.0 if why == "never" else 20.0)
    if why != "no heartbeat":
        stage.beats(at=asyncio.get_running_loop().time() - 21.0, connected=True)
    if why == "stopping":
        stage.driver.stopping(ID)
    if why == "ended":
        stage.driver.ended(ID)
    await throughout(lambda: found(stage) == [], 0.4)


async def test_all_of_it_gets_the_signal_for_stacks(stage: Stage) -> None:
    number = int(signal.SIGRTMIN) + 6
    attended(stage, 0.0)
    await eventually(lambda: stage.told.counts == (2, 2), what="its two pool processes counted")
    stage.driver.stacks(ID)
    await throughout(lambda: len(pool_processes(stage.pid)) == 2, 0.1, "without its agent's word no signal is harmless")
    both = pool_processes(stage.pid)
    handling = await eventually(lambda: {pid for pid in both if catches(pid, number)}, what="the one with a handler")
    (other,) = both - handling
    stage.says(ready=True, stacks_signal=number)
    stage.driver.stacks(ID)
    code = await asyncio.wait_for(stage.child.wait(), 10)
    assert code == -number, "it has no handler, and so it ended"
    await eventually(lambda: stage.told.exits, what="the end of the pool process with a handler")
    assert {end.pid for end in stage.told.exits} == handling
    await throughout(lambda: stat_fields(other)[:1] == ["S"], 0.1, "the other one would die of it")
    assert sys.platform == "linux"
    assert not os.path.exists(f"/proc/{stage.pid}/task")
