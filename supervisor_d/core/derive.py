"""From the intent to what planning needs: which generation is wanted of each pool, and what is being tried out.

While a rollout's new generation has a gate to pass, or waits for its turn in a deploy, the old one is wanted as if
nothing had been asked, with as many workers as before, and the new one is a Trial beside it (core/trial.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from supervisor_d.core.desired import Desired, DesiredPool, Rollout, Trial
from supervisor_d.core.intent import Intent, PoolIntent, RolloutRecord, Version
from supervisor_d.core.process import Policy
from supervisor_d.core.spec import PoolSpec, Role, Traits


def no_gates(_: PoolSpec) -> tuple[Role, ...]:
    """Nothing is to be passed."""
    return ()


@dataclass(frozen=True, slots=True)
class Kinds:
    """What the programs say of their specs."""

    traits_of: Callable[[PoolSpec], Traits]
    sizes: Callable[[PoolSpec, int], tuple[int, ...]]
    """(spec, workers) -> workers per slot."""
    gates_of: Callable[[PoolSpec], tuple[Role, ...]] = no_gates
    """What a new generation must pass before it may serve, in order."""

    def policy(self, spec: PoolSpec) -> Policy:
        """What a process of that spec keeps for life."""
        return Policy(spec.stop, spec.restart, self.traits_of(spec), spec.start_timeout_seconds)


def derive(intent: Intent, kinds: Kinds) -> Desired:
    """What planning needs to know of the intent."""
    pools = {name: _desired(name, pool, intent, kinds) for name, pool in intent.pools.items()}
    return Desired(pools, starts_at_once=intent.starts_at_once, kill_now=intent.kill_now)


def _desired(name: str, pool: PoolIntent, intent: Intent, kinds: Kinds) -> DesiredPool:
    trial = _trial(pool, intent, kinds)
    version = pool.previous if trial is not None and pool.previous is not None else pool.wanted
    spec = version.spec
    return DesiredPool(
        name=name,
        generation=version.generation,
        sizes=kinds.sizes(spec, pool.workers_of(version)),
        policy=kinds.policy(spec),
        rollout_policy=spec.rollout,
        after=spec.after,
        running=pool.running and not intent.stopping,
        stop_reason=intent.stopping or pool.stop_reason,
        removed=pool.removed,
        epoch=pool.epoch,
        rollout=_rollout(pool, version, kinds),
        trial=trial,
    )


def _rollout(pool: PoolIntent, version: Version, kinds: Kinds) -> Rollout | None:
    """The rollout under way, if its turn has come.  A oneshot's is judged in a deploy only: else it is tried again."""
    record = pool.rollout
    if pool.previous is None or record is None or version is not pool.wanted:
        return None
    if kinds.traits_of(version.spec).oneshot and not record.label:
        return None
    policy, why = version.spec.rollout.one_by_one, record.short_of_memory
    one_by_one = policy == "always" or (policy == "auto" and why != "")
    reason = f"{record.reason}; one by one: {why}" if one_by_one and why else record.reason
    return Rollout(record.from_generation, record.to_generation, reason, record.began_at, one_by_one)


def _trial(pool: PoolIntent, intent: Intent, kinds: Kinds) -> Trial | None:
    record = pool.rollout
    if pool.previous is None or record is None or not pool.running or intent.stopping:
        return None
    spec = pool.wanted.spec
    waits_for, doomed = _turn(record, intent)
    gates = [gate for gate in kinds.gates_of(spec) if record.gated and gate not in record.passed]
    if not (gates or waits_for or doomed):
        return None
    return Trial(
        generation=pool.wanted.generation,
        gate=gates[0] if gates else "serve",
        policy=kinds.policy(spec),
        min_ready_seconds=spec.rollout.min_ready_seconds,
        reason=f"rollout to g{pool.wanted.generation}: {record.reason}",
        waits_for=waits_for,
        doomed=doomed,
    )


def _turn(record: RolloutRecord, intent: Intent) -> tuple[tuple[str, ...], str]:
    """(the pools of its deploy that it still waits for, why it can't succeed any more)"""
    waits_for: list[str] = []
    for name in record.turn_after:
        other = intent.pools.get(name)
        if other is None or not other.running or other.rollout is None or not record.together(other.rollout):
            continue
        if other.rollout.verdict == "rolled-back":
            return (), f"{name}, which comes first in the deploy {record.label}, was rolled back"
        if not other.rollout.verdict:
            waits_for.append(name)
    return tuple(waits_for), ""
