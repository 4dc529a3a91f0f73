"""`after`: who must be ready before a pool's first start, and, reversed, who must be gone before it stops.

Both reach through pools of which nothing runs.  Worked example, `web` after `migrate` after `redis`, where `migrate`
is a oneshot that succeeded long ago:

    start web and redis     web waits for redis, although migrate is done
    stop everything         redis waits for web, although nothing of migrate is left
"""

from __future__ import annotations

from collections.abc import Iterator

from supervisor_d.core.aftercare import is_waiting
from supervisor_d.core.desired import Desired, DesiredPool
from supervisor_d.core.observed import Observed, PoolFacts
from supervisor_d.core.process import State
from supervisor_d.core.rollout import finished_slots


def pool_is_ready(desired: DesiredPool, observed: Observed) -> bool:
    """A oneshot is ready by its success, any other pool when every slot has a ready process, or one that ended well."""
    facts = observed.pool(desired.name)
    if desired.policy.traits.oneshot:
        return desired.generation in facts.successes
    ready = {p.slot for p in facts.serving if p.state is State.READY}
    return desired.running and ready | finished_slots(desired, facts) >= set(range(len(desired.sizes)))


def waits_for(pool: DesiredPool, desired: Desired, observed: Observed) -> tuple[str, ...]:
    """The dependencies that still hold the pool's start back.

    Dependencies are awaited once per start: a pool that was admitted starts its processes again whatever its
    dependencies do, since a dependency's later death stops nothing.
    """
    if observed.pool(pool.name).admitted_epoch == pool.epoch:
        return ()
    return tuple(d.name for d in _dependencies(pool, desired) if not pool_is_ready(d, observed))


def _dependencies(pool: DesiredPool, desired: Desired) -> Iterator[DesiredPool]:
    """What it comes after, and what the oneshots among them come after; each once, the nearest first."""
    seen: set[str] = set()
    names = list(pool.after)
    while names:
        name = names.pop(0)
        found = desired.pools.get(name)
        if found is None or name in seen:
            continue
        seen.add(name)
        yield found
        if found.policy.traits.oneshot:
            names.extend(found.after)


def held_by(pool: DesiredPool, desired: Desired, observed: Observed) -> tuple[str, ...]:
    """The dependents, near and far, that must be gone before `pool` may stop: they are to stop too, and still run."""
    return tuple(
        other.name for other in _dependents(pool, desired) if not other.running and _is_left(observed.pool(other.name))
    )


def _is_left(facts: PoolFacts) -> bool:
    """What only waits for a broker that is away holds nobody: it may wait for `pool` itself."""
    return any(not is_waiting(process) for process in facts.processes.values())


def _dependents(pool: DesiredPool, desired: Desired) -> list[DesiredPool]:
    found: dict[str, DesiredPool] = {}
    names = [pool.name]
    while names:
        name = names.pop(0)
        nearer = [other for other in desired.pools.values() if name in other.after and other.name not in found]
        found.update((other.name, other) for other in nearer)
        names.extend(other.name for other in nearer)
    return list(found.values())
