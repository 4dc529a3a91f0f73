from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from supervisor_d.core import events as ev
from supervisor_d.core.evolve import TRANSITIONS, describe_exit, evolve, exit_kind
from supervisor_d.core.observed import Observed, PoolFacts, SlotFacts
from supervisor_d.core.process import Aftercare, Exit, IllegalTransitionError, Process, State, StopProgress, TasksLeft
from supervisor_d.core.spec import RestartPolicy, StopStep
from tests.core.transcript import policy

ID = "web.0@g1.1"
FACTS: tuple[ev.Event, ...] = (
    ev.Spawned(ID, 4711),
    ev.SpawnFailed(ID, "cannot fork"),
    ev.BecameReady(ID),
    ev.NotReadyYet(ID, "http /healthz answered 503"),
    ev.WorkersReported(ID, 2, 1),
    ev.WorkerExited(ID, 4712, Exit(code=0)),
    ev.Remarked(ID, "stands by"),
    ev.ScaleAsked(ID, 3, "test"),
    ev.ScaleRefused(ID, 3, "test"),
    ev.StopSignalled(ID, 0, 40.0, "test", expected=True),
    ev.StepDone(ID, 0),
    ev.TasksReported(ID, TasksLeft(active=2)),
    ev.FoundStuck(ID, "silent"),
    ev.StacksAsked(ID),
    ev.KillSent(ID, "test", expected=True),
    ev.MainExited(ID, Exit(code=0)),
    ev.TreeEmptied(ID, proven=True, killed=0),
    ev.RestoreAsked(ID),
    ev.Restored(ID, "2 messages held", 2),
    ev.RestoreFailed(ID, "refused", away=True),
    ev.ShimLost(ID),
    ev.ShimReplaced(ID),
    ev.Forgotten(ID),
)


def process(state: State, **others: object) -> Process:
    stop = StopProgress(0, 40.0, "test", expected=True) if state in (State.STOPPING, State.KILLING) else None
    made = Process(ID, "web", 0, 1, 1, policy(), "test", state, since=1.0, began_at=1.0, stop=stop)
    return replace(made, **others)  # type: ignore[arg-type]


def knowing(known: Process, slots: dict[tuple[int, int], SlotFacts] | None = None) -> Observed:
    return Observed({"web": PoolFacts({known.id: known}, slots or {})}, next_serial=2)


def after(known: Process, *facts: ev.Event, now: float = 10.0) -> Process:
    observed = knowing(known)
    for fact in facts:
        observed = evolve(observed, fact, now)
    found = observed.find(known.id)
    assert found is not None
    return found


def facts_after(known: Process, fact: ev.Event, now: float = 10.0) -> PoolFacts:
    return evolve(knowing(known), fact, now).pool("web")


class TestTheTable:
    @pytest.mark.parametrize(
        ("state", "fact"), list(product(State, FACTS)), ids=lambda v: getattr(v, "value", type(v).__name__)
    )
    def test_every_pair_moves_as_the_table_says_or_raises(self, state: State, fact: ev.Event) -> None:
        known = process(state, empty=isinstance(fact, ev.Forgotten))
        observed = knowing(known)
        wanted = TRANSITIONS.get((state, type(fact)))
        if wanted is None:
            with pytest.raises(IllegalTransitionError, match=f"{type(fact).__name__} about {ID}, which is {state}"):
                evolve(observed, fact, 10.0)
        else:
            moved = evolve(observed, fact, 10.0).find(ID)
            assert (moved is None) == isinstance(fact, ev.Forgotten)
            assert moved is None or (moved.state, moved.since) == (wanted, 1.0 if wanted is state else 10.0)
        assert observed == knowing(known), "what was known before stays as it was"

    def test_no_process_ever_moves_up_the_list(self) -> None:
        order = list(State)
        assert all(order.index(state) <= order.index(then) for (state, _), then in TRANSITIONS.items())

    @pytest.mark.parametrize("fact", FACTS, ids=lambda v: type(v).__name__)
    def test_a_fact_about_nobody_raises(self, fact: ev.Event) -> None:
        with pytest.raises(IllegalTransitionError, match="which is not known"):
            evolve(Observed(), fact, 10.0)

    def test_a_record_that_is_not_empty_cannot_be_forgotten(self) -> None:
        with pytest.raises(IllegalTransitionError):
            after(process(State.EXITED), ev.Forgotten(ID))


