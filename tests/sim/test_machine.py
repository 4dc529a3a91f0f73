"""Hypothesis plays operator and fate in a simulated world; Invariants watches; in the end everything must come right.

A failure prints the seed, the shortest steps that lead to it, a transcript, and a `@reproduce_failure(...)` blob.  To
replay: put the blob above `class WorldMachine` as a decorator, or run again with the `--hypothesis-seed` that pytest's
header names; Hypothesis also keeps the example in `.hypothesis/` and tries it first the next time.  CI always plays the
same 1,000 examples, so that it says of the same code the same; `make fuzz` looks for new ones.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from supervisor_d.core.process import Exit
from supervisor_d.core.spec import PoolSpec, RolloutPolicy, StopStep
from tests.sim.pools import (
    BAD,
    CRASH_AT_BOOT,
    CRASH_LATER,
    DEAF,
    ENDLESS,
    FIXED,
    GOOD,
    KILL,
    LADDER,
    LOSING,
    ORPHANS,
    PATIENT,
    REFUSED,
    SLOW,
    STUBBORN,
    UNSAFE,
    WORK,
    make_spec,
)
from tests.sim.world import World

SCRIPTS = (GOOD, SLOW, ORPHANS, DEAF, STUBBORN, UNSAFE, ENDLESS, FIXED, WORK, LOSING, CRASH_LATER, *BAD)
ONCE_SCRIPTS = (WORK, LOSING, CRASH_AT_BOOT, REFUSED, CRASH_LATER)
STOPS = (PATIENT, LADDER, (StopStep("TERM", 1.0), KILL), (KILL,))
ROLLOUTS = (
    RolloutPolicy(1, 0, 0.5),
    RolloutPolicy(1, 0),
    RolloutPolicy(0, 1),
    RolloutPolicy(2, 1, 0.3),
    RolloutPolicy(0, 0),
    RolloutPolicy(1, 0, 0.5, one_by_one="always"),
    RolloutPolicy(1, 0, canary=False),
)
SECONDS = (0.0, 0.004, 0.013, 0.1, 0.35, 1.0, 3.0, 6.0, 20.0)
CALM_SECONDS = 150.0

LAYOUTS: tuple[tuple[tuple[str, str, int, tuple[str, ...]], ...], ...] = (
    (("db", "copies", 1, ()), ("migrate", "once", 1, ("db",)), ("web", "inplace", 2, ("migrate",))),
    (("db", "copies", 1, ()), ("tasks", "nodes", 5, ("db",))),
    (("beat", "single", 1, ()), ("job", "copies", 3, ("beat",))),
    (("web", "inplace", 2, ()), ("tasks", "nodes", 3, ()), ("beat", "single", 1, ("tasks",))),
)

PICK = st.integers(0, 9)


class WorldMachine(RuleBasedStateMachine):
    """Every rule is one thing that an operator or fate may do."""

    @initialize(
        layout=st.sampled_from(LAYOUTS),
        starts=st.sampled_from((8, 1)),
        ending=st.sampled_from(("calm", "calm", "stop", "hurry", "die")),
        rollout=st.sampled_from(ROLLOUTS),
        serves=st.booleans(),
    )
    def begin(self, layout: tuple[Any, ...], starts: int, ending: str, rollout: RolloutPolicy, *, serves: bool) -> None:
        specs = [
            make_spec(name, program, workers, WORK if program == "once" else GOOD, after=after, rollout=rollout)
            for name, program, workers, after in layout
        ]
        self.ending = ending
        self.all = {spec.name: spec for spec in specs}
        self.world = World(*specs, starts_at_once=starts)
        if serves:
            self.world.advance(6.0)

    def _spec(self, pick: int) -> PoolSpec:
        return list(self.world.specs.values())[pick % len(self.world.specs)]

    def _live(self) -> list[str]:
        return [p.id for p in self.world.living() if p.runs]

    @rule(seconds=st.sampled_from(SECONDS))
    def time_passes(self, seconds: float) -> None:
        self.world.advance(seconds)

    @rule(pick=PICK, script=st.sampled_from(SCRIPTS), seconds=st.sampled_from(SECONDS))
    def reload_new_code(self, pick: int, script: Any, seconds: float) -> None:
        old = self._spec(pick)
        if old.program == "once" and script not in ONCE_SCRIPTS:
            script = WORK
        spec = make_spec(
            old.name, old.program, old.workers, script, after=old.after, stop=old.stop, rollout=old.rollout
        )
        self.world.reload_with(spec)
        self.world.advance(seconds)

    @rule(pick=PICK, stop=st.sampled_from(STOPS), rollout=st.sampled_from(ROLLOUTS), workers=st.integers(0, 6))
    def reload_policy(self, pick: int, stop: Any, rollout: RolloutPolicy, workers: int) -> None:
        old = self._spec(pick)
        workers = {"single": min(workers, 1), "once": 1}.get(old.program, workers)
        self.world.reload_with(replace(old, stop=stop, rollout=rollout, workers=workers))

    @precondition(lambda self: len(self.world.specs) > 1)
    @rule(pick=PICK)
    def reload_without(self, pick: int) -> None:
        gone = self._spec(pick).name
        left = {name: spec for name, spec in self.world.specs.items() if name != gone}
        self.world.reload(*(replace(s, after=tuple(a for a in s.after if a != gone)) for s in left.values()))

    @precondition(lambda self: len(self.world.specs) < len(self.all))
    @rule()
    def reload_with_all(self) -> None:
        self.world.reload(*{**self.all, **self.world.specs}.values())

    @rule(pick=PICK, workers=st.one_of(st.none(), st.integers(0, 6)))
    def scale(self, pick: int, workers: int | None) -> None:
        spec = self._spec(pick)
        if spec.program not in ("single", "once"):
            self.world.scale(spec.name, workers)

    @rule(pick=PICK)
    def stop(self, pick: int) -> None:
        self.world.stop(self._spec(pick).name)

    @rule(pick=PICK)
    def start(self, pick: int) -> None:
        self.world.start(self._spec(pick).name)

    @rule(pick=PICK, seconds=st.sampled_from(SECONDS))
    def restart(self, pick: int, seconds: float) -> None:
        self.world.restart(self._spec(pick).name)
        self.world.advance(seconds)

    @precondition(lambda self: self._live())
    @rule(pick=PICK, ended=st.sampled_from((Exit(code=0), Exit(code=1), Exit(signal=9), Exit(signal=9, oom=True))))
    def crash(self, pick: int, ended: Exit) -> None:
        live = self._live()
        self.world.crash(live[pick % len(live)], ended)

    @precondition(lambda self: self._live())
    @rule(pick=PICK)
    def hang(self, pick: int) -> None:
        live = self._live()
        self.world.hang(live[pick % len(live)])

    @precondition(lambda self: self._live())
    @rule(pick=PICK)
    def lose_shim(self, pick: int) -> None:
        live = self._live()
        self.world.lose_shim(live[pick % len(live)])

    @rule(seconds=st.sampled_from(SECONDS[:8]), before=st.sampled_from(SECONDS[:5]))
    def kill_daemon(self, seconds: float, before: float) -> None:
        self.world.advance(before)
        self.world.kill_daemon(seconds)

    @rule(effects=st.integers(0, 4))
    def die_midway(self, effects: int) -> None:
        self.world.dies_after = effects

    @rule(spawns=st.integers(1, 3))
    def refuse_spawns(self, spawns: int) -> None:
        self.world.refusals = spawns

    @rule(restores=st.integers(1, 6))
    def lose_restores(self, restores: int) -> None:
        self.world.lost_restores = restores

    @rule(scales=st.integers(1, 2))
    def lose_scales(self, scales: int) -> None:
        self.world.lost_scales = scales

    def teardown(self) -> None:
        if not hasattr(self, "world") or self.world.broken:
            return
        try:
            self._end()
        except AssertionError as error:
            if not self.world.broken:
                error.add_note(self.world.story())
            raise

    def _end(self) -> None:
        world = self.world
        if self.ending == "calm":
            _comes_right(world)
        world.dies_after = None
        world.lost_restores = 0
        world.shut_down()
        if self.ending == "hurry":
            world.kill_now()
        if self.ending == "die":
            world.dies_after = 1
            world.advance(0.1)
            world.dies_after = None
            world.shut_down()
        world.advance(60.0)
        assert not world.living()
        assert not list(world.observed.processes())
        assert not world.host.processes, "records are left"


def _comes_right(world: World) -> None:
    """Once programs and operators behave, every pool gets to where it should be, and stays there, within bounds."""
    world.calm = True
    world.refusals = world.lost_scales = world.lost_restores = 0
    world.dies_after = None
    world.start(*world.specs)
    world.advance(CALM_SECONDS)
    assert set(world.desired.pools) == set(world.specs), "a removed pool is still there"
    for name, pool in world.desired.pools.items():
        assert pool.rollout is None, f"{name} still rolls"
        living = {p.id for p in world.living(name)}
        if pool.policy.traits.oneshot:
            done = pool.generation in world.observed.pool(name).successes
            assert done or not pool.sizes, f"{name} has not succeeded"
            assert not living
            continue
        at = sorted((world.slot_of(p), world.generation_of(p)) for p in living)
        assert at == [(slot, pool.generation) for slot in range(len(pool.sizes))], f"{name} is not as wanted: {living}"
        assert all(world.host.processes[p].serves(world.now) for p in living), f"{name} does not serve"
        sizes = {world.observed.find(p).workers for p in living}  # type: ignore[union-attr]
        assert sizes <= set(pool.sizes), f"{name} has wrong sizes"
    assert world.wake_at is None, "an idle daemon has a timer"


EXAMPLES = int(os.environ.get("SUPERVISOR_D_SIM_EXAMPLES", "1000"))

WorldMachine.TestCase.settings = settings(max_examples=EXAMPLES, stateful_step_count=15, deadline=None)
# What is found is shortened, for up to five minutes.
TestWorld = pytest.mark.slow(pytest.mark.timeout(600 + EXAMPLES // 2)(WorldMachine.TestCase))
