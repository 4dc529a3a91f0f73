"""What serves in a pool at one instant, and what of it may go without being missed.

Words: a process is *current* when it is live and what its slot wants now (generation, size), the newest if there are
more; any other live one is *outdated*.  Rules for the outdated:

1. It may go when its slot is served without it, by all the workers that are wanted, or when `max_unavailable` allows
   one more slot to be missed.
2. What a rollback would go back to goes last.
3. What was adopted and has not answered yet may serve all the same: it stays until it answers or is too late.  So does
   what a rollback would go back to, until the new generation has shown that it works.
4. A process that lost its shim is no substitute for one that has its own.
5. What is ailing is outdated: it serves as well as it can until another one does.
6. Where at most one may be at a time, the old one goes first, missed or not.

Worked example, `web` with two slots rolls from g1 to g2, nothing may be unavailable:

    web.0@g1 ready, web.1@g1 ready, web.0@g2 starting     -> nothing may go
    web.0@g1 ready, web.1@g1 ready, web.0@g2 ready        -> web.0@g1 may go: slot 0 is served without it
"""

from __future__ import annotations

from collections.abc import Iterator

from supervisor_d.core.desired import DesiredPool
from supervisor_d.core.handover import has_taken_over
from supervisor_d.core.observed import PoolFacts
from supervisor_d.core.process import Process, State
from supervisor_d.core.rollout import settled, unproven


class Capacity:
    """The service of one pool, at the instant `now`."""

    def __init__(self, pool: DesiredPool, facts: PoolFacts, now: float) -> None:
        self._pool = pool
        self._now = now
        self._processes = facts.serving
        self.unproven = unproven(pool, facts, now)
        """A rollout is under way, and none of its processes has yet shown that it works."""
        self.current = self._current_by_slot()
        """By slot."""
        finished = {
            slot for (slot, generation), h in facts.slots.items() if generation == pool.generation and h.finished
        }
        self._slots = set(range(len(pool.sizes))) - finished
        """The slots of which service is expected: not those whose process did all it had to."""

    @property
    def stops_first(self) -> bool:
        """At most one ever, or a task that is to be done anew: the old one makes room before the new one starts."""
        return self._pool.policy.traits.exclusive or self._pool.policy.traits.oneshot

    def is_current(self, process: Process) -> bool:
        """Whether it is the process that its slot wants."""
        return self.current.get(process.slot) is process

    def may_go(self) -> Iterator[Process]:
        """The outdated processes that may be stopped now, in order."""
        outdated = [p for p in self._processes if p.live and not self.is_current(p)]
        if not outdated:
            return
        remaining = list(self._processes)
        spare = self._may_miss() - len(self._slots - {p.slot for p in remaining if self._serves(p)})
        for process in sorted(outdated, key=self._retire_order):
            missed = self._serves(process) and not self._has_substitute(process, remaining)
            if not self.stops_first and (self._may_answer(process) or (missed and spare < 1)):
                continue
            spare -= missed
            remaining.remove(process)
            yield process

    def why_outdated(self, process: Process) -> str:
        """What is wrong with it, in words."""
        if process.shim_lost:
            return "its shim died"
        if process.ailing:
            return process.ailing
        if process.slot >= len(self._pool.sizes):
            return f"{self._pool.name} was scaled to {sum(self._pool.sizes)} workers"
        if process.generation != self._pool.generation:
            return f"replaced by g{self._pool.generation}"
        if self._fits(process):
            return "its slot has a newer process"
        return f"its slot wants {self._pool.sizes[process.slot]} workers, not {process.workers}"

    def _current_by_slot(self) -> dict[int, Process]:
        """The newest of each slot: a former daemon may have left an older one that it was about to stop."""
        fitting = (process for process in self._processes if self._fits(process))
        return {process.slot: process for process in sorted(fitting, key=lambda p: (p.began_at, p.id))}

    def _fits(self, process: Process) -> bool:
        sizes = self._pool.sizes
        return (
            process.live
            and not process.shim_lost
            and not process.ailing
            and process.generation == self._pool.generation
            and process.slot < len(sizes)
            and (self._resizable(process) or process.workers == sizes[process.slot])
        )

    def _resizable(self, process: Process) -> bool:
        return self._pool.policy.traits.scale_in_place and not process.resize_refused

    def _serves(self, process: Process) -> bool:
        """An outdated process serves by being ready, a current one once it has stayed so."""
        if process.slot not in self._slots:
            return False
        if self.is_current(process):
            stayed = settled(process, self._pool.rollout_policy.min_ready_seconds, self._now)
            return stayed and has_taken_over(self._pool, process)
        return process.state is State.READY

    def _has_substitute(self, process: Process, remaining: list[Process]) -> bool:
        others = (p for p in remaining if p.slot == process.slot and p is not process)
        return any(self._serves(p) and (process.shim_lost or not p.shim_lost) for p in others)

    def _may_answer(self, process: Process) -> bool:
        """It will become ready, or miss its start deadline; with a surge the rollout need not wait for either."""
        if process.state is not State.STARTING or process.slot not in self._slots:
            return False
        beside = self.unproven and self._kept(process) and self._pool.rollout_policy.max_surge > 0
        return process.adopted or beside

    def _may_miss(self) -> int:
        """A policy that may neither add nor miss anything could never move: it may miss one."""
        policy = self._pool.rollout_policy
        allowed = policy.max_unavailable or (0 if policy.max_surge else 1)
        return min(allowed, 1) if self.unproven else allowed

    def _retire_order(self, process: Process) -> tuple[bool, int, float]:
        """What a rollback would go back to goes last; of several in one slot the oldest goes first."""
        return self._kept(process), process.slot, process.began_at

    def _kept(self, process: Process) -> bool:
        """Whether a rollback would go back to it."""
        rollout = self._pool.rollout
        return rollout is not None and process.generation == rollout.from_generation and not process.shim_lost
