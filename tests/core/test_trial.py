from __future__ import annotations

from dataclasses import replace

import pytest

from supervisor_d.core.events import (
    Adopted,
    BecameReady,
    MainExited,
    NotReadyYet,
    ShimLost,
    Spawned,
    SpawnFailed,
    TreeEmptied,
)
from supervisor_d.core.observed import Observed
from supervisor_d.core.process import Exit
from supervisor_d.core.spec import RolloutPolicy
from tests.core.transcript import GUNICORN, Transcript, policy, pool

PREFLIGHT, CANARY, NEXT = "web.0@g2.2", "web.0@g2.3", "web.0@g2.4"


@pytest.fixture
def t() -> Transcript:
    """`web` serves as g1, and a g2 is to be tried."""
    t = Transcript(pool("web", (4,), traits=GUNICORN))
    t.does("spawn web.0@g1.1")
    t.starts("web.0@g1.1")
    t.does()
    t.tries("web", 2, "preflight", "canary")
    return t


def empties(t: Transcript, process_id: str) -> None:
    t.hears(TreeEmptied(process_id, proven=True, killed=0))


class TestBothGates:
    def test_are_passed_in_order_and_then_the_generation_serves(self, t: Transcript) -> None:
        t.does(f"spawn {PREFLIGHT} as preflight")
        t.hears(Spawned(PREFLIGHT, 200), MainExited(PREFLIGHT, Exit(code=0)))
        t.does()
        empties(t, PREFLIGHT)
        t.does("web g2 passed preflight", f"spawn {CANARY} as canary", f"forget {PREFLIGHT}")
        assert t.process(CANARY).workers == 1
        t.starts(CANARY)
        t.does("web g2 passed canary", f"spawn {NEXT}", f"TERM {CANARY}")
        t.starts(NEXT)
        t.ends(CANARY, Exit(code=0))
        t.does("TERM web.0@g1.1", f"forget {CANARY}", "web g2 succeeded")

    def test_the_canary_must_stay_ready(self, t: Transcript) -> None:
        t.tries("web", 2, "canary", min_ready_seconds=5.0)
        t.does("spawn web.0@g2.2 as canary")
        t.starts("web.0@g2.2")
        t.does()
        assert t.sleeps_until == 5.0
        t.at(5.0)
        t.does("web g2 passed canary", "spawn web.0@g2.3", "TERM web.0@g2.2")

    def test_a_canary_that_is_told_to_end_is_no_process_of_the_new_generation(self, t: Transcript) -> None:
        t.tries("web", 2, "canary")
        t.does("spawn web.0@g2.2 as canary")
        t.starts("web.0@g2.2")
        t.does("web g2 passed canary", "spawn web.0@g2.3", "TERM web.0@g2.2")
        t.at(1.0)
        t.does()
        assert t.desired.pools["web"].rollout is not None


class TestFailure:
    @pytest.mark.parametrize(
        ("ended", "text"), [(Exit(code=3), "preflight exited with code 3"), (Exit(signal=9), "preflight killed by")]
    )
    def test_an_end_is_judged_once_its_last_words_are_written(self, t: Transcript, ended: Exit, text: str) -> None:
        t.does(f"spawn {PREFLIGHT} as preflight")
        t.hears(Spawned(PREFLIGHT, 200), MainExited(PREFLIGHT, ended))
        t.does()
        empties(t, PREFLIGHT)
        t.does("web g2 rolled-back", f"forget {PREFLIGHT}")
        assert t.reasons[0].startswith(text)

    def test_a_canary_that_exits_well_has_failed_all_the_same(self, t: Transcript) -> None:
        t.tries("web", 2, "canary")
        t.does("spawn web.0@g2.2 as canary")
        t.starts("web.0@g2.2")
        t.tries("web", 2, "canary", min_ready_seconds=5.0)
        t.ends("web.0@g2.2", Exit(code=0))
        t.does("web g2 rolled-back", "forget web.0@g2.2")
        assert t.reasons[0] == "canary exited with code 0"

    def test_a_failed_start(self, t: Transcript) -> None:
        t.does(f"spawn {PREFLIGHT} as preflight")
        t.hears(SpawnFailed(PREFLIGHT, "cannot fork"))
        t.does("web g2 rolled-back", f"forget {PREFLIGHT}")
        assert t.reasons[0] == "preflight cannot fork"

    def test_a_missed_deadline_says_what_was_asked_in_vain(self, t: Transcript) -> None:
        t.tries("web", 2, "canary")
        t.does("spawn web.0@g2.2 as canary")
        t.hears(Spawned("web.0@g2.2", 200), NotReadyYet("web.0@g2.2", "http /healthz answered 500"))
        t.at(60.0)
        t.does("TERM web.0@g2.2", "web g2 rolled-back")
        assert t.reasons[1] == "canary: not ready within 60 s: http /healthz answered 500"

    def test_the_old_generation_never_notices(self, t: Transcript) -> None:
        t.does(f"spawn {PREFLIGHT} as preflight")
        t.ends("web.0@g1.1")
        t.does("spawn web.0@g1.3", "forget web.0@g1.1")
        t.hears(Spawned(PREFLIGHT, 200), MainExited(PREFLIGHT, Exit(code=1)))
        empties(t, PREFLIGHT)
        t.does("web g2 rolled-back", f"forget {PREFLIGHT}")
        facts = t.observed.pool("web")
        assert (0, 2) not in facts.slots
        assert facts.exits_total == {"error": 1}

    def test_what_came_first_in_the_deploy_was_rolled_back(self, t: Transcript) -> None:
        t.tries("web", 2, "canary", doomed="worker was rolled back")
        t.does("web g2 rolled-back")
        assert t.reasons == ["worker was rolled back"]


