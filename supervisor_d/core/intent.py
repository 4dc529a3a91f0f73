"""The accepted config and what operators decided on top of it: the persisted source of Desired.

Every function takes an Intent and returns the next one; `derive` makes of it what planning needs.  A rollout is a
record here: the generation it came from and its spec, so that a rollback knows where to go, whoever reads it.

Worked example: `web` runs g1; a reload brings another digest.  `accept` keeps g1's spec as `previous` and makes g2
the wanted one.  `conclude(succeeded)` drops `previous`; `conclude(rolled-back)` makes it the wanted one again, and
the next reload of the same file is a new try, as generation g3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from supervisor_d.core.actions import ConcludeRollout
from supervisor_d.core.desired import Desired, DesiredPool, Rollout
from supervisor_d.core.process import Policy
from supervisor_d.core.spec import PoolSpec, Traits

Sizes = Callable[[PoolSpec, int], tuple[int, ...]]
"""(spec, workers) -> workers per slot; the program's business."""
TraitsOf = Callable[[PoolSpec], Traits]


@dataclass(frozen=True, slots=True)
class Version:
    """One generation of a pool and the spec it stands for."""

    generation: int
    spec: PoolSpec


@dataclass(frozen=True, slots=True)
class RolloutRecord:
    """A rollout under way or ended.  Times are monotonic; `verdict` is empty while it is under way."""

    from_generation: int
    to_generation: int
    reason: str
    began_at: float
    verdict: str = ""
    verdict_reason: str = ""
    ended_at: float | None = None


@dataclass(frozen=True, slots=True)
class PoolIntent:
    """What is wanted of one pool, and by whom."""

    wanted: Version
    previous: Version | None = None
    """Where a rollback goes; None when no rollout is under way."""
    rollout: RolloutRecord | None = None
    """The rollout under way, or the last one that ended."""
    rollouts_total: Mapping[str, int] = field(default_factory=dict)
    latest_generation: int = 1
    """The highest number ever given: numbers are not used twice."""
    workers: int | None = None
    """The operator's `scale`; None follows the config."""
    running: bool = True
    stop_reason: str = ""
    removed: bool = False
    epoch: int = 0

    @property
    def wanted_workers(self) -> int:
        """How many workers are wanted now."""
        return self.wanted.spec.workers if self.workers is None else self.workers


@dataclass(frozen=True, slots=True)
class Intent:
    """What is wanted of the whole host."""

    pools: Mapping[str, PoolIntent] = field(default_factory=dict)
    starts_at_once: int = 8
    stopping: str = ""
    """Why the daemon ends with all its processes; empty while it does not."""
    kill_now: bool = False


def accept(intent: Intent, specs: Mapping[str, PoolSpec], now: float, *, reason: str) -> Intent:
    """Take over a whole config: new pools are added, missing ones removed, changed ones rolled or updated."""
    pools: dict[str, PoolIntent] = {}
    for name, spec in specs.items():
        old = intent.pools.get(name)
        if old is None:
            pools[name] = PoolIntent(Version(1, spec))
        elif old.removed:
            back = replace(old, removed=False, running=True, stop_reason="", epoch=old.epoch + 1, workers=None)
            pools[name] = _renewed(back, spec, now, reason)
        else:
            pools[name] = _renewed(old, spec, now, reason)
    for name, old in intent.pools.items():
        if name not in specs:
            pools[name] = replace(old, removed=True, running=False, stop_reason="it left the config")
    return replace(intent, pools=pools)


def begin(intent: Intent, specs: Mapping[str, PoolSpec]) -> Intent:
    """Start anew after a clean end: the config's pools all run, without rollouts.

    What stands of the past: `scale` where the config's own number is the same, and the generations' numbers.
    """
    pools: dict[str, PoolIntent] = {}
    for name, spec in specs.items():
        old = intent.pools.get(name)
        if old is None:
            pools[name] = PoolIntent(Version(1, spec))
            continue
        same = spec.digest == old.wanted.spec.digest and spec.program == old.wanted.spec.program
        number = old.wanted.generation if same else old.latest_generation + 1
        workers = old.workers if spec.workers == old.wanted.spec.workers else None
        latest = max(number, old.latest_generation)
        pools[name] = PoolIntent(Version(number, spec), workers=workers, latest_generation=latest)
    return replace(intent, pools=pools, stopping="", kill_now=False)


def revived(intent: Intent) -> Intent:
    """Go on after a daemon's death: all that was decided stands, but for its own end, if it was about to come."""
    return replace(intent, stopping="", kill_now=False)


def _renewed(old: PoolIntent, spec: PoolSpec, now: float, reason: str) -> PoolIntent:
    current = old.wanted.spec
    workers = old.workers if spec.workers == current.workers else None
    if spec.digest == current.digest and spec.program == current.program:
        return replace(old, wanted=Version(old.wanted.generation, spec), workers=workers)
    return _rolled(replace(old, workers=workers), spec, now, reason)


