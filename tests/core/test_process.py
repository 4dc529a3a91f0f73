from __future__ import annotations

import pytest

from supervisor_d.core.process import Exit, Process, State, StopProgress, process_id
from tests.core.transcript import policy


def made(state: State = State.READY, stop: StopProgress | None = None) -> Process:
    return Process("web.0@g3.17", "web", 0, 3, 1, policy(), "test", state, since=0.0, began_at=0.0, stop=stop)


def test_an_id_names_pool_slot_generation_and_serial() -> None:
    assert process_id("web", 0, 3, 17) == "web.0@g3.17"


@pytest.mark.parametrize("state", State)
def test_live_until_it_is_asked_to_stop(state: State) -> None:
    assert made(state).live is (state in (State.STARTING, State.READY))
    assert made(state).ended is (state is State.EXITED)


def test_only_code_0_is_ok() -> None:
    assert Exit(code=0).ok
    assert not any(ended.ok for ended in (Exit(code=1), Exit(signal=15), Exit()))


def test_the_last_step_is_kill() -> None:
    steps = [made(State.STOPPING, StopProgress(step, None, "", expected=True)).kill_sent for step in range(3)]
    assert steps == [False, False, True]
    assert not made().kill_sent


def test_a_fault_is_a_stop_that_was_not_expected() -> None:
    assert made(stop=StopProgress(0, None, "not ready within 5 s", expected=False)).fault == "not ready within 5 s"
    assert made(stop=StopProgress(0, None, "asked", expected=True)).fault == ""
    assert made().fault == ""
