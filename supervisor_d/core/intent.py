"""The accepted config and what operators decided on top of it: the persisted source of Desired.

Every function takes an Intent and returns the next one; core/derive.py makes of it what planning needs.  A rollout is a
record here: the generation it came from and its spec, so that a rollback knows where to go, whoever reads it.

Worked example: `web` runs g1; a reload brings another digest.  `accept` keeps g1's spec as `previous` and makes g2
the wanted one.  `conclude(succeeded)` drops `previous`; `conclude(rolled-back)` makes it the wanted one again, and
the next reload of the same file is a new try, as generation g3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

from supervisor_d.core.actions import ConcludeRollout, PassGate
from supervisor_d.core.spec import PoolSpec, Role


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
    gated: bool = True
    """Whether the program's gates are to be passed: there is an old generation that serves meanwhile."""
    passed: tuple[Role, ...] = ()
    """The gates that were passed."""
    label: str = ""
    """The deploy that it is a part of, by the operator's word for it."""
    turn_after: tuple[str, ...] = ()
    """The pools of the same deploy that roll before."""
    short_of_memory: str = ""
    """Why there is no memory for both generations at once; empty when there is."""
    once: bool = False
    """It is a oneshot's: what it did cannot be taken back by doing something else."""
    scales: bool = False
    """Whether an operator's `scale` waits for its success, and then wants `workers`."""
    workers: int | None = None

    def together(self, other: RolloutRecord | None) -> bool:
        """Whether the other one belongs to the same deploy."""
        return other is not None and self.label != "" and (self.label, self.began_at) == (other.label, other.began_at)


RETIRED_MAX = 4
"""Of generations whose processes may still be ending their work."""


@dataclass(frozen=True, slots=True)
class PoolIntent:
    """What is wanted of one pool, and by whom."""

    wanted: Version
    previous: Version | None = None
    """Where a rollback goes; None when no rollout is under way."""
    former: Version | None = None
    """What ruled before the last rollout that succeeded: where `rollback` goes."""
    retired: tuple[Version, ...] = ()
    """The last generations that are wanted no more: their processes may still end their work, and are looked after."""
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
        return self.workers_of(self.wanted)

    def workers_of(self, version: Version) -> int:
        """How many workers that version is to have: the operator's number, or its own."""
        return version.spec.workers if self.workers is None else self.workers


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
        former = old.former if same else old.wanted
        pools[name] = PoolIntent(Version(number, spec), former=former, workers=workers, latest_generation=latest)
    return replace(intent, pools=pools, stopping="", kill_now=False)


def revived(intent: Intent) -> Intent:
    """Go on after a daemon's death: all that was decided stands, but for its own end, if it was about to come."""
    return replace(intent, stopping="", kill_now=False)


def _renewed(old: PoolIntent, spec: PoolSpec, now: float, reason: str) -> PoolIntent:
    current = old.wanted.spec
    if spec.workers != current.workers:
        old = _scaled(old, None)
    if spec.digest == current.digest and spec.program == current.program:
        # A rollout that was spared its gates may serve already: it does not go back behind them.
        record = old.rollout and replace(old.rollout, gated=old.rollout.gated and spec.rollout.canary)
        return replace(old, wanted=Version(old.wanted.generation, spec), rollout=record)
    return _rolled(old, spec, now, reason)


def _rolled(old: PoolIntent, spec: PoolSpec, now: float, reason: str) -> PoolIntent:
    """A new generation; a rollout that is under way keeps the version it would go back to."""
    number = old.latest_generation + 1
    back_to = old.previous or old.wanted
    gated = old.running and spec.rollout.canary  # decided once: it must not go back behind its gates
    record = RolloutRecord(back_to.generation, number, reason, now, gated=gated)
    if old.previous is not None and old.rollout is not None:
        record = replace(record, scales=old.rollout.scales, workers=old.rollout.workers)
    retired = old.retired if old.previous is None else _retired(old, old.wanted)
    return replace(
        old, wanted=Version(number, spec), previous=back_to, retired=retired, rollout=record, latest_generation=number
    )


