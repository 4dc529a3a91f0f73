"""Adoption: a process of a former daemon, made known again out of what its record holds.

The record keeps the core's own words about a process (RecordedFacts), written before anything ran, and how far it has
come since (Progress), written anew after each step.  What the kernel knows comes from the host: pid, exit, empty.

    ready on record     it is ready, and has been since then: also one on trial, for it did answer
    stopping on record  the step that was sent stays sent, and its deadline (monotonic, of this boot) stands.  The note
                        follows the signal: a daemon that dies between the two has it sent once more, never left out
    killed on record    KILL is sent again: it may have hit only part of the tree
    nothing on record   it has not become ready.  It is starting, has the whole timeout once more, and is asked again;
                        until it answers, planning treats it as one that may serve

A note that could not be written (a full disk) is made up for: a process without one that is older than its start
timeout must have been ready, or it would have been stopped; but one on trial is asked again at any age, since nothing
but its answer may promote it.  The size that a process was brought to in place counts only if it is on record;
otherwise (0 workers) its driver is told the wanted size once more.  One that has not become ready was never resized:
it is to have what it was started with, and is not taken for ready with less.

An end that the record tells is folded in after its adoption, as the event it is: so it is counted, and a oneshot's
success holds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from supervisor_d.core.process import Policy, Process, State, StopProgress
from supervisor_d.core.spec import Role


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
    role: Role = "serve"

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
            process.role,
        )


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a process has come.  Times are monotonic seconds; `workers` is 0 while a change of it is under way."""

    ready_at: float | None = None
    stop: StopProgress | None = None
    workers: int = 0

    @classmethod
    def of(cls, process: Process) -> Progress:
        """What is to be on record of a process."""
        return cls(process.ready_at, process.stop, process.workers if process.scale_asked is None else 0)


def serial_of(process_id: str) -> int:
    """The serial in a process's id: 17 of `web.0@g3.17`."""
    return int(process_id.rpartition(".")[2])


def adopted_process(
    facts: RecordedFacts, pid: int | None, now: float, *, on_trial: bool = False, progress: Progress | None = None
) -> Process:
    """The process as this daemon first knows it; without a pid its start is still under way."""
    known = progress if progress is not None and pid is not None else Progress()
    process = Process(
        id=facts.id,
        pool=facts.pool,
        slot=facts.slot,
        generation=facts.generation,
        workers=facts.workers,
        policy=facts.policy,
        reason=facts.reason,
        state=State.STARTING,
        since=now,
        began_at=facts.began_at,
        pid=pid,
        adopted=True,
        role=facts.role,
    )
    if known.ready_at is not None:
        process = _was_ready(process, known.workers, known.ready_at)
    if known.stop is not None:
        return _stopping(process, known.stop, now)
    if (
        process.ready_at is not None
        or pid is None
        or on_trial
        or now < facts.began_at + facts.policy.start_timeout_seconds
    ):
        return process
    return _was_ready(process, known.workers, now)


def _was_ready(process: Process, workers: int, ready_at: float) -> Process:
    """It may have been resized in place since: then only the record can tell how many workers it has."""
    has = workers if process.policy.traits.scale_in_place else process.workers
    return replace(process, state=State.READY, ready_at=ready_at, workers=has)


def _stopping(process: Process, stop: StopProgress, now: float) -> Process:
    """Its stop goes on where it was; a KILL that was sent is due again."""
    killed = stop.step >= len(process.policy.stop) - 1
    if killed and stop.step == 0:
        return process  # its whole list: what is planned for it is planned again
    if killed:
        stop = replace(stop, step=stop.step - 1, deadline=now)
    return replace(process, state=State.STOPPING, stop=stop)
