"""`after`: who must be ready before a pool's first start, and, reversed, who must be gone before it stops."""

from __future__ import annotations

from supervisor_d.core.desired import Desired, DesiredPool
from supervisor_d.core.observed import Observed
from supervisor_d.core.process import State
from supervisor_d.core.rollout import finished_slots


def pool_is_ready(desired: DesiredPool, observed: Observed) -> bool:
    """A oneshot is ready by its success, any other pool when every slot has a ready process, or one that ended well."""
    facts = observed.pool(desired.name)
    if desired.policy.traits.oneshot:
        return desired.generation in facts.successes
    ready = {p.slot for p in facts.processes.values() if p.state is State.READY}
    return desired.running and ready | finished_slots(desired, facts) >= set(range(len(desired.sizes)))


def waits_for(pool: DesiredPool, desired: Desired, observed: Observed) -> tuple[str, ...]:
    """The dependencies that still hold the pool's start back.

    Dependencies are awaited once per start: a pool that was admitted starts its processes again whatever its
    dependencies do, since a dependency's later death stops nothing.
    """
    if observed.pool(pool.name).admitted_epoch == pool.epoch:
        return ()
    known = (desired.pools[name] for name in pool.after if name in desired.pools)
    return tuple(dependency.name for dependency in known if not pool_is_ready(dependency, observed))


def held_by(pool: DesiredPool, desired: Desired, observed: Observed) -> tuple[str, ...]:
    """The dependents that must be gone before `pool` may stop: those that are to stop as well and still run."""
    return tuple(
        other.name
        for other in desired.pools.values()
        if pool.name in other.after and not other.running and observed.pool(other.name).processes
    )
