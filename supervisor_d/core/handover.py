"""One by one: how two generations share the workers of a slot while one takes over from the other.

Theory.  A program that is scaled in place (gunicorn) rolls by a whole second master beside the first.  Where there is
no memory for two, the new one starts with a single worker, and then they change places one worker at a time.  With N
wanted, at every instant

    ready workers, old and new        >= N      nobody waits longer than before
    workers, old and new, at most     N + 1     no more memory than one worker more

so each step waits for the one before to be seen: the new one may have what the old one has given up, and one more; the
old one keeps what the new one has not ready.

Worked example, N = 4 (old + new, the ready ones):

    4 + 0   the new one starts with 1           4 + 1   the old one is asked for 3
    3 + 1   the new one is asked for 2          3 + 2   the old one is asked for 2
    ...                                         1 + 4   the old one is stopped: its slot is served without it

A rollout that is given up on the way goes back in the same steps: the old one is the wanted one again, and grows while
the new one shrinks.  It may take as long as the old one can grow; when it refuses to, ails or loses its shim, it is not
what its slot wants any more, and another one is started in its place.
"""

from __future__ import annotations

from collections.abc import Mapping

from supervisor_d.core.desired import DesiredPool
from supervisor_d.core.observed import PoolFacts
from supervisor_d.core.process import Process, State


def is_one_by_one(pool: DesiredPool) -> bool:
    """Whether the pool rolls one worker at a time now."""
    return pool.rollout is not None and pool.rollout.one_by_one and pool.policy.traits.scale_in_place


def first_size(pool: DesiredPool, facts: PoolFacts, slot: int) -> int:
    """How many workers a new process of the slot starts with."""
    return 1 if is_one_by_one(pool) and _old(pool, facts, slot) is not None else pool.sizes[slot]


def has_taken_over(pool: DesiredPool, process: Process) -> bool:
    """Whether a process has all the workers that its slot wants, and not only some of them."""
    return not pool.policy.traits.scale_in_place or process.workers >= pool.sizes[process.slot]


def shares(pool: DesiredPool, facts: PoolFacts, new: Process) -> Mapping[str, int]:
    """By process id, how many workers the current process of a slot and the one it takes over from should have; the
    slot's whole size for the current one alone, when there is no other."""
    wanted = pool.sizes[new.slot]
    old = _old(pool, facts, new.slot) if is_one_by_one(pool) else _given_up(pool, facts, new)
    if old is None or old is new or old.resize_refused:
        return {new.id: wanted}
    olds = _has(old, wanted)
    news = max(_has(new, 1), min(wanted, wanted + 1 - olds))
    kept = max(1, min(olds, wanted - _ready(new)))
    return {new.id: news, old.id: kept}


def _old(pool: DesiredPool, facts: PoolFacts, slot: int) -> Process | None:
    """The process that a rollback would go back to, while it serves."""
    assert pool.rollout is not None
    former = (p for p in facts.serving if p.slot == slot and p.generation == pool.rollout.from_generation)
    return next((p for p in former if p.state is State.READY and not p.shim_lost), None)


def _given_up(pool: DesiredPool, facts: PoolFacts, grows: Process) -> Process | None:
    """The process of a rollout that was given up while it had the workers that the one before it still lacks."""
    if pool.rollout is not None or _has(grows, 1) >= pool.sizes[grows.slot]:
        return None
    others = (p for p in facts.serving if p.slot == grows.slot and p.generation != pool.generation)
    return next((p for p in others if p.state is State.READY and not p.shim_lost and not p.ailing), None)


def _has(process: Process, unknown: int) -> int:
    """The most workers it may have: a change that is under way is not yet seen."""
    return max(process.workers or unknown, process.scale_asked or 0)


def _ready(process: Process) -> int:
    """Those that serve for sure: as they were counted, or as many as it was started with."""
    counted = process.workers_ready if process.workers_live else process.workers
    return min(counted, process.workers)
