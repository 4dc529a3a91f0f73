from __future__ import annotations

import pytest

from supervisor_d.core.adoption import RecordedFacts, adopted_process, serial_of
from supervisor_d.core.process import Process, State
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
