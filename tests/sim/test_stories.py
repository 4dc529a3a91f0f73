"""Whole stories in the simulated world, each a promise of the design told once with names and numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from supervisor_d.core.process import Exit
from supervisor_d.core.spec import RestartPolicy, RolloutPolicy, StopStep
from tests.sim.pools import (
    BAD,
    CRASH_AT_BOOT,
    CRASH_LATER,
    DEAF,
    GOOD,
    HANG_AT_BOOT,
    KILL,
    LOSING,
    ORPHANS,
    PATIENT,
    SLOW,
    WORK,
    make_spec,
)
from tests.sim.world import World
from tests.support.fake_host import Script


def shop() -> World:
    """Redis, a migration, gunicorn, Celery and beat, all serving."""
    world = World(
        make_spec("redis", "copies"),
        make_spec("migrate", "once", script=WORK, after=("redis",)),
        make_spec("web", "inplace", 2, after=("migrate",)),
        make_spec("worker", "nodes", 4, after=("migrate",)),
        make_spec("beat", "single", after=("worker",)),
    )
    world.advance(10.0)
    return world


def ids(world: World, pool: str = "") -> list[str]:
    return [process.id for process in world.living(pool)]


def lines(world: World, *words: str) -> list[str]:
    """The transcript's lines that hold all the words."""
    return [line for line in world.log if all(word in line for word in words)]


def test_the_shop_starts_in_order_and_then_sleeps() -> None:
    world = shop()
    spawned = [line.split()[3].partition(".")[0] for line in lines(world, "-> spawn")]
    assert spawned == ["redis", "migrate", "web", "worker", "worker", "beat"]
    assert world.wake_at is None


def test_the_shop_stops_in_reverse_and_nothing_is_left() -> None:
    world = shop()
    world.shut_down()
    world.advance(60.0)
    stopped = [line.split()[3].partition(".")[0] for line in lines(world, "-> signal")]
    assert stopped.index("beat") < stopped.index("worker") < stopped.index("redis")
    assert stopped.index("web") < stopped.index("redis")
    assert not world.host.processes


def test_a_deaf_program_is_killed_at_exactly_its_deadline() -> None:
    world = World(make_spec("web", "copies", script=DEAF, stop=(StopStep("TERM", 2.0), KILL)))
    world.advance(5.0)
    (process,) = world.living()
    world.stop("web")
    began = world.now
    world.advance(10.0)
    assert process.signals == [(began, "TERM"), (began + 2.0, "KILL")]


def test_a_second_signal_changes_nothing_and_a_third_kills() -> None:
    world = World(make_spec("web", "copies", script=DEAF))
    world.advance(5.0)
    (process,) = world.living()
    world.shut_down()
    first = list(process.signals)
    world.advance(1.0)
    world.shut_down()
    assert process.signals == first
    world.kill_now()
    world.advance(0.0)
    assert [name for _, name in process.signals] == ["TERM", "KILL"]
    assert not world.living()


@pytest.mark.parametrize("script", BAD)
def test_a_bad_generation_is_tried_once_and_the_old_one_never_stops(script: Script) -> None:
    world = shop()
    before = ids(world, "worker")
    world.reload_with(make_spec("worker", "nodes", 4, script, after=("migrate",)))
    world.advance(30.0)
    assert ids(world, "worker") == before
    assert len(lines(world, "spawn worker", "@g2")) == 1
    assert lines(world, "conclude-rollout worker: g2 rolled-back")


def test_a_generation_that_crashes_later_is_restarted_not_rolled_back() -> None:
    world = World(make_spec("web", "copies", 2))
    world.advance(5.0)
    world.reload_with(make_spec("web", "copies", 2, CRASH_LATER))
    world.advance(9.0)
    assert lines(world, "conclude-rollout web: g2 succeeded")
    assert lines(world, "spawn web.0@g2", "restart 1: killed by SIGSEGV")


def test_a_reload_that_changes_one_pool_touches_no_other() -> None:
    world = shop()
    before = {pool: ids(world, pool) for pool in ("redis", "worker", "beat")}
    world.reload_with(make_spec("web", "inplace", 2, SLOW, after=("migrate",)))
    world.advance(30.0)
    assert {pool: ids(world, pool) for pool in before} == before
    assert [p.partition("@")[2][:2] for p in ids(world, "web")] == ["g2"]


def test_beat_is_never_there_twice() -> None:
    world = shop()
    world.reload_with(make_spec("beat", "single", script=ORPHANS, after=("worker",)))
    world.advance(10.0)
    world.restart("beat")
    world.advance(1.0)
    assert len(ids(world, "beat")) == 1, "what the old one left still lives, so the new one waits"
    world.advance(10.0)
    assert len(ids(world, "beat")) == 1
    assert world.living("beat")[0].serves(world.now)


def test_a_crash_is_restarted_at_once_and_its_dependents_stay() -> None:
    world = shop()
    web = ids(world, "web")
    (redis,) = ids(world, "redis")
    world.crash(redis, Exit(signal=9))
    world.advance(0.0)
    assert lines(world, "spawn redis.0", "restart 1: killed by SIGKILL")
    world.advance(5.0)
    assert ids(world, "web") == web


def test_a_program_that_dies_at_once_gives_up_with_the_reason() -> None:
    restart = RestartPolicy(backoff_initial_seconds=0.5, jitter=0.0, intensity_restarts=3)
    world = World(make_spec("web", "copies", script=CRASH_AT_BOOT, restart=restart))
    world.advance(60.0)
    assert len(lines(world, "-> spawn")) == 4
    failed = world.observed.pool("web").slots[0, 1].failed
    assert failed == "more than 3 restarts within 120 s; the last: exited with code 1"
    assert world.wake_at is None