def _rolled(old: PoolIntent, spec: PoolSpec, now: float, reason: str) -> PoolIntent:
    """A new generation; a rollout that is under way keeps the version it would go back to."""
    number = old.latest_generation + 1
    back_to = old.previous or old.wanted
    record = RolloutRecord(back_to.generation, number, reason, now)
    return replace(old, wanted=Version(number, spec), previous=back_to, rollout=record, latest_generation=number)


def _each(intent: Intent, names: tuple[str, ...], change: Callable[[PoolIntent], PoolIntent]) -> Intent:
    changed = {name: change(intent.pools[name]) for name in names}
    return replace(intent, pools={**intent.pools, **changed})


def scale(intent: Intent, name: str, workers: int | None) -> Intent:
    """An operator wants that many workers, until a reload changes the pool's own number; None: as configured."""
    return _each(intent, (name,), lambda pool: replace(pool, workers=workers))


def stop(intent: Intent, names: tuple[str, ...], reason: str) -> Intent:
    """Stop pools until they are started again."""
    return _each(intent, names, lambda pool: replace(pool, running=False, stop_reason=reason))


def start(intent: Intent, names: tuple[str, ...]) -> Intent:
    """Start stopped pools; their dependencies are awaited anew."""

    def started(pool: PoolIntent) -> PoolIntent:
        if pool.running or pool.removed:
            return pool
        return replace(pool, running=True, stop_reason="", epoch=pool.epoch + 1)

    return _each(intent, names, started)


def restart(intent: Intent, names: tuple[str, ...], now: float, reason: str) -> Intent:
    """Replace the pools' processes by a rollout of the same spec."""
    return _each(intent, names, lambda pool: _rolled(pool, pool.wanted.spec, now, reason))


def conclude(intent: Intent, action: ConcludeRollout, now: float) -> Intent:
    """Keep the new generation, or go back.  A verdict on a generation that is no longer wanted changes nothing."""
    pool = intent.pools[action.pool]
    if pool.previous is None or pool.rollout is None or pool.wanted.generation != action.generation:
        return intent
    wanted = pool.previous if action.verdict == "rolled-back" else pool.wanted
    record = replace(pool.rollout, verdict=action.verdict, verdict_reason=action.reason, ended_at=now)
    totals = {**pool.rollouts_total, action.verdict: pool.rollouts_total.get(action.verdict, 0) + 1}
    ended = replace(pool, wanted=wanted, previous=None, rollout=record, rollouts_total=totals)
    return replace(intent, pools={**intent.pools, action.pool: ended})


def shut_down(intent: Intent, reason: str) -> Intent:
    """Everything is to stop, in reverse order of dependencies, and the daemon is to end."""
    return replace(intent, stopping=intent.stopping or reason)


def kill_now(intent: Intent) -> Intent:
    """Every stop list jumps to KILL."""
    return replace(intent, kill_now=True)


def with_starts_at_once(intent: Intent, starts_at_once: int) -> Intent:
    """Another bound on how many processes may be starting at a time."""
    return replace(intent, starts_at_once=starts_at_once)


def drop(intent: Intent, name: str) -> Intent:
    """Forget a removed pool of which nothing is left."""
    return replace(intent, pools={k: v for k, v in intent.pools.items() if k != name})


def spec_of(intent: Intent, pool: str, generation: int) -> PoolSpec | None:
    """The spec of a generation, as long as it is wanted or could be gone back to."""
    known = intent.pools.get(pool)
    versions = (known.wanted, known.previous) if known is not None else ()
    return next((v.spec for v in versions if v is not None and v.generation == generation), None)


def on_trial(intent: Intent, pool: str, generation: int) -> bool:
    """Whether a rollout is trying that generation out."""
    wanted = intent.pools.get(pool)
    return wanted is not None and wanted.previous is not None and wanted.wanted.generation == generation


def derive(intent: Intent, traits_of: TraitsOf, sizes: Sizes) -> Desired:
    """What planning needs to know of the intent."""
    pools = {name: _desired(name, pool, intent, traits_of, sizes) for name, pool in intent.pools.items()}
    return Desired(pools, starts_at_once=intent.starts_at_once, kill_now=intent.kill_now)


def _desired(name: str, pool: PoolIntent, intent: Intent, traits_of: TraitsOf, sizes: Sizes) -> DesiredPool:
    spec = pool.wanted.spec
    traits = traits_of(spec)
    rollout = None
    if pool.previous is not None and pool.rollout is not None and not traits.oneshot:
        record = pool.rollout
        rollout = Rollout(record.from_generation, record.to_generation, record.reason, record.began_at)
    return DesiredPool(
        name=name,
        generation=pool.wanted.generation,
        sizes=sizes(spec, pool.wanted_workers),
        policy=Policy(spec.stop, spec.restart, traits, spec.start_timeout_seconds),
        rollout_policy=spec.rollout,
        after=spec.after,
        running=pool.running and not intent.stopping,
        stop_reason=intent.stopping or pool.stop_reason,
        removed=pool.removed,
        epoch=pool.epoch,
        rollout=rollout,
    )
