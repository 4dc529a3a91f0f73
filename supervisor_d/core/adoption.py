"""Adoption: a process of a former daemon, made known again out of what its record holds.

The record keeps the core's own words about a process (RecordedFacts), written before anything ran.  What happened
since comes from the host: pid, exit, empty.  The former daemon's stop deadlines are not on record: what is not wanted
is planned again from Desired, with deadlines of its own.

Whether it was ready is not on record either.  One that is older than its start timeout must have been, or it would
have been stopped: it is taken as ready.  A younger one may hang at its start: it is starting, has the whole timeout
once more, and is asked again; until it answers, planning treats it as one that may serve.  A generation that a rollout
is trying out is asked again at any age: nothing but its answer may promote it.  The size that a process was
brought to in place is not known (0 workers), so its driver is told the wanted size once more.

An end that the record tells is folded in after its adoption, as the event it is: so it is counted, and a oneshot's
success holds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from supervisor_d.core.process import Policy, Process, State


@dataclass(frozen=True, slots=True)
class RecordedFacts:
    """What the core knew of a process when it asked for it."""

    id: str
    pool: str
    slot: int
    generation: int
    workers: int
    policy: Policy
    reason: str
    epoch: int
    began_at: float

    @classmethod
    def of(cls, process: Process, epoch: int) -> RecordedFacts:
        """The facts of a process whose spawn began."""
        return cls(
            process.id,
            process.pool,
            process.slot,
            process.generation,
            process.workers,
            process.policy,
            process.reason,
            epoch,
            process.began_at,
        )


def serial_of(process_id: str) -> int:
    """The serial in a process's id: 17 of `web.0@g3.17`."""
    return int(process_id.rpartition(".")[2])


def adopted_process(facts: RecordedFacts, pid: int | None, now: float, *, on_trial: bool = False) -> Process:
    """The process as this daemon first knows it; without a pid its start is still under way."""
    process = Process(
        id=facts.id,
        pool=facts.pool,
        slot=facts.slot,
        generation=facts.generation,
        workers=0 if facts.policy.traits.scale_in_place else facts.workers,
        policy=facts.policy,
        reason=facts.reason,
        state=State.STARTING,
        since=now,
        began_at=facts.began_at,
        pid=pid,
        adopted=True,
    )
    if pid is None or on_trial or now < facts.began_at + facts.policy.start_timeout_seconds:
        return process
    return replace(process, state=State.READY, ready_at=now)