class TestWhatFactsAdd:
    def test_the_life_of_process_py(self) -> None:
        life = after(
            process(State.STARTING),
            ev.Spawned(ID, 4711),
            ev.BecameReady(ID),
            ev.StopSignalled(ID, 0, 40.0, "asked", expected=True),
            ev.StopSignalled(ID, 1, 50.0, "asked", expected=True),
            ev.KillSent(ID, "asked", expected=True),
            ev.MainExited(ID, Exit(signal=9)),
            ev.TreeEmptied(ID, proven=True, killed=1),
        )
        assert (life.state, life.pid, life.ready_at, life.exit, life.empty) == (
            State.EXITED, 4711, 10.0, Exit(signal=9), True,
        )  # fmt: skip
        assert life.stop == StopProgress(2, None, "asked", expected=True, began_at=10.0)
        assert life.kill_sent

    def test_a_step_that_is_done_is_the_one_that_was_sent(self) -> None:
        sent = after(process(State.READY), ev.StopSignalled(ID, 0, 40.0, "asked", expected=True))
        assert sent.stop == StopProgress(0, 40.0, "asked", expected=True, began_at=10.0)
        done = after(sent, ev.StepDone(ID, 0), now=11.0)
        assert done.stop == replace(sent.stop, done=True)
        later = after(done, ev.StopSignalled(ID, 1, 50.0, "asked", expected=True), now=20.0)
        assert later.stop == StopProgress(1, 50.0, "asked", expected=True, began_at=10.0)
        assert after(later, ev.StepDone(ID, 0), now=21.0) == later
        assert after(process(State.READY), ev.StepDone(ID, 0)) == process(State.READY)

    def test_a_size_that_is_refused_is_the_one_that_was_asked(self) -> None:
        asked = after(process(State.READY), ev.ScaleAsked(ID, 3, "test"))
        assert after(asked, ev.ScaleRefused(ID, 2, "late")) == asked
        refused = after(asked, ev.ScaleRefused(ID, 3, "no agent"))
        assert (refused.scale_asked, refused.resize_refused) == (None, "no agent")

    def test_when_unsafe_work_ended_is_kept(self) -> None:
        busy = after(process(State.STOPPING), ev.TasksReported(ID, TasksLeft(2, unsafe=1)))
        assert busy.unsafe_ended_at is None
        safe = after(busy, ev.TasksReported(ID, TasksLeft(1)), now=20.0)
        assert after(safe, ev.TasksReported(ID, TasksLeft()), now=30.0).unsafe_ended_at == 20.0
        assert after(safe, ev.TasksReported(ID, TasksLeft(1, unsafe=1)), now=30.0).unsafe_ended_at is None

    def test_what_was_restored_is_counted_and_no_longer_held(self) -> None:
        ended = process(State.EXITED, empty=True, aftercare=Aftercare(2, under_way=True))
        assert after(ended, ev.Restored(ID, "", 0)).aftercare == Aftercare(2, done=True)
        assert facts_after(ended, ev.Restored(ID, "2 messages held", 2)).restored_messages_total == 2
        failed = ev.RestoreFailed(ID, "refused", away=True, restored=3)
        assert after(ended, failed).aftercare.last_error == "refused"
        assert facts_after(ended, failed).restored_messages_total == 3

    def test_an_answer_that_comes_again_changes_nothing(self) -> None:
        known = process(State.READY, ready_at=5.0)
        assert after(known, ev.BecameReady(ID)) == known

    def test_an_answer_that_comes_too_late_is_no_readiness(self) -> None:
        assert after(process(State.STOPPING), ev.BecameReady(ID)).ready_at is None

    def test_a_count_that_reaches_what_was_asked_is_the_new_size(self) -> None:
        known = after(process(State.READY), ev.ScaleAsked(ID, 3, "test"))
        assert (known.scale_asked, known.scale_asked_at) == (3, 10.0)
        assert after(known, ev.WorkersReported(ID, 3, 2)).workers == 1
        reached = after(known, ev.WorkersReported(ID, 3, 3))
        assert (reached.workers, reached.scale_asked) == (3, None)

    def test_a_count_after_the_end_is_not_believed(self) -> None:
        assert after(process(State.EXITED), ev.WorkersReported(ID, 3, 3)).workers_live == 0

    def test_the_end_of_the_main_process_takes_its_workers_along(self) -> None:
        known = process(State.READY, workers_live=2, workers_ready=2)
        assert after(known, ev.MainExited(ID, Exit(code=0))).workers_live == 0

    def test_a_lost_shim_is_remembered_until_another_takes_its_place(self) -> None:
        lost = after(process(State.STOPPING), ev.ShimLost(ID))
        assert lost.shim_lost
        assert not after(lost, ev.ShimReplaced(ID)).shim_lost

    def test_what_is_ailing_is_told_once_and_only_while_it_lives(self) -> None:
        assert after(process(State.READY), ev.Ailing(ID, "no workers")).ailing == "no workers"
        assert after(process(State.STOPPING), ev.Ailing(ID, "no workers")).ailing == ""
        observed = Observed({"web": PoolFacts({ID: process(State.READY)})})
        for _ in range(2):
            observed = evolve(observed, ev.Ailing(ID, "no workers"), 10.0)
        assert observed.pool("web").restarts_total == {"ailing": 1}


