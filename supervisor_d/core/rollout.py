"""The verdict on a rollout: go on, keep the new generation, or go back to the old one.

A rollout is a record in Desired (from, to, since when), never progress in a stack frame: any daemon that reads it can
go on with it.  Rules:

1. One unexpected end, failed start, missed start deadline or ailing process of the new generation ends the rollout:
   rolled back.
   A rollback is not a rollout: it has no record, so it can never be rolled back itself.
2. All slots of the new generation ready for `min_ready_seconds` and no process of another generation live: succeeded.
   Old processes may still drain.  A slot whose process ended well, and is not to be restarted, has done its part.
3. Until one process of the new generation was ready for `min_ready_seconds` (the rollout is *unproven*), only one is
   started: a bad generation is tried once, never by all slots in turn.
"""

from __future__ import annotations

from dataclasses import dataclass

from supervisor_d.core.desired import DesiredPool
from supervisor_d.core.handover import has_taken_over
from supervisor_d.core.observed import PoolFacts
from supervisor_d.core.process import Process, State


def settled(process: Process, min_ready_seconds: float, now: float) -> bool:
    """Ready, and for long enough."""
    return (
        process.state is State.READY
        and process.ready_at is not None
        and now >= process.ready_at + min_ready_seconds
        and not process.shim_lost
        and not process.ailing
    )


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a rollout has failed, and the slot whose process it was."""

    slot: int
    reason: str


def failure(desired: DesiredPool, facts: PoolFacts) -> Failure | None:
    """How the rollout under way has failed; None while it has not."""
    if desired.rollout is None:
        return None
    for (slot, generation), history in sorted(facts.slots.items()):
        if generation == desired.generation and (history.attempt or history.failed or history.ended_badly):
            return Failure(slot, f"{desired.name}.{slot}@g{generation} {history.last_reason}")
    for process in facts.serving:
        if process.generation == desired.generation and (why := process.fault or process.ailing):
            return Failure(process.slot, f"{desired.name}.{process.slot}@g{desired.generation} {why}")
    return None


def complete(desired: DesiredPool, facts: PoolFacts, now: float) -> bool:
    """Whether the new generation has wholly taken over.  A oneshot's success says it in its own way."""
    if desired.policy.traits.oneshot:
        return False
    waited = desired.rollout_policy.min_ready_seconds
    whole = (p for p in facts.serving if p.slot < len(desired.sizes) and has_taken_over(desired, p))
    current = {p.slot for p in whole if p.generation == desired.generation and settled(p, waited, now)}
    others_live = any(p.live and p.generation != desired.generation for p in facts.serving)
    return not others_live and current | finished_slots(desired, facts) >= set(range(len(desired.sizes)))


def finished_slots(desired: DesiredPool, facts: PoolFacts) -> set[int]:
    """The slots whose process of the wanted generation ended well and is not to be restarted."""
    return {
        slot
        for (slot, generation), history in facts.slots.items()
        if generation == desired.generation and history.ended_well
    }


def unproven(desired: DesiredPool, facts: PoolFacts, now: float) -> bool:
    """Whether a rollout is under way and none of its processes has yet shown that it works."""
    waited = desired.rollout_policy.min_ready_seconds
    return (
        desired.rollout is not None
        and not finished_slots(desired, facts)
        and not any(p.generation == desired.generation and settled(p, waited, now) for p in facts.serving)
    )
