from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from supervisor_d.core.adoption import RecordedFacts, adopted_process
from supervisor_d.core.events import (
    Adopted,
    Ailing,
    BecameReady,
    FailureCleared,
    FoundStuck,
    MainExited,
    NotReadyYet,
    Restored,
    RestoreFailed,
    ScaleRefused,
    ShimLost,
    Spawned,
    SpawnFailed,
    StepDone,
    SuccessRecorded,
    TasksReported,
    TreeEmptied,
    WorkersReported,
)
from supervisor_d.core.plan import SCALE_RETRY_SECONDS
from supervisor_d.core.process import Exit, TasksLeft
from supervisor_d.core.spec import RestartPolicy, RolloutPolicy, StopStep, Traits
from tests.core.transcript import BEAT, CELERY, GUNICORN, ONESHOT, Transcript, policy, pool

WEB = "web.0@g1.1"


def serving(*pools: str) -> Transcript:
    """One-slot pools of g1 that are ready."""
    t = Transcript(*(pool(name) for name in pools))
    ids = [f"{name}.0@g1.{serial}" for serial, name in enumerate(pools, 1)]
    t.does(*(f"spawn {process_id}" for process_id in ids))
    t.starts(*ids)
    t.does()
    return t


def ready_slots(count: int, **others: Any) -> Transcript:
    """A pool with that many ready processes of g1."""
    t = Transcript(pool("web", (1,) * count, **others))
    ids = [f"web.{slot}@g1.{slot + 1}" for slot in range(count)]
    t.does(*(f"spawn {process_id}" for process_id in ids))
    t.starts(*ids)
    t.does()
    return t


class TestDocstring:
    def test_worked_example(self) -> None:
        t = serving("web")
        t.rolls("web", to=2)
        t.does("spawn web.0@g2.2")
        assert t.sleeps_until == 60.0
        t.starts("web.0@g2.2")
        t.does("TERM web.0@g1.1", "web g2 succeeded")
        assert t.sleeps_until == 30.0
        t.ends(WEB, Exit(code=0))
        t.does("forget web.0@g1.1")
        assert t.sleeps_until is None


class TestDeadlines:
    def test_each_step_at_exactly_its_deadline(self) -> None:
        t = serving("web")
        t.at(100.0)
        t.wants("web", running=False, stop_reason="asked")
        t.does("TERM web.0@g1.1")
        assert t.sleeps_until == 130.0
        t.at(math.nextafter(130.0, 0))
        t.does()
        t.at(130.0)
        t.does("QUIT web.0@g1.1")
        assert t.reasons == ["asked; still there 30 s after TERM"]
        t.at(math.nextafter(140.0, 0))
        t.does()
        assert t.sleeps_until == 140.0
        t.at(140.0)
        t.does("kill web.0@g1.1")
        assert t.sleeps_until is None

    def test_a_list_of_kill_alone_kills_at_once(self) -> None:
        t = Transcript(pool("web", policy=policy(stop=(StopStep("KILL"),))))
        t.does("spawn web.0@g1.1")
        t.starts(WEB)
        t.wants("web", running=False)
        t.does("kill web.0@g1.1")

    def test_what_the_main_process_leaves_is_killed_at_the_deadline(self) -> None:
        t = serving("web")
        t.wants("web", running=False)
        t.does("TERM web.0@g1.1")
        t.hears(MainExited(WEB, Exit(code=0)))
        t.at(29.0)
        t.does()
        t.at(30.0)
        t.does("kill web.0@g1.1")
        t.hears(TreeEmptied(WEB, proven=True, killed=1))
        t.does("forget web.0@g1.1")

    def test_nothing_runs_in_a_process_without_a_pid(self) -> None:
        t = Transcript(pool("web"))
        t.does("spawn web.0@g1.1")
        t.wants("web", running=False)
        t.does("kill web.0@g1.1")
        t.hears(SpawnFailed(WEB, "killed before it was started"))
        t.does("forget web.0@g1.1")

    def test_a_third_signal_jumps_every_list_to_kill(self) -> None:
        t = serving("db", "web")
        t.wants("web", after=("db",))
        t.wants_all(running=False, stop_reason="SIGTERM")
        t.does("TERM web.0@g1.2")
        t.kill_now()
        t.does("kill db.0@g1.1", "kill web.0@g1.2")
        t.does()

    def test_kill_now_while_pools_run_is_total(self) -> None:
        t = Transcript(pool("web", (2,), traits=GUNICORN))
        t.does("spawn web.0@g1.1")
        t.starts(WEB)
        t.kill_now()
        t.wants("web", sizes=(4,))
        t.does("kill web.0@g1.1")

    def test_a_start_that_takes_too_long_is_a_fault(self) -> None:
        t = Transcript(pool("web", policy=policy(start_timeout_seconds=5.0)))
        t.does("spawn web.0@g1.1")
        t.hears(Spawned(WEB, 100))
        assert t.sleeps_until == 5.0
        t.at(5.0)
        t.does("TERM web.0@g1.1")
        assert t.process(WEB).fault == "not ready within 5 s"
        t.at(6.0)
        t.ends(WEB, Exit(code=0))
        t.does("spawn web.0@g1.2", "forget web.0@g1.1")
        assert t.reasons[0] == "restart 1: not ready within 5 s"

    def test_the_fault_tells_how_the_probes_were_answered(self) -> None:
        t = Transcript(pool("web", policy=policy(start_timeout_seconds=5.0)))
        t.does("spawn web.0@g1.1")
        t.hears(Spawned(WEB, 100), NotReadyYet(WEB, "http /healthz answered 503"))
        t.at(5.0)
        t.does("TERM web.0@g1.1")
        assert t.process(WEB).fault == "not ready within 5 s: http /healthz answered 503"

    def test_a_late_start_that_is_outdated_too_is_stopped_once(self) -> None:
        t = Transcript(pool("web"))
        t.does("spawn web.0@g1.1")
        t.hears(Spawned(WEB, 100))
        t.at(60.0)
        t.wants("web", sizes=())
        t.does("TERM web.0@g1.1")

    def test_a_tree_without_main_process_and_shim_has_no_keeper(self) -> None:
        t = serving("web")
        t.hears(MainExited(WEB, Exit(code=1)))
        t.does()
        t.hears(ShimLost(WEB))
        t.does("kill web.0@g1.1")


