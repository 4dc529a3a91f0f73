from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from supervisor_d.core import intent as intents
from supervisor_d.core.actions import ConcludeRollout
from supervisor_d.core.events import (
    BecameReady,
    MainExited,
    Remarked,
    Spawned,
    SpawnFailed,
    SuccessRecorded,
    TasksReported,
    WorkersReported,
)
from supervisor_d.core.intent import Intent
from supervisor_d.core.process import Exit, TasksLeft
from supervisor_d.core.snapshot import DaemonView, PoolView, RolloutView, SlotView, Usage
from supervisor_d.core.spec import PoolSpec, RestartPolicy
from supervisor_d.core.view import Sources, pool_state, snapshot
from tests.core.transcript import GUNICORN, ONESHOT, Transcript, policy, pool

OFFSET = 1_000_000.0
DAEMON = DaemonView("1", 1, "running", 0.0, "", "", "", 0.0, 0.0, 0, 0, 0, 0.0, 0)
WEB = "web.0@g1.1"


def word(t: Transcript, name: str = "web") -> tuple[str, str]:
    return pool_state(t.desired.pools[name], t.desired, t.observed, t.now)


def two_slots(**others: Any) -> Transcript:
    t = Transcript(pool("web", (1, 1), **others))
    t.does("spawn web.0@g1.1", "spawn web.1@g1.2")
    t.starts("web.0@g1.1")
    return t