class TestTotals:
    @pytest.mark.parametrize(
        ("ended", "kind", "text"),
        [
            (Exit(code=0), "ok", "exited with code 0"),
            (Exit(code=3), "error", "exited with code 3"),
            (Exit(signal=11), "signal", "killed by SIGSEGV"),
            (Exit(signal=34), "signal", "killed by signal 34"),
            (Exit(signal=9, oom=True), "oom", "killed by SIGKILL (out of memory)"),
            (Exit(), "unknown", "ended, exit status unknown"),
        ],
    )
    def test_ends_are_counted_by_kind(self, ended: Exit, kind: str, text: str) -> None:
        facts = facts_after(process(State.READY), ev.MainExited(ID, ended))
        assert (facts.exits_total, facts.restarts_total) == ({kind: 1}, {kind: 1})
        assert facts.slots[0, 1].last_reason == text
        assert (exit_kind(ended), describe_exit(ended)) == (kind, text)

    def test_an_end_that_was_asked_for_is_no_restart(self) -> None:
        facts = facts_after(process(State.STOPPING), ev.MainExited(ID, Exit(code=0)))
        assert (facts.exits_total, facts.restarts_total, facts.slots) == ({"ok": 1}, {}, {})

    def test_a_missed_start_deadline_has_a_kind_of_its_own(self) -> None:
        known = process(State.STOPPING, stop=StopProgress(0, 40.0, "not ready within 5 s", expected=False))
        facts = facts_after(known, ev.MainExited(ID, Exit(code=0)))
        assert (facts.exits_total, facts.restarts_total) == ({"ok": 1}, {"start-timeout": 1})

    def test_a_failed_spawn(self) -> None:
        facts = facts_after(process(State.STARTING), ev.SpawnFailed(ID, "cannot fork"))
        assert (facts.exits_total, facts.restarts_total) == ({"spawn-failed": 1}, {"spawn-failed": 1})
        assert facts.slots[0, 1].last_reason == "cannot fork"

    def test_a_slot_that_gives_up_or_has_finished_is_not_restarted(self) -> None:
        never = policy(restart=RestartPolicy(when="never"))
        facts = facts_after(process(State.READY, policy=never), ev.MainExited(ID, Exit(code=0)))
        assert (facts.restarts_total, facts.slots[0, 1].finished) == ({}, True)

    @pytest.mark.parametrize(("state", "counted"), [(State.READY, {"shim-lost": 1}), (State.STOPPING, {})])
    def test_a_lost_shim_is_a_reason_to_restart(self, state: State, counted: dict[str, int]) -> None:
        assert facts_after(process(state), ev.ShimLost(ID)).restarts_total == counted

    def test_workers_inside(self) -> None:
        facts = facts_after(process(State.READY), ev.WorkerExited(ID, 1, Exit(signal=9)))
        assert (facts.worker_exits_total, facts.exits_total) == ({"signal": 1}, {})