LADDER = (
    StopStep("DRAIN", 2.0), StopStep("TERM", 30.0, 600.0), StopStep("QUIT", 4.0), StopStep("KILL-WORKERS", 3.0),
    StopStep("KILL"),
)  # fmt: skip


def celery(name: str = "tasks", **others: Any) -> Transcript:
    t = Transcript(pool(name, policy=policy(CELERY, stop=LADDER), **others))
    t.does(f"spawn {name}.0@g1.1")
    t.starts(f"{name}.0@g1.1")
    return t


class TestDriverSteps:
    def test_the_whole_ladder_takes_the_sum_of_its_steps(self) -> None:
        t = celery()
        t.wants("tasks", running=False, stop_reason="asked")
        for at, step in ((0.0, "DRAIN"), (2.0, "TERM"), (32.0, "QUIT"), (36.0, "KILL-WORKERS"), (39.0, "kill")):
            t.at(at)
            t.does(f"{step} tasks.0@g1.1")
            t.does()
        assert t.reasons == []

    def test_a_step_that_did_all_it_can_is_followed_at_once(self) -> None:
        t = celery()
        t.wants("tasks", running=False, stop_reason="asked")
        t.does("DRAIN tasks.0@g1.1")
        t.at(1.1)
        t.hears(StepDone("tasks.0@g1.1", 0))
        t.does("TERM tasks.0@g1.1")
        assert t.reasons == ["asked"]
        t.hears(StepDone("tasks.0@g1.1", 0))
        t.does()
        assert t.sleeps_until == 31.1

    def test_work_that_an_interruption_would_lose_has_a_longer_grace(self) -> None:
        t = celery()
        t.wants("tasks", running=False, stop_reason="asked")
        t.does("DRAIN tasks.0@g1.1")
        t.hears(StepDone("tasks.0@g1.1", 0), TasksReported("tasks.0@g1.1", TasksLeft(2, 0, 1, 0.0, "shop.pay")))
        t.does("TERM tasks.0@g1.1")
        t.at(30.0)
        t.does()
        assert t.sleeps_until == 600.0
        t.at(90.0)
        t.hears(TasksReported("tasks.0@g1.1", TasksLeft(1, 0, 0, 50.0, "shop.mail")))
        t.does()
        assert t.sleeps_until == 93.0
        t.at(93.0)
        t.does("QUIT tasks.0@g1.1")
        assert t.reasons == ["asked; still there 93 s after TERM"]

    def test_the_longer_grace_has_an_end_too(self) -> None:
        t = celery()
        t.wants("tasks", running=False, stop_reason="asked")
        t.does("DRAIN tasks.0@g1.1")
        t.hears(TasksReported("tasks.0@g1.1", TasksLeft(1, 0, 1, 0.0, "shop.pay")))
        t.at(2.0)
        t.does("TERM tasks.0@g1.1")
        t.at(600.0)
        t.does("QUIT tasks.0@g1.1")


