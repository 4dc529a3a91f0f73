"""The watchers watched: each of these bugs, put into the core, must be found by the state machine.

A bug that is not found here means that an invariant has become blind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from supervisor_d.core import actions as act
from supervisor_d.core import capacity, rollout
from supervisor_d.core import intent as intents
from supervisor_d.core import performed as performing
from supervisor_d.core import plan as planning
from supervisor_d.core.process import Process, StopProgress
from supervisor_d.runtime import adopting
from tests.sim import test_stories, world
from tests.sim.test_machine import WorldMachine

Patch = Callable[[pytest.MonkeyPatch], None]
PLAN, CAPACITY = planning._PoolPlan, capacity.Capacity


def _always(value: Any) -> Callable[[Any], Any]:
    """In place of any function: that value."""
    return lambda _: lambda *_: value


def _on(owner: Any, name: str, wrap: Callable[[Any], Any]) -> Patch:
    return lambda patch: patch.setattr(owner, name, wrap(getattr(owner, name)))


def _deadline_moved_by(seconds: float) -> Patch:
    def wrap(original: Any) -> Any:
        def moved(self: Any, process: Process, stop: StopProgress) -> None:
            at = None if stop.deadline is None else stop.deadline + seconds
            original(self, process, replace(stop, deadline=at))

        return moved

    return _on(PLAN, "_next_step", wrap)


def _settled_at_once(original: Any, process: Process, _: float, now: float) -> Any:
    return original(process, 0.0, now)


def _min_ready_is_dropped(patch: pytest.MonkeyPatch) -> None:
    dropped = partial(_settled_at_once, rollout.settled)
    patch.setattr(rollout, "settled", dropped)
    patch.setattr(capacity, "settled", dropped)


def _a_kill_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    original = performing.performed
    patch.setattr(world, "performed", lambda action: None if isinstance(action, act.Kill) else original(action))


def _a_rollback_goes_nowhere(patch: pytest.MonkeyPatch) -> None:
    original = intents.conclude
    patch.setattr(intents, "conclude", lambda i, a, now: original(i, replace(a, verdict="succeeded"), now))


MUTANTS: dict[str, Patch] = {
    "min_ready is dropped": _min_ready_is_dropped,
    "exclusive is ignored": lambda patch: patch.setattr(CAPACITY, "stops_first", False),
    "steps come early": _deadline_moved_by(-0.1),
    "steps come late": _deadline_moved_by(0.1),
    "backoff is forgotten": _on(
        PLAN, "_slot", lambda original: lambda self, slot: replace(original(self, slot), not_before=0.0)
    ),
    "a slot never gives up": _on(
        PLAN, "_slot", lambda original: lambda self, slot: replace(original(self, slot), failed="")
    ),
    "one more may be missed": _on(CAPACITY, "_may_miss", lambda original: lambda self: original(self) + 1),
    "there is always room": _on(PLAN, "_room", _always(value=True)),
    "starts do not wait": lambda patch: patch.setattr(planning, "waits_for", lambda *_: ()),
    "stops do not wait": lambda patch: patch.setattr(planning, "held_by", lambda *_: ()),
    "nobody wakes the daemon": lambda patch: patch.setattr(planning._Draft, "wake", lambda *_: None),
    "a kill is asked for again and again": _a_kill_is_forgotten,
    "a rollback goes nowhere": _a_rollback_goes_nowhere,
    "what is outdated stays": _on(PLAN, "_retire_outdated", _always(None)),
    "a size is never set": _on(PLAN, "_scale_in_place", _always(None)),
}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", MUTANTS)
def test_a_bug_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    MUTANTS[name](monkeypatch)
    thorough = settings(
        max_examples=6000,
        stateful_step_count=15,
        derandomize=True,
        database=None,
        deadline=None,
        print_blob=False,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    with pytest.raises((AssertionError, ExceptionGroup)):
        run_state_machine_as_test(WorldMachine, settings=thorough)


RARE: dict[str, tuple[Patch, Callable[[], None]]] = {
    "a start may take for ever": (
        _on(PLAN, "_start_deadline", _always(None)),
        partial(test_stories.test_a_daemons_death_promotes_no_generation_that_hangs, age=2.0, canary=False),
    ),
    "a trial is adopted as ready": (
        lambda patch: patch.setattr(adopting, "on_trial", lambda *_: False),
        partial(test_stories.test_a_daemons_death_promotes_no_generation_that_hangs, age=5.5, canary=False),
    ),
    "what was adopted is not waited for": (
        _on(CAPACITY, "_may_answer", _always(value=False)),
        test_stories.test_what_a_new_daemon_found_starting_is_not_replaced_before_anything_serves,
    ),
}


@pytest.mark.parametrize("name", RARE)
def test_a_bug_that_chance_finds_too_seldom_is_found_by_its_story(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    patch, story = RARE[name]
    story()
    patch(monkeypatch)
    with pytest.raises(AssertionError):
        story()