class TestSlots:
    def test_a_stable_process_that_ends_as_asked_takes_the_slots_past_along(self) -> None:
        past = {(0, 1): SlotFacts(attempt=3), (1, 1): SlotFacts(attempt=1)}
        for ready_at, left in ((0.0, {(1, 1)}), (5.0, {(0, 1), (1, 1)})):
            known = process(State.STOPPING, ready_at=ready_at)
            facts = evolve(knowing(known, past), ev.MainExited(ID, Exit(code=0)), 10.0).pool("web")
            assert set(facts.slots) == left

    def test_a_new_generation_takes_the_place_of_ended_ones(self) -> None:
        past = {(0, 1): SlotFacts(attempt=1), (0, 2): SlotFacts(attempt=2), (1, 2): SlotFacts(attempt=3)}
        began = ev.SpawnBegan("web.0@g3.7", "web", 0, 3, 1, policy(), 4, "test")
        observed = evolve(knowing(process(State.READY), past), began, 10.0)
        facts = observed.pool("web")
        assert set(facts.slots) == {(0, 1), (1, 2)}, "g1 still runs, and another slot has its own past"
        assert (facts.admitted_epoch, observed.next_serial) == (4, 3)

    def test_an_operator_clears_a_pool(self) -> None:
        past = {(0, 1): SlotFacts(failed="more than 10 restarts")}
        assert evolve(knowing(process(State.EXITED), past), ev.FailureCleared("web"), 10.0).pool("web").slots == {}


class TestPools:
    def test_an_id_is_used_once(self) -> None:
        began = ev.SpawnBegan(ID, "web", 0, 1, 1, policy(), 0, "test")
        with pytest.raises(IllegalTransitionError, match="was spawned before"):
            evolve(knowing(process(State.READY)), began, 10.0)

    def test_adoption_goes_on_behind_the_highest_serial_and_stays_admitted(self) -> None:
        known = process(State.READY)
        observed = evolve(Observed(), ev.Adopted(known, 17, 3), 10.0)
        assert (observed.find(ID), observed.next_serial, observed.pool("web").admitted_epoch) == (known, 18, 3)
        with pytest.raises(IllegalTransitionError, match="is known already"):
            evolve(observed, ev.Adopted(known, 17), 10.0)

    def test_an_adopted_spawn_that_fails_is_no_fault(self) -> None:
        facts = facts_after(process(State.STARTING, adopted=True), ev.SpawnFailed(ID, "the gate was never opened"))
        assert (facts.exits_total, facts.restarts_total, facts.slots) == ({"spawn-failed": 1}, {}, {})

    def test_successes_add_up_and_pools_go(self) -> None:
        observed = evolve(
            evolve(Observed(), ev.SuccessRecorded("migrate", 1), 1.0), ev.SuccessRecorded("migrate", 2), 2.0
        )
        assert observed.pool("migrate").successes == {1, 2}
        assert evolve(observed, ev.PoolRemoved("migrate"), 3.0) == Observed()

    def test_processes_of_all_pools(self) -> None:
        observed = knowing(process(State.READY))
        assert [p.id for p in observed.processes()] == [ID]
        assert observed.find("db.0@g1.1") is None


def test_a_stop_step_in_words() -> None:
    assert [str(step) for step in (StopStep("TERM", 30.0), StopStep("KILL"))] == ["TERM 30s", "KILL"]