class TestStuck:
    def test_its_stacks_are_taken_then_it_is_stopped_for_a_fault_of_its_own(self) -> None:
        t = celery()
        t.at(100.0)
        t.hears(FoundStuck("tasks.0@g1.1", "silent for 31 s"), FoundStuck("tasks.0@g1.1", "silent for 36 s"))
        t.does("stacks tasks.0@g1.1")
        t.does()
        assert t.sleeps_until == 101.0
        t.at(101.0)
        t.does("DRAIN tasks.0@g1.1")
        assert t.reasons == ["stuck: silent for 31 s"]
        t.at(102.0)
        t.ends("tasks.0@g1.1", Exit(code=0))
        t.does("spawn tasks.0@g1.2", "restore tasks.0@g1.1")
        assert t.observed.pool("tasks").restarts_total == {"stuck": 1}

    def test_one_that_stops_anyway_is_left_to_its_list(self) -> None:
        t = celery()
        t.wants("tasks", running=False)
        t.does("DRAIN tasks.0@g1.1")
        t.hears(FoundStuck("tasks.0@g1.1", "silent"))
        t.does()


class TestAftercare:
    def ended(self, t: Transcript) -> None:
        t.ends("tasks.0@g1.1", Exit(signal=9))

    def test_what_it_held_is_given_back_before_it_is_forgotten(self) -> None:
        t = celery()
        self.ended(t)
        t.does("spawn tasks.0@g1.2", "restore tasks.0@g1.1")
        t.does()
        t.hears(Restored("tasks.0@g1.1", "3 messages held: 3 back in their queues", 3))
        t.does("forget tasks.0@g1.1")

    def test_a_broker_that_is_away_is_waited_for(self) -> None:
        t = celery()
        t.wants("tasks", running=False)
        t.does("DRAIN tasks.0@g1.1")
        self.ended(t)
        for at, again in ((0.0, 0.5), (0.5, 1.5), (1.5, 3.5)):
            t.at(at)
            t.does("restore tasks.0@g1.1")
            t.hears(RestoreFailed("tasks.0@g1.1", "refused", away=True))
            t.does()
            assert t.sleeps_until == again
        assert t.reasons == []
        t.at(3.5)
        t.does("restore tasks.0@g1.1")
        assert t.reasons == ["its tree is empty: what it held goes back, try 4"]
        t.hears(Restored("tasks.0@g1.1", "", 0))
        t.does("forget tasks.0@g1.1")

    def test_what_waiting_does_not_mend_is_tried_three_times(self) -> None:
        t = celery()
        t.wants("tasks", running=False)
        t.does("DRAIN tasks.0@g1.1")
        self.ended(t)
        for at in (0.0, 0.5, 1.5):
            t.at(at)
            t.does("restore tasks.0@g1.1")
            t.hears(RestoreFailed("tasks.0@g1.1", "wrong password", away=False))
        t.does("forget tasks.0@g1.1")
        assert t.reasons == ["its tree is empty; what it held could not be given back: wrong password"]

    def test_what_never_ran_held_nothing(self) -> None:
        t = Transcript(pool("tasks", policy=policy(CELERY, stop=LADDER)))
        t.does("spawn tasks.0@g1.1")
        t.hears(SpawnFailed("tasks.0@g1.1", "cannot fork"))
        t.does("spawn tasks.0@g1.2", "forget tasks.0@g1.1")

    def test_the_broker_stops_when_all_that_can_be_given_back_is(self) -> None:
        broker = pool("redis")
        t = Transcript(broker, pool("tasks", policy=policy(CELERY, stop=LADDER), after=("redis",)))
        t.does("spawn redis.0@g1.1")
        t.starts("redis.0@g1.1")
        t.does("spawn tasks.0@g1.2")
        t.starts("tasks.0@g1.2")
        t.wants_all(running=False)
        t.does("DRAIN tasks.0@g1.2")
        t.ends("tasks.0@g1.2", Exit(code=0))
        t.does("restore tasks.0@g1.2")
        t.hears(RestoreFailed("tasks.0@g1.2", "refused", away=True))
        t.does("TERM redis.0@g1.1")