class TestOtherEnds:
    def test_waits_for_its_turn(self, t: Transcript) -> None:
        t.tries("web", 2, "canary", waits_for=("worker",))
        t.does()
        t.tries("web", 2, "canary")
        t.does("spawn web.0@g2.2 as canary")

    def test_a_start_that_a_daemons_death_prevented_counts_as_none(self, t: Transcript) -> None:
        t.does(f"spawn {PREFLIGHT} as preflight")
        begun, serves = t.process(PREFLIGHT), t.process("web.0@g1.1")
        t.observed = Observed(next_serial=t.observed.next_serial)
        t.hears(Adopted(serves, 1, 0), Adopted(replace(begun, adopted=True), 2, 0))
        t.hears(SpawnFailed(PREFLIGHT, "its daemon died"))
        t.does(f"spawn {CANARY} as preflight", f"forget {PREFLIGHT}")

    def test_another_generation_ends_the_trial_of_this_one(self, t: Transcript) -> None:
        t.does(f"spawn {PREFLIGHT} as preflight")
        t.hears(Spawned(PREFLIGHT, 200))
        t.tries("web", 3, "canary")
        t.does(f"TERM {PREFLIGHT}", "spawn web.0@g3.3 as canary")
        assert t.reasons[0] == "its trial as preflight is over"

    def test_a_canary_without_its_shim_is_replaced(self, t: Transcript) -> None:
        t.tries("web", 2, "canary")
        t.does("spawn web.0@g2.2 as canary")
        t.hears(Spawned("web.0@g2.2", 200), ShimLost("web.0@g2.2"))
        t.does("TERM web.0@g2.2", "spawn web.0@g2.3 as canary")

    def test_a_stop_of_the_pool_stops_it_too(self, t: Transcript) -> None:
        t.does(f"spawn {PREFLIGHT} as preflight")
        t.hears(Spawned(PREFLIGHT, 200))
        t.wants("web", running=False, stop_reason="asked")
        t.does("TERM web.0@g1.1", f"TERM {PREFLIGHT}")

    def test_starts_at_once_hold_for_it_and_serving_comes_first(self) -> None:
        t = Transcript(pool("web", (4,), traits=GUNICORN), starts_at_once=1)
        t.tries("web", 2, "canary")
        t.does("spawn web.0@g1.1")
        t.hears(Spawned("web.0@g1.1", 100), BecameReady("web.0@g1.1"))
        t.does("spawn web.0@g2.2 as canary")

    def test_nothing_is_tried_before_the_dependencies_are_ready(self) -> None:
        t = Transcript(pool("web", after=("db",)), pool("db", policy=policy()))
        t.tries("web", 2, "canary")
        t.does("spawn db.0@g1.1")

    def test_its_patience_is_that_of_the_new_policy(self, t: Transcript) -> None:
        t.wants("web", rollout_policy=RolloutPolicy(min_ready_seconds=100.0))
        t.tries("web", 2, "canary", min_ready_seconds=2.0)
        t.does("spawn web.0@g2.2 as canary")
        t.starts("web.0@g2.2")
        assert t.sleeps_until == 2.0
