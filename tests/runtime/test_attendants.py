"""Drivers and probes joined: BecameReady once, when all that a process waits for is true."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from supervisor_d.core.events import BecameReady, Event, NotReadyYet
from supervisor_d.core.process import Policy, Process, State
from supervisor_d.core.spec import Launch, PoolSpec, Probe, RestartPolicy
from supervisor_d.programs.beat import BeatKeys
from supervisor_d.programs.command import CommandKeys
from supervisor_d.programs.registry import PROGRAMS
from supervisor_d.runtime import tasks
from supervisor_d.runtime.attendants import Attendants
from supervisor_d.runtime.readiness import Condition, Readiness
from tests.support.waiting import eventually, throughout


def test_ready_once_when_nothing_is_missing() -> None:
    events: list[Event] = []
    readiness = Readiness(events.append)
    readiness.began("a", Condition.DRIVER | Condition.PROBES)
    readiness.probes_ready("a")
    readiness.probes_ready("a")
    assert events == []
    readiness.driver_ready("a")
    readiness.driver_ready("a")
    assert events == [BecameReady("a")]
    readiness.began("b", Condition.NONE)
    assert events[1:] == [BecameReady("b")]
    readiness.began("c", Condition.DRIVER)
    readiness.ended("c")
    readiness.driver_ready("c")
    readiness.driver_ready("unknown")
    assert len(events) == 2


def process_of(spec: PoolSpec, state: State = State.STARTING) -> Process:
    program = PROGRAMS[spec.program]
    return Process(
        id=f"{spec.name}.0@g1.1",
        pool=spec.name,
        slot=0,
        generation=1,
        workers=1,
        policy=Policy(program.default_stop, RestartPolicy(), program.traits, 60.0),
        reason="a test",
        state=state,
        since=0.0,
        began_at=0.0,
        pid=os.getpid(),
    )


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
async def attendants(events: list[Event], tmp_path: Path) -> AsyncIterator[Attendants]:
    made = Attendants(events.append, lambda _: (), lambda process_id: str(tmp_path / process_id))
    yield made
    made.close()


LAUNCH = Launch(argv=("/bin/true",), env={}, cwd="/", agent=True)
BEAT = PoolSpec("beat", "celery-beat", 1, BeatKeys("shop"), ready=(Probe("notify"),))
REDIS = PoolSpec("redis", "command", 1, CommandKeys(("redis-server",)))
SAID_READY = json.dumps({"ready": True, "pid": os.getpid()})


async def test_a_plain_command_is_ready_when_it_runs(attendants: Attendants, events: list[Event]) -> None:
    attendants.started(process_of(REDIS), REDIS, LAUNCH)
    assert events == [BecameReady("redis.0@g1.1")]


async def test_a_command_with_a_probe_waits_for_it(attendants: Attendants, events: list[Event]) -> None:
    spec = replace(REDIS, ready=(Probe("tcp", "127.0.0.1:1", interval_seconds=0.01),))
    attendants.started(process_of(spec), spec, LAUNCH)
    await eventually(lambda: events, what="the probe's failure")
    assert [(type(event), getattr(event, "why", "")) for event in events] == [
        (NotReadyYet, "tcp 127.0.0.1:1 failed: Connection refused")
    ]


async def test_driver_and_probes_both_count(attendants: Attendants, events: list[Event]) -> None:
    attendants.started(process_of(BEAT), BEAT, LAUNCH)
    attendants.told("beat.0@g1.1", "READY=1")
    await throughout(lambda: events == [], 0.05, "the driver has not spoken")
    attendants.told("beat.0@g1.1", SAID_READY)
    await eventually(lambda: events == [BecameReady("beat.0@g1.1")], what="readiness")
    attendants.told("beat.0@g1.1", SAID_READY)
    attendants.scale("beat.0@g1.1", 3)
    assert len(events) == 1


@pytest.mark.parametrize("state", [State.READY, State.STOPPING])
async def test_an_adopted_process_is_not_asked_again(attendants: Attendants, events: list[Event], state: Any) -> None:
    attendants.started(process_of(BEAT, state), BEAT, LAUNCH)
    attendants.told("beat.0@g1.1", f"READY=1\n{SAID_READY}")
    attendants.told("beat.0@g1.1", SAID_READY)
    await throughout(lambda: events == [], 0.05)


async def test_nothing_is_told_after_the_end(attendants: Attendants, events: list[Event]) -> None:
    attendants.started(process_of(BEAT), BEAT, LAUNCH)
    attendants.ended("beat.0@g1.1")
    attendants.told("beat.0@g1.1", SAID_READY)
    attendants.told("beat.0@g1.1", "READY=1")
    attendants.scale("beat.0@g1.1", 3)
    attendants.ended("unknown.0@g1.1")
    await throughout(lambda: events == [], 0.05)


async def test_a_failure_in_the_background_reaches_the_daemon() -> None:
    caught: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: caught.append(context))

    async def broken() -> None:
        raise ZeroDivisionError

    task = tasks.begin(broken(), "a broken task")
    await eventually(lambda: caught, what="the exception")
    assert isinstance(caught[0]["exception"], ZeroDivisionError)
    assert caught[0]["message"] == "a broken task failed"
    assert task.done()