class TestRestart:
    def test_the_first_restart_is_immediate_then_backoff_grows(self) -> None:
        t = serving("web")
        for serial, wait in enumerate((0.0, 0.5, 1.0, 2.0), 1):
            t.ends(f"web.0@g1.{serial}")
            spawn, forget = f"spawn web.0@g1.{serial + 1}", f"forget web.0@g1.{serial}"
            if wait:
                t.does(forget)
                assert t.sleeps_until == t.now + wait
                t.at(math.nextafter(t.now + wait, 0))
                t.does()
                t.at(t.observed.pool("web").slots[0, 1].not_before)
                t.does(spawn)
            else:
                t.does(spawn, forget)
            t.hears(Spawned(f"web.0@g1.{serial + 1}", 200))
        assert t.reasons == ["restart 4: exited with code 1"]

    def test_a_slot_that_gave_up_stays_so_until_an_operator_asks(self) -> None:
        t = Transcript(pool("web", policy=policy(restart=RestartPolicy(intensity_restarts=0))))
        t.does("spawn web.0@g1.1")
        t.hears(SpawnFailed(WEB, "cannot fork"))
        t.does("forget web.0@g1.1")
        t.at(1e6)
        t.does()
        t.hears(FailureCleared("web"))
        t.does("spawn web.0@g1.2")

    @pytest.mark.parametrize(("respawn", "at_exit"), [("at-exit", ["spawn web.0@g1.2"]), ("when-empty", [])])
    def test_when_a_slot_may_start_again(self, respawn: str, at_exit: list[str]) -> None:
        t = Transcript(pool("web", traits=Traits(respawn=respawn)))  # type: ignore[arg-type]
        t.does("spawn web.0@g1.1")
        t.starts(WEB)
        t.hears(MainExited(WEB, Exit(code=1)))
        t.does(*at_exit)
        t.hears(TreeEmptied(WEB, proven=True, killed=0))
        t.does(*([] if at_exit else ["spawn web.0@g1.2"]), "forget web.0@g1.1")

    def test_a_drain_in_the_slot_does_not_excuse_what_a_crash_left_there(self) -> None:
        t = serving("web")
        t.rolls("web", to=2)
        t.does("spawn web.0@g2.2")
        t.starts("web.0@g2.2")
        t.does("TERM web.0@g1.1", "web g2 succeeded")
        t.hears(MainExited("web.0@g2.2", Exit(code=1)))
        t.does()
        t.hears(TreeEmptied("web.0@g2.2", proven=True, killed=0))
        t.does("spawn web.0@g2.3", "forget web.0@g2.2")

    def test_a_faulty_process_holds_its_slot_until_it_has_ended(self) -> None:
        t = serving("web")
        t.wants("web", sizes=(2,))
        t.does("spawn web.0@g1.2")
        t.hears(Spawned("web.0@g1.2", 200))
        t.at(60.0)
        t.does("TERM web.0@g1.2")
        t.does()

    def test_a_pool_whose_program_did_all_it_had_to(self) -> None:
        t = Transcript(pool("web", policy=policy(restart=RestartPolicy(when="on-failure"))))
        t.does("spawn web.0@g1.1")
        t.starts(WEB)
        t.ends(WEB, Exit(code=0))
        t.does("forget web.0@g1.1")
        t.at(1000.0)
        t.does()


