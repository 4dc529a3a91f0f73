from __future__ import annotations

import math
from typing import Any

import pytest

from supervisor_d.core.desired import DesiredPool, Rollout
from supervisor_d.core.observed import PoolFacts, SlotFacts
from supervisor_d.core.process import Exit, Process, State, StopProgress
from supervisor_d.core.rollout import Failure, complete, failure, finished_slots, settled, unproven
from supervisor_d.core.spec import RolloutPolicy
from tests.core.transcript import ONESHOT, policy, pool

FINISHED = SlotFacts(finished=True, last_exit=Exit(code=0))


def process(slot: int, generation: int, state: State = State.READY, **others: Any) -> Process:
    values: dict[str, Any] = {"ready_at": 0.1 if state is State.READY else None, **others}
    name = f"web.{slot}@g{generation}.1"
    return Process(name, "web", slot, generation, 1, policy(), "", state, since=0.0, began_at=0.0, **values)


def facts(*processes: Process, slots: dict[tuple[int, int], SlotFacts] | None = None) -> PoolFacts:
    return PoolFacts({p.id: p for p in processes}, slots or {})


@pytest.fixture
def rolling() -> DesiredPool:
    return pool(
        "web", (1, 1), generation=2, rollout=Rollout(1, 2, "test", 0.0), rollout_policy=RolloutPolicy(1, 0, 0.2)
    )


def test_settled_from_exactly_the_planned_instant() -> None:
    new = process(0, 2)
    due = 0.1 + 0.2
    assert settled(new, 0.2, due)
    assert not settled(new, 0.2, math.nextafter(due, 0))
    assert not settled(process(0, 2, shim_lost=True), 0.2, due)
    assert not settled(process(0, 2, State.STARTING), 0.0, due)


class TestFailure:
    def test_none_without_a_rollout(self) -> None:
        assert failure(pool("web"), facts(slots={(0, 1): SlotFacts(attempt=1)})) is None

    @pytest.mark.parametrize(
        "history",
        [
            SlotFacts(attempt=1, last_reason="crashed"),
            SlotFacts(failed="too many", last_reason="crashed"),
            SlotFacts(finished=True, last_exit=Exit(code=1), last_reason="crashed"),
        ],
    )
    def test_any_unexpected_end_of_the_new_generation(self, rolling: DesiredPool, history: SlotFacts) -> None:
        assert failure(rolling, facts(slots={(1, 2): history})) == Failure(1, "web.1@g2 crashed")
        assert failure(rolling, facts(slots={(1, 1): history})) is None

    def test_a_fault_before_its_end(self, rolling: DesiredPool) -> None:
        stop = StopProgress(0, 9.0, "not ready within 5 s", expected=False)
        late = process(0, 2, State.STOPPING, stop=stop)
        assert failure(rolling, facts(process(0, 1), late)) == Failure(0, "web.0@g2 not ready within 5 s")
        assert failure(rolling, facts(process(0, 1, State.STOPPING, stop=stop), process(0, 2))) is None

    def test_an_ailing_process(self, rolling: DesiredPool) -> None:
        ill = process(0, 2, ailing="its workers keep crashing")
        assert failure(rolling, facts(process(0, 1), ill)) == Failure(0, "web.0@g2 its workers keep crashing")
        assert failure(rolling, facts(process(0, 1, ailing="x"), process(0, 2))) is None
        assert not settled(ill, 0.0, 1.0)

    def test_having_done_all_there_was_to_do_is_none(self, rolling: DesiredPool) -> None:
        assert failure(rolling, facts(slots={(0, 2): FINISHED})) is None


class TestComplete:
    def test_all_slots_settled_and_no_other_generation_live(self, rolling: DesiredPool) -> None:
        new = (process(0, 2), process(1, 2))
        assert complete(rolling, facts(*new, process(0, 1, State.STOPPING)), 1.0)
        assert not complete(rolling, facts(*new), 0.2)
        assert not complete(rolling, facts(*new, process(0, 1)), 1.0)
        assert not complete(rolling, facts(process(0, 2)), 1.0)

    def test_a_oneshot_is_over_by_its_success_alone(self) -> None:
        once = pool("job", generation=2, traits=ONESHOT, rollout=Rollout(1, 2, "test", 0.0))
        assert not complete(once, facts(process(0, 2)), 1.0)

    def test_a_finished_slot_has_done_its_part(self, rolling: DesiredPool) -> None:
        known = facts(process(0, 2), slots={(1, 2): FINISHED, (0, 1): FINISHED})
        assert finished_slots(rolling, known) == {1}
        assert complete(rolling, known, 1.0)


class TestUnproven:
    def test_until_one_has_settled_or_finished(self, rolling: DesiredPool) -> None:
        assert unproven(rolling, facts(process(0, 2)), 0.2)
        assert not unproven(rolling, facts(process(0, 2)), 1.0)
        assert not unproven(rolling, facts(slots={(0, 2): FINISHED}), 0.2)
        assert not unproven(pool("web"), facts(), 0.2), "there is nothing to prove without a rollout"
