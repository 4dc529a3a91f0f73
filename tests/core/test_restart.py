from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor_d.core.observed import SlotFacts
from supervisor_d.core.process import Exit, Process, State, StopProgress
from supervisor_d.core.restart import after_unexpected_end, backoff_seconds, jitter_share, wants_restart, was_stable
from supervisor_d.core.spec import RestartPolicy
from tests.core.transcript import ONESHOT, policy

EXACT = RestartPolicy(jitter=0.0)
OK, ERROR = Exit(code=0), Exit(code=1)


def ended(
    restart: RestartPolicy, how: Exit = ERROR, *, facts: SlotFacts | None = None, now: float = 100.0, **others: object
) -> SlotFacts:
    made = Process("web.0@g1.1", "web", 0, 1, 1, policy(restart=restart), "test", State.READY, since=0.0, began_at=0.0)
    made = replace(made, **others)  # type: ignore[arg-type]
    return after_unexpected_end(made, how, "it ended", facts or SlotFacts(), now)


class TestBackoff:
    def test_worked_example(self) -> None:
        delays = [backoff_seconds(EXACT, "web", 0, attempt) for attempt in range(1, 12)]
        assert delays == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]

    @given(attempt=st.integers(2, 10_000), slot=st.integers(0, 1000))
    def test_jitter_stays_within_its_share_and_replays(self, attempt: int, slot: int) -> None:
        jittered = replace(EXACT, jitter=0.1)
        delay = backoff_seconds(jittered, "web", slot, attempt)
        exact = backoff_seconds(EXACT, "web", slot, attempt)
        assert 0.9 * exact <= delay <= 1.1 * exact
        assert delay == backoff_seconds(jittered, "web", slot, attempt)

    def test_slots_do_not_restart_in_step(self) -> None:
        shares = {jitter_share("web", slot, 2) for slot in range(100)}
        assert len(shares) == 100
        assert min(shares) < -0.8
        assert max(shares) > 0.8


class TestPolicy:
    @pytest.mark.parametrize(
        ("when", "how", "at_fault", "wanted"),
        [
            ("always", OK, False, True),
            ("always", ERROR, False, True),
            ("on-failure", OK, False, False),
            ("on-failure", ERROR, False, True),
            ("on-failure", Exit(signal=9), False, True),
            ("on-failure", Exit(), False, True),
            ("on-failure", OK, True, True),
            ("never", ERROR, False, False),
            ("never", OK, True, False),
        ],
    )
    def test_when(self, when: str, how: Exit, at_fault: bool, wanted: bool) -> None:
        restart = replace(EXACT, when=when)  # type: ignore[arg-type]
        assert wants_restart(restart, how, at_fault=at_fault) is wanted

    def test_what_is_not_wanted_again_is_finished(self) -> None:
        never = replace(EXACT, when="never")
        assert ended(never, OK).ended_well
        assert ended(never, ERROR).ended_badly
        assert not ended(never, ERROR).failed

    def test_a_fault_is_no_finish(self) -> None:
        never = replace(EXACT, when="never")
        facts = ended(never, OK, stop=StopProgress(0, None, "not ready within 5 s", expected=False))
        assert (facts.finished, facts.failed) == (False, "it ended")

    def test_a_oneshot_that_succeeds_is_done_whatever_its_policy(self) -> None:
        always = policy(ONESHOT, restart=EXACT)
        assert ended(EXACT, OK, policy=always).ended_well
        assert ended(EXACT, ERROR, policy=always).attempt == 1
        fault = StopProgress(0, None, "not ready within 5 s", expected=False)
        assert not ended(EXACT, OK, policy=always, stop=fault).finished


class TestStability:
    @pytest.mark.parametrize(("ready_at", "stable"), [(None, False), (90.0, True), (90.1, False)])
    def test_ready_for_long_enough(self, ready_at: float | None, stable: bool) -> None:
        made = Process("web.0@g1.1", "web", 0, 1, 1, policy(), "", State.READY, since=0, began_at=0, ready_at=ready_at)
        assert was_stable(EXACT, made, 100.0) is stable

    def test_a_stable_time_forgets_the_past(self) -> None:
        past = SlotFacts(attempt=7)
        assert ended(EXACT, facts=past).attempt == 8
        after = ended(EXACT, facts=past, ready_at=0.0)
        assert (after.attempt, after.not_before) == (1, 100.0)


class TestIntensity:
    def test_one_more_than_the_limit_within_the_period_gives_up(self) -> None:
        limited = replace(EXACT, intensity_restarts=3, intensity_period_seconds=10.0)
        facts = SlotFacts()
        for now in (1.0, 2.0, 3.0):
            facts = ended(limited, facts=facts, now=now)
            assert not facts.failed
        facts = ended(limited, facts=facts, now=4.0)
        assert facts.failed == "more than 3 restarts within 10 s; the last: it ended"

    def test_the_window_slides(self) -> None:
        limited = replace(EXACT, intensity_restarts=1, intensity_period_seconds=10.0)
        facts = ended(limited, now=0.0)
        facts = ended(limited, facts=facts, now=10.0)
        assert not facts.failed
        assert facts.restarts == (10.0,)

    def test_the_history_is_bounded(self) -> None:
        facts = SlotFacts()
        for _ in range(50):
            facts = ended(EXACT, facts=facts)
        assert len(facts.restarts) == EXACT.intensity_restarts + 1