class TestScale:
    def test_up_and_down(self) -> None:
        t = serving("web")
        t.wants("web", sizes=(1, 1, 1))
        t.does("spawn web.1@g1.2", "spawn web.2@g1.3")
        assert t.reasons == ["web wants 3 workers"] * 2
        t.starts("web.1@g1.2", "web.2@g1.3")
        t.wants("web", sizes=(1,))
        t.does("TERM web.1@g1.2", "TERM web.2@g1.3")
        assert t.reasons == ["web was scaled to 1 workers"] * 2
        t.ends("web.1@g1.2", Exit(code=0))
        t.ends("web.2@g1.3", Exit(code=0))
        t.does("forget web.1@g1.2", "forget web.2@g1.3")

    def test_back_up_while_the_surplus_drains_keeps_the_budget(self) -> None:
        t = ready_slots(3)
        t.wants("web", sizes=(1,))
        t.does("TERM web.1@g1.2", "TERM web.2@g1.3")
        t.wants("web", sizes=(1, 1, 1))
        t.does("spawn web.1@g1.4")
        t.ends("web.1@g1.2", Exit(code=0))
        t.does("spawn web.2@g1.5", "forget web.1@g1.2")

    def test_another_size_of_a_slot_is_a_new_process_beside_the_old(self) -> None:
        t = serving("web")
        t.wants("web", sizes=(2,))
        t.does("spawn web.0@g1.2")
        t.starts("web.0@g1.2")
        t.does("TERM web.0@g1.1")
        assert t.reasons == ["its slot wants 2 workers, not 1"]

    def test_a_surge_is_no_restart(self) -> None:
        t = serving("web")
        t.ends(WEB)
        t.does("spawn web.0@g1.2", "forget web.0@g1.1")
        t.starts("web.0@g1.2")
        t.wants("web", sizes=(2,))
        t.does("spawn web.0@g1.3")
        assert t.reasons == ["web wants 2 workers"]

    def test_in_place(self) -> None:
        t = Transcript(pool("web", (2,), traits=GUNICORN))
        t.does("spawn web.0@g1.1")
        t.starts(WEB)
        t.does()
        t.wants("web", sizes=(4,))
        t.does("scale web.0@g1.1 to 4")
        assert t.reasons == ["web wants 4 workers, has 2"]
        assert t.sleeps_until == SCALE_RETRY_SECONDS
        t.hears(WorkersReported(WEB, 3, 2))
        t.does()
        t.hears(WorkersReported(WEB, 4, 4))
        t.does()
        assert t.process(WEB).workers == 4
        assert t.sleeps_until is None

    def test_a_request_to_scale_that_got_lost_is_repeated(self) -> None:
        t = Transcript(pool("web", (2,), traits=GUNICORN))
        t.does("spawn web.0@g1.1")
        t.starts(WEB)
        t.wants("web", sizes=(4,))
        t.does("scale web.0@g1.1 to 4")
        t.at(SCALE_RETRY_SECONDS)
        t.does("scale web.0@g1.1 to 4")
        t.wants("web", sizes=(2,))
        t.does("scale web.0@g1.1 to 2")

    def test_in_place_waits_until_it_is_ready(self) -> None:
        t = Transcript(pool("web", (2,), traits=GUNICORN))
        t.does("spawn web.0@g1.1")
        t.hears(Spawned(WEB, 100))
        t.wants("web", sizes=(4,))
        t.does()
        t.hears(BecameReady(WEB))
        t.does("scale web.0@g1.1 to 4")

    def test_in_place_to_nothing_stops_it(self) -> None:
        t = Transcript(pool("web", (2,), traits=GUNICORN))
        t.does("spawn web.0@g1.1")
        t.starts(WEB)
        t.wants("web", sizes=())
        t.does("TERM web.0@g1.1")

    def test_in_place_the_last_of_several_then_processes(self) -> None:
        t = Transcript(pool("tasks", (4, 2), policy=policy(CELERY, stop=LADDER)))
        t.does("spawn tasks.0@g1.1", "spawn tasks.1@g1.2")
        t.starts("tasks.0@g1.1", "tasks.1@g1.2")
        t.wants("tasks", sizes=(4, 4, 1))
        t.does("spawn tasks.2@g1.3", "scale tasks.1@g1.2 to 4")
        t.hears(WorkersReported("tasks.1@g1.2", 4, 4))
        t.starts("tasks.2@g1.3")
        t.wants("tasks", sizes=(3,))
        t.does("DRAIN tasks.1@g1.2", "DRAIN tasks.2@g1.3", "scale tasks.0@g1.1 to 3")

    def test_what_cannot_be_resized_in_place_is_replaced(self) -> None:
        t = celery()
        t.wants("tasks", sizes=(3,))
        t.does("scale tasks.0@g1.1 to 3")
        t.hears(ScaleRefused("tasks.0@g1.1", 3, "no agent"))
        t.does("spawn tasks.0@g1.2")
        t.starts("tasks.0@g1.2")
        t.does("DRAIN tasks.0@g1.1")
        assert t.reasons == ["its slot wants 3 workers, not 1"]

    def test_what_was_refused_may_be_wanted_no_more(self) -> None:
        t = celery()
        t.wants("tasks", sizes=(3,))
        t.does("scale tasks.0@g1.1 to 3")
        t.wants("tasks", sizes=(1,))
        t.hears(ScaleRefused("tasks.0@g1.1", 3, "no agent"))
        t.does()


class TestStartsAtOnce:
    def test_the_bound_holds_for_all_pools_together(self) -> None:
        t = Transcript(pool("db"), pool("web", (1, 1)), starts_at_once=2)
        t.does("spawn db.0@g1.1", "spawn web.0@g1.2")
        t.starts("db.0@g1.1")
        t.does("spawn web.1@g1.3")


