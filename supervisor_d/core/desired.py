"""Intent: the accepted config, what operators decided, and the rollout under way.  Frozen; the runtime replaces it.

Shutdown, pause and rollback are values here, never code paths of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from supervisor_d.core.process import Policy
from supervisor_d.core.spec import Role, RolloutPolicy


@dataclass(frozen=True, slots=True)
class Rollout:
    """A rolling change in progress: from which generation to which, why and since when (monotonic)."""

    from_generation: int
    to_generation: int
    reason: str
    began_at: float
    one_by_one: bool = False
    """Workers take over one at a time (core/handover.py)."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A rollout whose new generation still has a gate to pass (core/trial.py); meanwhile the old one is wanted."""

    generation: int
    gate: Role
    """What is tried now; `serve` while it waits for its turn."""
    policy: Policy
    min_ready_seconds: float
    reason: str
    workers: int = 1
    waits_for: tuple[str, ...] = ()
    """The pools of the same deploy that are to roll before."""
    doomed: str = ""
    """Why it cannot succeed any more, whatever it would show."""


@dataclass(frozen=True, slots=True)
class DesiredPool:
    """What is wanted of one pool, as far as planning must know."""

    name: str
    generation: int
    sizes: tuple[int, ...]
    """Workers per slot; its length is the number of processes."""
    policy: Policy
    rollout_policy: RolloutPolicy = RolloutPolicy()
    after: tuple[str, ...] = ()
    running: bool = True
    """False once an operator stopped it, or while the daemon shuts down, or when it left the config."""
    stop_reason: str = ""
    """Why it is not to run."""
    removed: bool = False
    """It left the config: drop its facts when nothing is left."""
    epoch: int = 0
    """Counts the operator's starts; dependencies are awaited once for each."""
    rollout: Rollout | None = None
    trial: Trial | None = None
    """A new generation that is tried out; everything else here speaks of the old one then."""


@dataclass(frozen=True, slots=True)
class Desired:
    """What is wanted of the whole host."""

    pools: Mapping[str, DesiredPool] = field(default_factory=dict)
    starts_at_once: int = 8
    """How many processes may be between spawn and ready, on the whole host."""
    kill_now: bool = False
    """Every stop list jumps to KILL (the third signal)."""
