from __future__ import annotations

from typing import get_args

import pytest

from supervisor_d.core import actions as act
from supervisor_d.core import events as ev
from supervisor_d.core.performed import performed
from tests.core.transcript import policy

ID = "web.0@g1.1"
PAIRS: list[tuple[act.Action, ev.Event | None]] = [
    (
        act.Spawn(ID, "web", 0, 1, 2, policy(), 3, "why", "canary"),
        ev.SpawnBegan(ID, "web", 0, 1, 2, policy(), 3, "why", "canary"),
    ),
    (act.Signal(ID, "TERM", 0, 9.0, "why", expected=True), ev.StopSignalled(ID, 0, 9.0, "why", expected=True)),
    (act.DriverStep(ID, "DRAIN", 0, 9.0, "why", expected=True), ev.StopSignalled(ID, 0, 9.0, "why", expected=True)),
    (act.Kill(ID, "why", expected=False), ev.KillSent(ID, "why", expected=False)),
    (act.Scale(ID, 4, "why"), ev.ScaleAsked(ID, 4, "why")),
    (act.TakeStacks(ID, "why"), ev.StacksAsked(ID)),
    (act.Restore(ID, "why"), ev.RestoreAsked(ID)),
    (act.Forget(ID, "why"), ev.Forgotten(ID)),
    (act.RecordSuccess("migrate", 1, "why"), ev.SuccessRecorded("migrate", 1)),
    (act.DropPool("web", "why"), ev.PoolRemoved("web")),
    (act.PassGate("web", 2, "canary", "why"), None),
    (act.ConcludeRollout("web", 2, "succeeded", "why"), None),
]


@pytest.mark.parametrize(("action", "event"), PAIRS, ids=lambda value: type(value).__name__)
def test_each_action_yields_the_fact_that_keeps_the_plan_from_asking_again(
    action: act.Action, event: ev.Event | None
) -> None:
    assert performed(action) == event


def test_no_action_is_missing() -> None:
    assert {type(action) for action, _ in PAIRS} == set(get_args(act.Action))