class TestDependencies:
    def test_starts_wait_and_stops_go_in_reverse(self) -> None:
        t = Transcript(pool("web", after=("db",)), pool("db"))
        t.does("spawn db.0@g1.1")
        t.starts("db.0@g1.1")
        t.does("spawn web.0@g1.2")
        t.starts("web.0@g1.2")
        t.wants_all(running=False, stop_reason="SIGTERM")
        t.does("TERM web.0@g1.2")
        t.hears(MainExited("web.0@g1.2", Exit(code=0)))
        t.does()
        t.hears(TreeEmptied("web.0@g1.2", proven=True, killed=0))
        t.does("forget web.0@g1.2", "TERM db.0@g1.1")

    def test_a_later_death_stops_nothing_and_holds_nothing_back(self) -> None:
        t = Transcript(pool("db"), pool("web", (1, 1), after=("db",)))
        t.does("spawn db.0@g1.1")
        t.starts("db.0@g1.1")
        t.does("spawn web.0@g1.2", "spawn web.1@g1.3")
        t.hears(MainExited("db.0@g1.1", Exit(code=1)))
        t.hears(SpawnFailed("web.0@g1.2", "cannot fork"))
        t.does("spawn web.0@g1.4", "forget web.0@g1.2")

    def test_a_new_start_waits_anew(self) -> None:
        t = serving("db", "web")
        t.wants("web", after=("db",), running=False)
        t.does("TERM web.0@g1.2")
        t.ends("web.0@g1.2", Exit(code=0))
        t.does("forget web.0@g1.2")
        t.hears(MainExited("db.0@g1.1", Exit(code=1)))
        t.wants("web", running=True, epoch=1)
        t.does()
        t.hears(TreeEmptied("db.0@g1.1", proven=True, killed=0))
        t.does("spawn db.0@g1.3", "forget db.0@g1.1")
        t.starts("db.0@g1.3")
        t.does("spawn web.0@g1.4")


class TestExclusive:
    def test_stop_first_then_start(self) -> None:
        t = Transcript(pool("beat", traits=BEAT))
        t.does("spawn beat.0@g1.1")
        t.starts("beat.0@g1.1")
        t.rolls("beat", to=2)
        t.does("TERM beat.0@g1.1")
        t.hears(MainExited("beat.0@g1.1", Exit(code=0)))
        t.does()
        t.hears(TreeEmptied("beat.0@g1.1", proven=True, killed=0))
        t.does("spawn beat.0@g2.2", "forget beat.0@g1.1")

    def test_never_two_even_if_more_are_wanted(self) -> None:
        t = Transcript(pool("beat", (1, 1), traits=BEAT))
        t.does("spawn beat.0@g1.1")
        t.starts("beat.0@g1.1")
        t.does()


class TestOneshot:
    def test_success_is_recorded_once_and_never_run_again(self) -> None:
        t = Transcript(pool("migrate", traits=ONESHOT), pool("web", after=("migrate",)))
        t.does("spawn migrate.0@g1.1")
        t.starts("migrate.0@g1.1")
        t.does()
        t.ends("migrate.0@g1.1", Exit(code=0))
        t.does("record migrate g1", "forget migrate.0@g1.1", "spawn web.0@g1.2")
        t.hears(FailureCleared("migrate"))
        t.does()

    def test_success_belongs_to_the_generation(self) -> None:
        t = Transcript(pool("migrate", traits=ONESHOT))
        t.hears(SuccessRecorded("migrate", 1))
        t.does()
        t.wants("migrate", generation=2)
        t.does("spawn migrate.0@g2.1")

    def test_failure_is_tried_again_and_holds_others_back(self) -> None:
        t = Transcript(pool("migrate", traits=ONESHOT), pool("web", after=("migrate",)))
        t.does("spawn migrate.0@g1.1")
        t.starts("migrate.0@g1.1")
        t.ends("migrate.0@g1.1", Exit(code=1))
        t.does("spawn migrate.0@g1.2", "forget migrate.0@g1.1")

    def test_a_changed_task_makes_room_for_itself(self) -> None:
        t = Transcript(pool("migrate", traits=ONESHOT))
        t.does("spawn migrate.0@g1.1")
        t.starts("migrate.0@g1.1")
        t.wants("migrate", generation=2)
        t.does("TERM migrate.0@g1.1")
        t.ends("migrate.0@g1.1", Exit(code=0))
        t.does("spawn migrate.0@g2.2", "forget migrate.0@g1.1")


