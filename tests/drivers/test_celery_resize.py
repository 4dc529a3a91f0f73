"""How Celery's driver resizes a worker in place, and when it says that it cannot."""

from __future__ import annotations

from typing import Any

import pytest

from supervisor_d.core.events import ScaleRefused, WorkersReported
from supervisor_d.core.process import State
from supervisor_d.runtime.drivers import celery
from supervisor_d.runtime.drivers.celery import pool_processes
from tests.drivers.test_celery_stop import ID, Stage, stage
from tests.support.waiting import eventually, throughout

__all__ = ["stage"]

pytestmark = pytest.mark.real


async def runs(stage: Stage, *features: str, **others: Any) -> None:
    """It is ready, with its two pool processes counted."""
    stage.starts(state=State.READY, ready_at=1.0, **others)
    if features:
        stage.is_ready(*features)
        stage.beats(target=2, processes=2)
    await eventually(lambda: stage.told.counts == (2, 2), what="its two pool processes counted")


async def asked(stage: Stage) -> dict[str, Any]:
    """The question that the agent was asked."""
    found = await eventually(lambda: [each for each in stage.asked if each["do"] != "hello"], what="a question")
    return found[0]


async def refused(stage: Stage) -> ScaleRefused:
    """The driver's word that it cannot be done."""
    found = await eventually(
        lambda: [event for event in stage.told.events if isinstance(event, ScaleRefused)], what="a refusal"
    )
    return found[0]


@pytest.mark.parametrize(("workers", "do", "number"), [(5, "grow", 3), (1, "shrink", 1)])
async def test_the_agent_is_asked_once_for_the_difference(stage: Stage, workers: int, do: str, number: int) -> None:
    await runs(stage, "heartbeat", "pool")
    stage.driver.scale(ID, workers)
    question = await asked(stage)
    assert (question["do"], question["n"]) == (do, number)
    stage.says(reply=question["ask"], ok=True, data={"processes": workers})
    await throughout(lambda: len(stage.asked) == 1, 0.2)
    assert not [event for event in stage.told.events if isinstance(event, ScaleRefused)]


async def test_a_size_that_it_has_already_is_told_anew(stage: Stage) -> None:
    await runs(stage, "heartbeat", "pool")
    stage.told.events.clear()
    stage.driver.scale(ID, 2)
    await eventually(lambda: stage.told.events == [WorkersReported(ID, 2, 2)], what="the count")
    assert stage.asked == []


async def test_a_pool_process_that_is_gone_already_is_not_missed_twice(stage: Stage) -> None:
    """What counts is how many the program itself wants: it replaces a dead one by itself."""
    await runs(stage, "heartbeat", "pool")
    stage.beats(target=4, processes=2)
    stage.driver.scale(ID, 5)
    assert (await asked(stage))["n"] == 1


@pytest.mark.parametrize(
    ("features", "reply", "why"),
    [
        ((), None, "its agent cannot do it"),
        (("pool",), {"ok": False, "error": "no pool"}, "no pool"),
        (("pool",), {"ok": True, "data": {"processes": 4}}, "its agent brought it to 4 instead"),
        (("pool",), {"ok": True, "data": {"processes": "x" * 99}}, f"its agent brought it to {'x' * 20} instead"),
    ],
)
async def test_what_cannot_be_is_said(
    stage: Stage, features: tuple[str, ...], reply: dict[str, Any] | None, why: str
) -> None:
    await runs(stage, "heartbeat", *features)
    stage.driver.scale(ID, 5)
    if reply is not None:
        stage.says(reply=(await asked(stage))["ask"], **reply)
    assert await refused(stage) == ScaleRefused(ID, 5, why)


@pytest.mark.parametrize("why", ["no agent", "cut off"])
async def test_without_an_agent_it_cannot_be(stage: Stage, why: str) -> None:
    await runs(stage, agent=why != "no agent")
    if why == "cut off":
        stage.driver.cut_off(ID)
    stage.driver.scale(ID, 5)
    assert (await refused(stage)).reason == "no agent that could do it"


@pytest.mark.parametrize("spoke", [True, False])
async def test_an_agent_that_does_not_answer_cannot_do_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, spoke: bool
) -> None:
    monkeypatch.setattr(celery, "ANSWER_SECONDS", 0.3)
    await runs(stage, *(("pool",) if spoke else ()), adopted=True)
    stage.driver.scale(ID, 5)
    assert (await refused(stage)).reason == "its agent does not answer"
    assert len(pool_processes(stage.pid)) == 2


async def test_an_adopted_one_is_asked_once_its_agent_has_spoken(stage: Stage) -> None:
    await runs(stage, adopted=True)
    stage.driver.scale(ID, 3)
    await throughout(lambda: [each["do"] for each in stage.asked] == ["hello"], 0.1)
    stage.is_ready("pool")
    assert (await asked(stage))["do"] == "grow"


async def test_another_size_is_asked_for_anew_and_the_old_answer_is_dropped(stage: Stage) -> None:
    await runs(stage, "heartbeat", "pool")
    stage.driver.scale(ID, 5)
    first = await asked(stage)
    stage.driver.scale(ID, 4)
    await eventually(lambda: len(stage.asked) == 2, what="the second question")
    stage.says(reply=first["ask"], ok=False, error="too late")
    await throughout(lambda: not [event for event in stage.told.events if isinstance(event, ScaleRefused)], 0.1)