class TestTheWord:
    def test_starting_then_running(self) -> None:
        t = two_slots()
        assert word(t) == ("starting", "1 of 2 ready")
        t.starts("web.1@g1.2")
        assert word(t) == ("running", "2 of 2 ready")

    def test_workers_inside_a_process_are_counted(self) -> None:
        t = Transcript(pool("web", (4,), traits=GUNICORN))
        t.does("spawn web.0@g1.1")
        t.starts("web.0@g1.1")
        t.hears(WorkersReported("web.0@g1.1", 4, 3))
        assert word(t) == ("running", "3 of 4 ready")

    def test_what_ready_processes_say_of_themselves_stands_behind_once(self) -> None:
        t = two_slots()
        t.starts("web.1@g1.2")
        t.hears(Remarked("web.0@g1.1", "stands by"), Remarked("web.1@g1.2", "stands by"))
        assert word(t) == ("running", "2 of 2 ready; stands by")
        t.hears(Remarked("web.0@g1.1", "holds the lease"))
        assert word(t) == ("running", "2 of 2 ready; holds the lease; stands by")

    def test_surplus_does_not_count(self) -> None:
        t = two_slots()
        t.starts("web.1@g1.2")
        t.wants("web", sizes=(1,))
        assert word(t) == ("running", "1 of 1 ready")

    def test_waiting_names_the_dependencies(self) -> None:
        t = Transcript(pool("db"), pool("migrate", traits=ONESHOT), pool("web", after=("db", "migrate")))
        assert word(t) == ("waiting", "for db, migrate")

    def test_trying_a_new_generation_out(self) -> None:
        t = Transcript(pool("web", (1, 1)))
        t.does("spawn web.0@g1.1", "spawn web.1@g1.2")
        t.starts("web.0@g1.1", "web.1@g1.2")
        t.tries("web", 2, "canary")
        assert word(t) == ("rolling", "g2 is tried as canary (test); g1 serves: 2 of 2 ready")
        t.tries("web", 2, "canary", waits_for=("db",))
        assert word(t) == ("rolling", "g2 waits for db (test); g1 serves: 2 of 2 ready")

    def test_rolling(self) -> None:
        t = two_slots()
        t.starts("web.1@g1.2")
        t.rolls("web", to=2)
        assert word(t) == ("rolling", "g1 to g2 (test): 2 of 2 ready")

    def test_backoff_and_degraded(self) -> None:
        t = two_slots()
        for serial in (2, 3):
            t.ends(f"web.1@g1.{serial}")
            assert word(t) == (
                ("degraded", "web.1 restarts: exited with code 1")
                if serial == 2
                else ("degraded", "web.1 restarts in 0.5 s: exited with code 1")
            )
            t.does(*(("spawn web.1@g1.3", "forget web.1@g1.2") if serial == 2 else ("forget web.1@g1.3",)))
        t.ends("web.0@g1.1")
        t.does("spawn web.0@g1.4", "forget web.0@g1.1")
        assert word(t) == ("backoff", "web.1 restarts in 0.5 s: exited with code 1")
        t.at(0.5)
        t.does("spawn web.1@g1.5")
        assert word(t) == ("starting", "0 of 2 ready")

    def test_failed_and_degraded_by_a_slot_that_gave_up(self) -> None:
        t = two_slots(policy=policy(restart=RestartPolicy(intensity_restarts=0)))
        t.hears(SpawnFailed("web.1@g1.2", "cannot fork"))
        why = "web.1 failed: more than 0 restarts within 120 s; the last: cannot fork"
        assert word(t) == ("degraded", why)
        t.ends("web.0@g1.1")
        assert word(t)[0] == "failed"

    def test_a_program_that_is_not_tried_again(self) -> None:
        t = Transcript(pool("web", policy=policy(restart=RestartPolicy(when="never"))))
        t.does("spawn web.0@g1.1")
        t.starts(WEB)
        t.ends(WEB, Exit(code=1))
        assert word(t) == ("failed", "web.0 exited with code 1 and is not started again")

    def test_a_program_that_did_all_it_had_to(self) -> None:
        t = two_slots(policy=policy(restart=RestartPolicy(when="on-failure")))
        t.starts("web.1@g1.2")
        t.ends("web.0@g1.1", Exit(code=0))
        assert word(t)[0] == "starting"
        t.ends("web.1@g1.2", Exit(code=0))
        assert word(t) == ("done", "web.0 exited with code 0")

    def test_a_oneshot_that_succeeded(self) -> None:
        t = Transcript(pool("web", traits=ONESHOT))
        t.hears(SuccessRecorded("web", 1))
        assert word(t) == ("done", "g1 succeeded")

    def test_stopping_and_stopped(self) -> None:
        t = two_slots()
        t.wants("web", running=False, stop_reason="asked by root")
        t.does("TERM web.0@g1.1", "kill web.1@g1.2")
        assert word(t) == ("stopping", "asked by root; 2 left")
        t.at(50.0)
        t.hears(TasksReported(WEB, TasksLeft(2, 0, 0, 9.0, "shop.pay")))
        assert word(t) == ("stopping", "asked by root; 2 left; 2 tasks left, the oldest 41 s: shop.pay")
        t.ends("web.0@g1.1")
        t.hears(SpawnFailed("web.1@g1.2", "killed"))
        assert word(t) == ("stopped", "asked by root")


def seen(t: Transcript, intent: Intent, listeners: Mapping[str, tuple[str, ...]] | None = None) -> PoolView:
    usages = {WEB: Usage(1.0, 2, 3, 4, 5)}
    sources = Sources(intent, t.desired, t.observed, t.now, OFFSET, usages, listeners or {})
    picture = snapshot(DAEMON, sources)
    assert (picture.at, picture.daemon) == (OFFSET + t.now, DAEMON)
    (view,) = picture.pools
    return view


@pytest.fixture
def intent() -> Intent:
    spec = PoolSpec("web", "command", 1, None, digest="one")
    return intents.accept(Intent(), {"web": spec}, 0.0, reason="")