class TestRollout:
    def test_one_slot_after_the_other(self) -> None:
        t = ready_slots(2)
        t.rolls("web", to=2)
        t.does("spawn web.0@g2.3")
        t.starts("web.0@g2.3")
        t.does("TERM web.0@g1.1")
        t.ends("web.0@g1.1", Exit(code=0))
        t.does("spawn web.1@g2.4", "forget web.0@g1.1")
        t.starts("web.1@g2.4")
        t.does("TERM web.1@g1.2", "web g2 succeeded")

    def test_min_ready_is_waited_for_to_the_instant(self) -> None:
        t = ready_slots(1, rollout_policy=RolloutPolicy(1, 0, 0.3))
        t.rolls("web", to=2)
        t.at(0.1)
        t.does("spawn web.0@g2.2")
        t.starts("web.0@g2.2")
        due = 0.1 + 0.3
        assert t.sleeps_until == 0.3, "the old one settles first"
        t.at(math.nextafter(due, 0))
        t.does()
        assert t.sleeps_until == due
        t.at(due)
        t.does("TERM web.0@g1.1", "web g2 succeeded")

    def test_a_bad_generation_is_tried_once(self) -> None:
        t = ready_slots(3, rollout_policy=RolloutPolicy(3, 3))
        t.rolls("web", to=2)
        t.does("spawn web.0@g2.4", "TERM web.0@g1.1")
        t.hears(Spawned("web.0@g2.4", 200))
        t.ends("web.0@g2.4")
        t.does("web g2 rolled-back", "spawn web.0@g1.5", "forget web.0@g2.4")
        assert t.reasons[0] == "web.0@g2 exited with code 1"

    def test_a_missed_start_deadline_rolls_back_at_once(self) -> None:
        t = ready_slots(2)
        t.rolls("web", to=2)
        t.does("spawn web.0@g2.3")
        t.hears(Spawned("web.0@g2.3", 200))
        t.at(60.0)
        t.does("TERM web.0@g2.3", "web g2 rolled-back")
        t.does()

    def test_room_by_missing_one(self) -> None:
        t = ready_slots(2, rollout_policy=RolloutPolicy(0, 1))
        t.rolls("web", to=2)
        t.does("TERM web.0@g1.1")
        t.ends("web.0@g1.1", Exit(code=0))
        t.does("spawn web.0@g2.3", "forget web.0@g1.1")
        t.starts("web.0@g2.3")
        t.does("TERM web.1@g1.2")

    def test_a_policy_that_allows_nothing_may_miss_one(self) -> None:
        t = ready_slots(1, rollout_policy=RolloutPolicy(0, 0))
        t.rolls("web", to=2)
        t.does("TERM web.0@g1.1")

    def test_a_newer_generation_replaces_the_middle_one_first(self) -> None:
        t = ready_slots(2)
        t.rolls("web", to=2)
        t.does("spawn web.0@g2.3")
        t.starts("web.0@g2.3")
        rollout = t.desired.pools["web"].rollout
        assert rollout is not None
        t.wants("web", generation=3, rollout=replace(rollout, to_generation=3))
        t.does("TERM web.0@g2.3")
        t.ends("web.0@g2.3", Exit(code=0))
        t.does("spawn web.0@g3.4", "forget web.0@g2.3")

    def test_an_old_process_that_starts_goes_on_until_the_new_generation_works(self) -> None:
        t = serving("web")
        t.ends(WEB)
        t.does("spawn web.0@g1.2", "forget web.0@g1.1")
        t.rolls("web", to=2)
        t.does("spawn web.0@g2.3")
        t.starts("web.0@g2.3")
        t.does("kill web.0@g1.2", "web g2 succeeded")

    def test_without_a_surge_an_old_process_that_starts_makes_room(self) -> None:
        t = Transcript(pool("web", rollout_policy=RolloutPolicy(0, 1)))
        t.does("spawn web.0@g1.1")
        t.rolls("web", to=2)
        t.does("kill web.0@g1.1")

    def test_no_verdict_while_the_pool_is_stopped(self) -> None:
        t = serving("web")
        t.rolls("web", to=2)
        t.does("spawn web.0@g2.2")
        t.wants("web", running=False)
        t.does("TERM web.0@g1.1", "kill web.0@g2.2")

    def test_a_new_generation_that_has_done_all_it_had_to_has_taken_over(self) -> None:
        t = ready_slots(1, policy=policy(restart=RestartPolicy(when="on-failure")))
        t.rolls("web", to=2)
        t.does("spawn web.0@g2.2")
        t.starts("web.0@g2.2")
        t.ends("web.0@g2.2", Exit(code=0))
        t.does("TERM web.0@g1.1", "forget web.0@g2.2", "web g2 succeeded")


class TestShimLost:
    def test_a_process_without_a_shim_is_replaced_and_serves_until_then(self) -> None:
        t = serving("web")
        t.hears(ShimLost(WEB))
        t.does("spawn web.0@g1.2")
        assert t.reasons == ["its predecessor lost its shim"]
        t.starts("web.0@g1.2")
        t.does("TERM web.0@g1.1")
        assert t.reasons == ["its shim died"]

    def test_a_canary_without_a_shim_does_not_block_the_rollout(self) -> None:
        t = serving("web")
        t.ends(WEB)
        t.rolls("web", to=2)
        t.does("spawn web.0@g2.2", "forget web.0@g1.1")
        t.starts("web.0@g2.2")
        t.wants("web", rollout_policy=RolloutPolicy(1, 0, 5.0))
        t.hears(ShimLost("web.0@g2.2"))
        t.does("spawn web.0@g2.3")

    def test_two_without_a_shim_do_not_hold_each_other(self) -> None:
        t = serving("web")
        t.rolls("web", to=2)
        t.does("spawn web.0@g2.2")
        t.starts("web.0@g2.2")
        t.hears(ShimLost(WEB), ShimLost("web.0@g2.2"))
        t.does("TERM web.0@g1.1")
        t.ends(WEB, Exit(code=0))
        t.does("spawn web.0@g2.3", "forget web.0@g1.1")


