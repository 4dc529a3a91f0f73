from __future__ import annotations

from supervisor_d.core.dependencies import held_by, pool_is_ready, waits_for
from supervisor_d.core.events import MainExited, SuccessRecorded
from supervisor_d.core.process import Exit
from supervisor_d.core.spec import RestartPolicy
from tests.core.transcript import ONESHOT, Transcript, policy, pool


def test_a_pool_is_ready_when_every_slot_is() -> None:
    t = Transcript(pool("db", (1, 1)))
    t.does("spawn db.0@g1.1", "spawn db.1@g1.2")
    t.starts("db.0@g1.1")
    assert not pool_is_ready(t.desired.pools["db"], t.observed)
    t.starts("db.1@g1.2")
    assert pool_is_ready(t.desired.pools["db"], t.observed)
    t.wants("db", running=False)
    assert not pool_is_ready(t.desired.pools["db"], t.observed)


def test_a_pool_of_nothing_is_ready() -> None:
    t = Transcript(pool("db", ()))
    assert pool_is_ready(t.desired.pools["db"], t.observed)


def test_what_ended_well_and_is_not_restarted_counts_as_ready() -> None:
    t = Transcript(pool("job", policy=policy(restart=RestartPolicy(when="on-failure"))))
    t.does("spawn job.0@g1.1")
    t.starts("job.0@g1.1")
    t.hears(MainExited("job.0@g1.1", Exit(code=0)))
    assert pool_is_ready(t.desired.pools["job"], t.observed)


def test_a_oneshot_is_ready_by_the_success_of_its_generation() -> None:
    t = Transcript(pool("migrate", traits=ONESHOT, generation=2))
    t.hears(SuccessRecorded("migrate", 1))
    assert not pool_is_ready(t.desired.pools["migrate"], t.observed)
    t.hears(SuccessRecorded("migrate", 2))
    assert pool_is_ready(t.desired.pools["migrate"], t.observed)


def test_waits_only_for_what_the_config_has_and_once_a_start() -> None:
    t = Transcript(pool("db"), pool("web", after=("db", "gone")))
    assert waits_for(t.desired.pools["web"], t.desired, t.observed) == ("db",)
    t.does("spawn db.0@g1.1")
    t.starts("db.0@g1.1")
    t.does("spawn web.0@g1.2")
    t.hears(MainExited("db.0@g1.1", Exit(code=1)))
    assert waits_for(t.desired.pools["web"], t.desired, t.observed) == ()
    t.wants("web", epoch=1)
    assert waits_for(t.desired.pools["web"], t.desired, t.observed) == ("db",)


def test_both_reach_through_a_oneshot_that_is_done() -> None:
    t = Transcript(pool("redis"), pool("migrate", traits=ONESHOT, after=("redis",)), pool("web", after=("migrate",)))
    t.hears(SuccessRecorded("migrate", 1))
    assert waits_for(t.desired.pools["web"], t.desired, t.observed) == ("redis",)
    t.does("spawn redis.0@g1.1")
    t.starts("redis.0@g1.1")
    t.does("spawn web.0@g1.2")
    t.wants_all(running=False)
    assert held_by(t.desired.pools["redis"], t.desired, t.observed) == ("web",)


def test_a_circle_is_no_trap() -> None:
    t = Transcript(pool("a", traits=ONESHOT, after=("b",)), pool("b", traits=ONESHOT, after=("a",)))
    assert waits_for(t.desired.pools["a"], t.desired, t.observed) == ("b", "a")
    assert held_by(t.desired.pools["a"], t.desired, t.observed) == ()


def test_held_by_dependents_that_are_to_stop_and_still_run() -> None:
    t = Transcript(pool("db"), pool("web", after=("db",)), pool("cron", after=("db",)))
    t.does("spawn db.0@g1.1")
    t.starts("db.0@g1.1")
    t.does("spawn web.0@g1.2", "spawn cron.0@g1.3")
    assert held_by(t.desired.pools["db"], t.desired, t.observed) == ()
    t.wants("web", running=False)
    assert held_by(t.desired.pools["db"], t.desired, t.observed) == ("web",)