class TestThePicture:
    def test_a_process(self, intent: Intent) -> None:
        t = Transcript(pool("web"))
        t.at(5.0)
        t.does("spawn web.0@g1.1")
        t.at(6.0)
        t.hears(Spawned(WEB, 4711))
        assert seen(t, intent).workers_ready == 0
        t.hears(BecameReady(WEB))
        (process,) = seen(t, intent).processes
        assert (process.state, process.pid, process.started_at, process.ready_at) == (
            "ready", 4711, OFFSET + 5.0, OFFSET + 6.0,
        )  # fmt: skip
        assert (process.reason, process.stop_reason, process.exit) == ("web wants 1 workers", "", "")
        assert process.usage == Usage(1.0, 2, 3, 4, 5)
        t.wants("web", running=False, stop_reason="asked")
        t.does("TERM web.0@g1.1")
        t.hears(MainExited(WEB, Exit(code=0)))
        (process,) = seen(t, intent).processes
        assert (process.state, process.stop_reason, process.exit) == ("exited", "asked", "exited with code 0")

    def test_workers_without_a_driver_are_what_the_process_stands_for(self, intent: Intent) -> None:
        t = Transcript(pool("web", (2,)))
        t.does("spawn web.0@g1.1")
        assert (seen(t, intent).workers_desired, seen(t, intent).workers_live) == (2, 0)
        t.hears(Spawned(WEB, 4711))
        assert (seen(t, intent).workers_live, seen(t, intent).workers_ready) == (2, 0)
        t.hears(BecameReady(WEB))
        assert (seen(t, intent).workers_live, seen(t, intent).workers_ready) == (2, 2)
        t.hears(WorkersReported(WEB, 1, 1))
        assert (seen(t, intent).workers_live, seen(t, intent).workers_ready) == (1, 1)
        t.wants("web", running=False)
        assert seen(t, intent).workers_desired == 0

    def test_workers_in_place_are_what_the_driver_counts(self, intent: Intent) -> None:
        t = Transcript(pool("web", (2,), traits=GUNICORN))
        t.does("spawn web.0@g1.1")
        t.hears(Spawned(WEB, 4711), WorkersReported(WEB, 2, 2))
        assert (seen(t, intent).workers_live, seen(t, intent).workers_ready) == (2, 0)
        t.hears(BecameReady(WEB))
        assert (seen(t, intent).workers_live, seen(t, intent).workers_ready) == (2, 2)

    def test_slots_that_wait_or_gave_up(self, intent: Intent) -> None:
        t = Transcript(pool("web", policy=policy(restart=RestartPolicy(jitter=0.0, intensity_restarts=2))))
        for serial in (1, 2):
            t.does(*([f"spawn web.0@g1.{serial}"] + ([f"forget web.0@g1.{serial - 1}"] if serial > 1 else [])))
            t.hears(SpawnFailed(f"web.0@g1.{serial}", "cannot fork"))
        unknown = "ended, exit status unknown"
        assert seen(t, intent).slots == (SlotView(0, 1, 2, 0.5, "", unknown),)
        t.does("forget web.0@g1.2")
        t.at(0.5)
        t.does("spawn web.0@g1.3")
        assert seen(t, intent).slots == ()
        t.hears(SpawnFailed("web.0@g1.3", "cannot fork"))
        failed = "more than 2 restarts within 120 s; the last: cannot fork"
        assert seen(t, intent).slots == (SlotView(0, 1, 3, 0.0, failed, unknown),)

    def test_who_set_the_number_and_where_it_listens(self, intent: Intent) -> None:
        t = Transcript(pool("web"))
        assert seen(t, intent).workers_from == "config"
        view = seen(t, intents.scale(intent, "web", 3), {"web": ("127.0.0.1:8000",)})
        assert (view.workers_from, view.listeners, view.program) == ("operator", ("127.0.0.1:8000",), "command")

    def test_the_last_rollout(self, intent: Intent) -> None:
        t = Transcript(pool("web"))
        spec = replace(intent.pools["web"].wanted.spec, digest="two")
        rolling = intents.accept(intent, {"web": spec}, 5.0, reason="changed: app")
        assert seen(t, intent).rollout is None
        assert seen(t, rolling).rollout == RolloutView(1, 2, "in progress", "changed: app", OFFSET + 5.0)
        ended = intents.conclude(rolling, ConcludeRollout("web", 2, "rolled-back", "it crashed"), 6.0)
        view = seen(t, ended)
        assert view.rollout == RolloutView(1, 2, "rolled-back", "it crashed", OFFSET + 5.0, OFFSET + 6.0)
        assert view.rollouts_total == {"rolled-back": 1}