def _retired(pool: PoolIntent, version: Version) -> tuple[Version, ...]:
    return (version, *pool.retired)[:RETIRED_MAX]


def _each(intent: Intent, names: tuple[str, ...], change: Callable[[PoolIntent], PoolIntent]) -> Intent:
    changed = {name: change(intent.pools[name]) for name in names}
    return replace(intent, pools={**intent.pools, **changed})


def scale(intent: Intent, name: str, workers: int | None) -> Intent:
    """An operator wants that many workers, until a reload changes the pool's own number; None: as configured."""
    return _each(intent, (name,), lambda pool: _scaled(pool, workers))


def _scaled(pool: PoolIntent, workers: int | None) -> PoolIntent:
    """A number that waits behind a rollout is overtaken."""
    return replace(pool, workers=workers, rollout=pool.rollout and replace(pool.rollout, scales=False))


def scale_once_rolled(intent: Intent, name: str, workers: int | None, now: float, reason: str) -> Intent:
    """The same, once a rollout has shown that new workers can be had."""

    def waiting(pool: PoolIntent) -> PoolIntent:
        return replace(pool, rollout=pool.rollout and replace(pool.rollout, scales=True, workers=workers))

    return _each(restart(intent, (name,), now, reason), (name,), waiting)


def stop(intent: Intent, names: tuple[str, ...], reason: str) -> Intent:
    """Stop pools until they are started again.  A rollout under way has nobody left to be gentle to."""

    def stopped(pool: PoolIntent) -> PoolIntent:
        rollout = replace(pool.rollout, gated=False) if pool.rollout is not None else None
        return replace(pool, running=False, stop_reason=reason, rollout=rollout)

    return _each(intent, names, stopped)


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
    """Keep the new generation, or go back.  A verdict on a generation that is no longer wanted changes nothing.

    A deploy is one thing: when a pool of it fails, those that had rolled before go back too.
    """
    pool = intent.pools[action.pool]
    if pool.previous is None or pool.rollout is None or pool.wanted.generation != action.generation:
        return intent
    ended = _ended(pool, pool.previous, pool.rollout, action.verdict, action.reason, now)
    after = replace(intent, pools={**intent.pools, action.pool: ended})
    return _undone(after, action.pool, pool.rollout, now) if action.verdict == "rolled-back" else after


def _ended(
    pool: PoolIntent, previous: Version, record: RolloutRecord, verdict: str, reason: str, now: float
) -> PoolIntent:
    back = verdict == "rolled-back"
    return replace(
        pool,
        workers=record.workers if record.scales and not back else pool.workers,
        wanted=previous if back else pool.wanted,
        previous=None,
        retired=_retired(pool, pool.wanted if back else previous),
        former=pool.former if back or _same(previous, pool.wanted) else previous,
        rollout=replace(record, verdict=verdict, verdict_reason=reason, ended_at=now),
        rollouts_total={**pool.rollouts_total, verdict: pool.rollouts_total.get(verdict, 0) + 1},
    )


def _same(one: Version, other: Version) -> bool:
    return one.spec.digest == other.spec.digest and one.spec.program == other.spec.program


def _before(pool: PoolIntent, record: RolloutRecord) -> Version | None:
    """What ruled before that rollout, which succeeded; None when it was the same: older ones are no part of it."""
    return pool.former if pool.former is not None and pool.former.generation == record.from_generation else None


def _undone(intent: Intent, failed: str, record: RolloutRecord, now: float) -> Intent:
    """The other pools of a deploy that failed go back to what they were, as far as that is something else."""
    reason = f"{failed} was rolled back, and with it the deploy {record.label}"
    pools = dict(intent.pools)
    for name, pool in intent.pools.items():
        rollout = pool.rollout
        if rollout is None or rollout.once or not record.together(rollout):
            continue
        if pool.previous is not None and failed not in rollout.turn_after:
            pools[name] = _ended(pool, pool.previous, rollout, "rolled-back", reason, now)
        elif rollout.verdict == "succeeded" and (former := _before(pool, rollout)) is not None:
            pools[name] = _way_back(pool, former, rollout, now, reason)
    return replace(intent, pools=pools)