def adopts(t: Transcript, process_id: str, *, began_at: float, workers: int = 1) -> None:
    """A process of a former daemon runs."""
    wanted = t.desired.pools["web"]
    generation = int(process_id.rpartition("@g")[2].partition(".")[0])
    facts = RecordedFacts(process_id, "web", 0, generation, workers, wanted.policy, "test", 0, began_at)
    t.hears(Adopted(adopted_process(facts, 100, t.now), 9, 0))


class TestAiling:
    def test_it_serves_until_another_takes_its_place(self) -> None:
        t = serving("web")
        t.hears(Ailing(WEB, "its workers keep crashing"))
        t.does("spawn web.0@g1.2")
        assert t.reasons == ["in place of a process that is not well: its workers keep crashing"]
        t.does()
        t.starts("web.0@g1.2")
        t.does("TERM web.0@g1.1")
        assert t.reasons == ["its workers keep crashing"]

    def test_in_a_rollout_it_is_rolled_back(self) -> None:
        t = serving("web")
        t.at(100.0)
        t.rolls("web", to=2, rollout_policy=RolloutPolicy(1, 0, min_ready_seconds=5.0))
        t.does("spawn web.0@g2.2")
        t.starts("web.0@g2.2")
        t.does()
        t.hears(Ailing("web.0@g2.2", "its workers keep crashing"))
        t.does("web g2 rolled-back", "TERM web.0@g2.2")


class TestAdopted:
    def test_one_that_has_not_answered_yet_is_kept(self) -> None:
        t = Transcript(pool("web", generation=2))
        t.at(100.0)
        adopts(t, "web.0@g1.1", began_at=90.0)
        adopts(t, "web.0@g2.2", began_at=91.0)
        t.does()
        assert t.sleeps_until == 160.0
        t.hears(BecameReady("web.0@g1.1"))
        t.does()
        t.hears(BecameReady("web.0@g2.2"))
        t.does("TERM web.0@g1.1")

    def test_of_two_in_a_slot_the_newer_is_kept(self) -> None:
        t = Transcript(pool("web"))
        t.at(1000.0)
        adopts(t, "web.0@g1.2", began_at=20.0)
        adopts(t, "web.0@g1.1", began_at=10.0)
        t.does("TERM web.0@g1.1")
        assert t.reasons == ["its slot has a newer process"]

    def test_a_size_that_a_former_daemon_set_is_set_again(self) -> None:
        t = Transcript(pool("web", (2,), traits=GUNICORN))
        t.at(1000.0)
        adopts(t, "web.0@g1.1", began_at=10.0, workers=2)
        t.does("scale web.0@g1.1 to 2")
        assert t.reasons == ["web wants 2 workers, its size was set by a former daemon"]

    def test_of_a_pool_that_nobody_wants_all_is_stopped(self) -> None:
        t = Transcript(pool("web"))
        t.at(1000.0)
        adopts(t, "web.0@g1.1", began_at=10.0)
        t.desired = replace(t.desired, pools={})
        t.does("TERM web.0@g1.1")
        assert t.reasons == ["no accepted config has its pool"]
        t.ends(WEB, Exit(code=0))
        t.does("forget web.0@g1.1")

    def test_a_spawn_that_a_former_daemon_did_not_finish_is_no_failure(self) -> None:
        t = Transcript(pool("web"))
        wanted = t.desired.pools["web"]
        facts = RecordedFacts(WEB, "web", 0, 1, 1, wanted.policy, "test", 0, 0.0)
        t.hears(Adopted(adopted_process(facts, None, 0.0), 1, 0))
        t.does()
        t.hears(SpawnFailed(WEB, "the daemon died before it was started"))
        t.does("spawn web.0@g1.2", "forget web.0@g1.1")
        assert t.reasons[0] == "web wants 1 workers"


class TestRemoved:
    def test_its_facts_are_dropped_when_nothing_is_left(self) -> None:
        t = serving("web")
        t.wants("web", running=False, removed=True, stop_reason="it left the config")
        t.does("TERM web.0@g1.1")
        t.ends(WEB, Exit(code=0))
        t.does("forget web.0@g1.1", "drop web")
        assert "web" not in t.observed.pools
