"""The programs of the simulated world, and specs of its pools.  A spec's `keys` is the Script its processes follow."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

from supervisor_d.core.derive import Kinds
from supervisor_d.core.process import Exit
from supervisor_d.core.spec import PoolSpec, RestartPolicy, Role, RolloutPolicy, StopStep, Traits
from tests.support.fake_host import Script

KILL = StopStep("KILL")
PATIENT = (StopStep("TERM", 3.0), StopStep("QUIT", 2.0), KILL)
LADDER = (
    StopStep("DRAIN", 1.0), StopStep("TERM", 3.0, 8.0), StopStep("QUIT", 2.0), StopStep("KILL-WORKERS", 1.0), KILL,
)  # fmt: skip
NODE_SIZE = 2

Sizes = Callable[[int], tuple[int, ...]]


def _nodes(workers: int) -> tuple[int, ...]:
    full, rest = divmod(workers, NODE_SIZE)
    return (NODE_SIZE,) * full + ((rest,) if rest else ())


def _one(workers: int) -> tuple[int, ...]:
    return (1,) if workers else ()


GATES: Mapping[str, tuple[Role, ...]] = {"inplace": ("preflight", "canary"), "nodes": ("canary",)}

PROGRAMS: Mapping[str, tuple[Traits, Sizes]] = {
    "inplace": (
        Traits(scale_in_place=True, respawn="at-exit", ready_by="driver"),
        lambda workers: (workers,) if workers else (),
    ),
    "nodes": (
        Traits(
            scale_in_place=True,
            respawn="when-empty",
            ready_by="driver",
            driver_steps=("DRAIN", "KILL-WORKERS"),
            aftercare=True,
        ),
        _nodes,
    ),
    "copies": (Traits(respawn="when-empty"), lambda workers: (1,) * workers),
    "single": (Traits(exclusive=True), _one),
    "once": (Traits(oneshot=True), _one),
}
"""One for each kind of program that supervisor_d.programs has."""


def traits_of(spec: PoolSpec) -> Traits:
    """The traits of a spec's program."""
    return PROGRAMS[spec.program][0]


def sizes(spec: PoolSpec, workers: int) -> tuple[int, ...]:
    """How a spec's program spreads workers over slots."""
    return PROGRAMS[spec.program][1](workers)


def gates_of(spec: PoolSpec) -> tuple[Role, ...]:
    """What a new generation of a spec must pass."""
    return GATES.get(spec.program, ()) if spec.rollout.canary else ()


KINDS = Kinds(traits_of, sizes, gates_of)

GOOD = Script()
SLOW = Script(start_seconds=0.5, ready_seconds=2.0)
ORPHANS = Script(orphan_seconds=4.0)
DEAF = Script(obeys={})
STUBBORN = Script(obeys={"KILL-WORKERS": 0.1}, drain_seconds=None)
UNSAFE = Script(obeys={"TERM": 6.0, "QUIT": 0.5}, unsafe_seconds=5.0)
FIXED = Script(resizable=False)
ENDLESS = Script(obeys={"QUIT": 0.5}, unsafe_seconds=1000.0)
WORK = Script(ready_seconds=0.0, exit_seconds=1.5, exit=Exit(code=0))
LOSING = Script(ready_seconds=0.0, exit_seconds=0.5, exit=Exit(code=3))
CRASH_AT_BOOT = Script(exit_seconds=0.05)
HANG_AT_BOOT = Script(ready_seconds=None)
REFUSED = Script(refused="cannot fork: resource temporarily unavailable")
CRASH_LATER = Script(exit_seconds=7.0, exit=Exit(signal=11))

IMPORTS = Script(ready_seconds=None, exit_seconds=0.2, exit=Exit(code=0))
REFUSES = Script(ready_seconds=None, exit_seconds=0.2, exit=Exit(code=1))
"""As a preflight: it imports, and it doesn't."""

BAD = (CRASH_AT_BOOT, HANG_AT_BOOT, REFUSED)

_digests = itertools.count(1)


def is_bad(script: Script) -> bool:
    """Whether it never comes to serve."""
    return script in BAD


def make_spec(name: str, program: str, workers: int = 1, script: Script = GOOD, **others: Any) -> PoolSpec:
    """A pool's spec with short times; each one is a generation of its own."""
    values: dict[str, Any] = {
        "stop": LADDER if program == "nodes" else PATIENT,
        "restart": RestartPolicy(
            when="on-failure" if program == "once" else "always",
            backoff_initial_seconds=0.5,
            backoff_max_seconds=4.0,
            stable_seconds=3.0,
            intensity_restarts=5,
            intensity_period_seconds=30.0,
        ),
        "rollout": RolloutPolicy(0, 1) if program in ("single", "once") else RolloutPolicy(1, 0, 0.5),
        "start_timeout_seconds": 5.0,
        "digest": f"digest {next(_digests)}",
    }
    return PoolSpec(name, program, workers, script, **{**values, **others})
