from __future__ import annotations

from dataclasses import replace

import pytest

from supervisor_d.core.adoption import Progress, RecordedFacts, adopted_process, serial_of
from supervisor_d.core.process import Process, State, StopProgress
from supervisor_d.core.spec import Traits
from tests.core.transcript import COMMAND, GUNICORN, policy

BEGAN_AT, TIMEOUT = 100.0, 60.0


def recorded(traits: Traits = COMMAND) -> RecordedFacts:
    spawned = Process(
        "web.0@g3.17", "web", 0, 3, 2, policy(traits), "web wants 2 workers", State.STARTING, BEGAN_AT, BEGAN_AT
    )
    return RecordedFacts.of(spawned, epoch=4)


def test_a_record_keeps_what_cannot_be_learnt_again() -> None:
    facts = recorded()
    assert (facts.id, facts.slot, facts.generation, facts.epoch, facts.began_at) == ("web.0@g3.17", 0, 3, 4, BEGAN_AT)
    assert serial_of(facts.id) == 17


@pytest.mark.parametrize(
    ("pid", "now", "on_trial", "state"),
    [
        (4711, BEGAN_AT + TIMEOUT, False, State.READY),
        (4711, BEGAN_AT + TIMEOUT - 0.1, False, State.STARTING),
        (4711, BEGAN_AT + TIMEOUT, True, State.STARTING),
        (None, BEGAN_AT + TIMEOUT, False, State.STARTING),
    ],
)
def test_ready_is_only_what_must_have_been(pid: int | None, now: float, on_trial: bool, state: State) -> None:
    process = adopted_process(recorded(), pid, now, on_trial=on_trial)
    assert (process.state, process.pid, process.adopted) == (state, pid, True)
    assert process.ready_at == (now if state is State.READY else None)
    assert (process.since, process.began_at) == (now, BEGAN_AT), "its start is old, its deadline is new"


def test_a_size_that_may_have_been_changed_in_place_is_not_known() -> None:
    assert adopted_process(recorded(), 4711, 200.0).workers == 2
    assert adopted_process(recorded(GUNICORN), 4711, 200.0).workers == 0


@pytest.mark.parametrize(("now", "on_trial", "workers"), [(110.0, False, 2), (200.0, True, 2), (200.0, False, 0)])
def test_what_was_never_ready_has_the_size_it_was_started_with(now: float, on_trial: bool, workers: int) -> None:
    """Nothing is resized before it is ready; what is taken for ready, for want of a note, may have been."""
    for progress in (None, Progress(), Progress(workers=0)):
        process = adopted_process(recorded(GUNICORN), 4711, now, on_trial=on_trial, progress=progress)
        assert (process.state is State.READY, process.workers) == (workers == 0, workers)


def test_a_change_of_size_under_way_is_not_known() -> None:
    process = adopted_process(recorded(GUNICORN), 4711, 110.0, progress=Progress(ready_at=101.0, workers=0))
    assert (process.state, process.workers) == (State.READY, 0)


def test_ready_on_record_is_ready_at_once_and_since_then() -> None:
    for on_trial in (False, True):
        process = adopted_process(recorded(), 4711, BEGAN_AT + 2, on_trial=on_trial, progress=Progress(ready_at=101.5))
        assert (process.state, process.ready_at) == (State.READY, 101.5)


def test_a_size_on_record_counts() -> None:
    process = adopted_process(recorded(GUNICORN), 4711, 200.0, progress=Progress(workers=5))
    assert process.workers == 5
    assert Progress.of(process) == Progress(process.ready_at, None, 5)
    changing = Process(
        "web.0@g3.17", "web", 0, 3, 2, policy(GUNICORN), "", State.READY, 0.0, 0.0, ready_at=1.0, scale_asked=4
    )
    assert Progress.of(changing) == Progress(1.0, None, 0)


@pytest.mark.parametrize("ready_at", [None, 101.0])
def test_a_stop_goes_on_with_its_step_and_deadline(ready_at: float | None) -> None:
    stop = StopProgress(0, 130.0, "asked", expected=True)
    process = adopted_process(recorded(), 4711, 110.0, progress=Progress(ready_at, stop))
    assert (process.state, process.stop, process.ready_at) == (State.STOPPING, stop, ready_at)


def test_a_kill_is_sent_again() -> None:
    steps = len(policy(COMMAND).stop)
    assert steps > 1
    killed = StopProgress(steps - 1, None, "asked", expected=False)
    process = adopted_process(recorded(), 4711, 110.0, progress=Progress(101.0, killed))
    assert process.stop == StopProgress(steps - 2, 110.0, "asked", expected=False)
    assert not process.kill_sent


def test_a_list_of_kill_alone_is_planned_again() -> None:
    only = replace(recorded(), policy=replace(policy(COMMAND), stop=policy(COMMAND).stop[-1:]))
    process = adopted_process(only, 4711, 110.0, progress=Progress(101.0, StopProgress(0, None, "asked", True)))
    assert (process.state, process.stop) == (State.READY, None)