def _way_back(pool: PoolIntent, former: Version, record: RolloutRecord, now: float, reason: str) -> PoolIntent:
    """A rollout to what ruled before: memory that was short on the way there is short on the way back."""
    back = _rolled(pool, former.spec, now, reason)
    return replace(back, rollout=back.rollout and replace(back.rollout, short_of_memory=record.short_of_memory))


def pass_gate(intent: Intent, action: PassGate) -> Intent:
    """Write down that a gate was passed.  One of a generation that is no longer wanted changes nothing."""
    pool = intent.pools[action.pool]
    if pool.previous is None or pool.rollout is None or pool.wanted.generation != action.generation:
        return intent
    record = replace(pool.rollout, passed=(*pool.rollout.passed, action.gate))
    return replace(intent, pools={**intent.pools, action.pool: replace(pool, rollout=record)})


def deploy(intent: Intent, names: tuple[str, ...], once: frozenset[str], label: str, now: float) -> Intent:
    """Make one deploy of the rollouts that begin at `now`, and of those of `names` that have none: each waits for the
    others that it comes after, near and far.  `once` are the oneshots among them."""
    begun = {n for n, p in intent.pools.items() if p.previous is not None and p.rollout and p.rollout.began_at == now}
    rolled = restart(intent, tuple(name for name in names if name not in begun), now, f"deploy {label}")
    members = begun | set(names)
    pools = dict(rolled.pools)
    for name in members:
        record = pools[name].rollout
        assert record is not None
        turn = tuple(sorted(come_before({name}, rolled) & members))
        record = replace(record, label=label, turn_after=turn, once=name in once, reason=f"deploy {label}")
        pools[name] = replace(pools[name], rollout=record)
    return replace(rolled, pools=pools)


def come_before(names: AbstractSet[str], intent: Intent) -> set[str]:
    """All pools that any of `names` comes after, near and far."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        nearer = [n for n in intent.pools[waiting.pop()].wanted.spec.after if n in intent.pools and n not in found]
        found.update(nearer)
        waiting.extend(nearer)
    return found


def short_of_memory(intent: Intent, pools: Mapping[str, str], now: float) -> Intent:
    """Write down why there is no memory for both generations of these pools, whose rollouts begin at `now`."""

    def noted(pool: PoolIntent, why: str) -> PoolIntent:
        record = pool.rollout
        begins = pool.previous is not None and record is not None and record.began_at == now
        return replace(pool, rollout=replace(record, short_of_memory=why)) if begins and record else pool

    changed = {name: noted(intent.pools[name], why) for name, why in pools.items() if name in intent.pools}
    return replace(intent, pools={**intent.pools, **changed})


def rollback(intent: Intent, names: tuple[str, ...], now: float, reason: str) -> Intent:
    """Go back to what ruled before the last rollout that succeeded, by a rollout; one under way is given up instead.

    The pools of a deploy that is given up go back together, to what ruled before it and no further.
    """
    before = intent.pools
    under_way = {name: before[name].rollout for name in names if before[name].previous is not None}
    for name in under_way:
        given_up = ConcludeRollout(name, before[name].wanted.generation, "rolled-back", reason)
        intent = conclude(intent, given_up, now)  # without effect, if another one took it back already
    for name in names:
        pool = before[name]
        given_up_with = any(record.together(pool.rollout) for record in under_way.values() if record is not None)
        if name in under_way or pool.former is None or given_up_with:
            continue
        intent = replace(intent, pools={**intent.pools, name: _rolled(pool, pool.former.spec, now, reason)})
    return intent


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


def known_spec(intent: Intent, pool: str, generation: int) -> PoolSpec | None:
    """The same, or the spec of a generation whose processes may be ending."""
    known = intent.pools.get(pool)
    retired = (v.spec for v in known.retired if v.generation == generation) if known is not None else iter(())
    return spec_of(intent, pool, generation) or next(retired, None)


def on_trial(intent: Intent, pool: str, generation: int) -> bool:
    """Whether a rollout is trying that generation out."""
    wanted = intent.pools.get(pool)
    return wanted is not None and wanted.previous is not None and wanted.wanted.generation == generation