def test_the_daemons_death_costs_nobody_anything() -> None:
    world = shop()
    before = ids(world)
    world.kill_daemon(3.0)
    world.advance(30.0)
    assert ids(world) == before
    assert all(process.serves(world.now) for process in world.living())
    assert len(lines(world, "spawn migrate")) == 1, "a success is not run again"


def test_a_success_that_no_daemon_saw_is_not_run_again() -> None:
    world = World(make_spec("migrate", "once", script=WORK), make_spec("web", "copies", after=("migrate",)))
    world.advance(0.5)
    world.kill_daemon(5.0)
    world.advance(5.0)
    assert len(lines(world, "spawn migrate")) == 1
    assert ids(world, "web")


@pytest.mark.parametrize("canary", [True, False])
@pytest.mark.parametrize("age", [2.0, 4.9, 5.5])
def test_a_daemons_death_promotes_no_generation_that_hangs(age: float, *, canary: bool) -> None:
    world = shop()
    before = ids(world, "worker")
    rollout = RolloutPolicy(1, 0, 0.5, canary=canary)
    world.reload_with(make_spec("worker", "nodes", 4, HANG_AT_BOOT, after=("migrate",), rollout=rollout))
    world.advance(age - 1.0)
    world.kill_daemon(1.0)
    world.advance(30.0)
    assert ids(world, "worker") == before
    assert lines(world, "conclude-rollout worker: g2 rolled-back")


def test_what_a_new_daemon_found_starting_is_not_replaced_before_anything_serves() -> None:
    world = World(make_spec("web", "copies", 3))
    world.advance(0.013)
    world.kill_daemon(0.1)
    before = set(ids(world))
    world.restart("web")
    world.advance(0.01)
    assert before < set(ids(world))
    world.advance(30.0)
    assert before.isdisjoint(ids(world))


def test_a_daemon_that_dies_in_the_middle_of_a_rollout_goes_on_with_it() -> None:
    world = shop()
    world.reload_with(make_spec("worker", "nodes", 4, SLOW, after=("migrate",)))
    world.advance(3.0)
    world.kill_daemon(1.0)
    world.advance(30.0)
    assert {p.partition("@")[2][:2] for p in ids(world, "worker")} == {"g2"}
    assert lines(world, "conclude-rollout worker: g2 succeeded")


def test_a_failing_oneshot_is_tried_again_and_holds_the_others_back() -> None:
    world = World(make_spec("migrate", "once", script=LOSING), make_spec("web", "copies", after=("migrate",)))
    world.advance(1.0)
    assert len(lines(world, "spawn migrate")) == 2
    assert not ids(world, "web")
    world.reload_with(make_spec("migrate", "once", script=WORK))
    world.advance(10.0)
    assert ids(world, "web")


def test_a_long_drain_keeps_no_crashed_worker_down() -> None:
    world = World(make_spec("web", "copies", 3, DEAF, stop=(StopStep("TERM", 600.0), KILL)))
    world.advance(5.0)
    world.reload_with(make_spec("web", "copies", 3, GOOD))
    world.advance(60.0)
    (new,) = [p for p in world.living("web") if "@g2" in p.id]
    world.crash(new.id, Exit(code=1))
    world.advance(1.0)
    assert {world.slot_of(p.id) for p in world.living("web") if p.serves(world.now)} == {0, 1, 2}


def test_scale_in_place_survives_a_driver_that_forgets() -> None:
    world = shop()
    (process,) = world.living("web")
    world.lost_scales = 2
    world.scale("web", 5)
    world.advance(25.0)
    assert process.workers == 5
    assert ids(world, "web") == [process.id]


def test_policies_take_hold_without_touching_anything() -> None:
    world = shop()
    before = ids(world)
    spec = replace(world.specs["worker"], stop=PATIENT[1:], rollout=RolloutPolicy(0, 1))
    world.reload_with(spec)
    world.advance(5.0)
    assert ids(world) == before


def test_one_by_one_there_are_never_fewer_workers_and_never_two_more() -> None:
    policy = RolloutPolicy(1, 0, 0.5, one_by_one="always")
    world = World(make_spec("web", "inplace", 4, rollout=policy))
    world.advance(5.0)
    world.reload_with(make_spec("web", "inplace", 4, rollout=policy))
    seen = set()
    while world.intent.pools["web"].previous is not None:
        world.advance(0.01)
        running = [p for p in world.serving("web") if p.runs and not p.stop_asked]
        serving = sum(p.workers or 0 for p in running if p.serves(world.now))
        assert 4 <= serving <= sum(p.workers or 0 for p in running) <= 5
        seen.add(tuple(p.workers for p in running))
    assert {(4,), (4, 1), (3, 1), (3, 2), (2, 2), (2, 3), (1, 3), (1, 4)} <= seen


def test_a_rollback_on_the_way_one_by_one_never_has_fewer_workers_and_never_two_more() -> None:
    policy = RolloutPolicy(1, 0, 0.5, one_by_one="always")
    world = World(make_spec("web", "inplace", 4, rollout=policy))
    world.advance(5.0)
    (old,) = world.living("web")
    world.reload_with(make_spec("web", "inplace", 4, rollout=policy))
    while old.workers != 1:
        world.advance(0.01)
    world.rollback("web")
    too_late = world.now + 60.0
    while ids(world, "web") != [old.id]:
        running = [p for p in world.serving("web") if p.runs and not p.stop_asked]
        serving = sum(p.workers or 0 for p in running if p.serves(world.now))
        assert 4 <= serving <= sum(p.workers or 0 for p in running) <= 5
        world.advance(0.01)
        assert world.now < too_late
    assert old.workers == 4
