"""Waiting for what an operator asked for: when is a pool's part of it over, and how did it end?

Nothing polls: the question is asked again after every turn of the supervisor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Literal

from supervisor_d.core.change import PoolChange
from supervisor_d.core.outcome import Outcome, PoolOutcome
from supervisor_d.core.process import State
from supervisor_d.core.rollout import finished_slots
from supervisor_d.core.view import pool_state
from supervisor_d.runtime.supervisor import Supervisor

Goal = Literal["running", "stopped", "back"]
"""`back`: the pool runs, whatever became of its last rollout: that was given up, or is no part of what was asked."""
TRIES_BEFORE_FAILURE = 3
"""Unexpected ends in a row after which a pool that was to start counts as failed; the daemon itself goes on trying."""


def verdict(supervisor: Supervisor, name: str, goal: Goal) -> PoolOutcome | None:
    """How the pool's part ended, or None while it goes on."""
    intent = supervisor.intent.pools.get(name)
    if intent is None:
        return PoolOutcome(name, ok=True, verdict="removed")
    desired = supervisor.desired.pools[name]
    state, detail = pool_state(desired, supervisor.desired, supervisor.observed, supervisor.host.now())
    if goal == "stopped" or intent.removed:
        done = state == "stopped" and not intent.removed
        return PoolOutcome(name, ok=True, verdict="stopped") if done else None
    if not desired.running:
        return PoolOutcome(name, ok=False, verdict=state, reason=desired.stop_reason)
    given_up = intent.previous is None and intent.rollout is not None and intent.rollout.verdict == "rolled-back"
    if given_up and intent.rollout is not None and goal != "back":
        return PoolOutcome(name, ok=False, verdict="rolled-back", reason=intent.rollout.verdict_reason)
    if state in ("running", "done") and _settled(supervisor, name):
        return PoolOutcome(name, ok=True, verdict=state, reason=detail)
    if state == "failed":
        return PoolOutcome(name, ok=False, verdict=state, reason=detail)
    if state in ("backoff", "degraded", "starting") and (why := _struggling(supervisor, name)):
        return PoolOutcome(name, ok=False, verdict=state, reason=why)
    return None


def _struggling(supervisor: Supervisor, name: str) -> str:
    """How the first slot that was tried in vain too often last ended; empty while there is none."""
    desired, facts = supervisor.desired.pools[name], supervisor.observed.pool(name)
    ready = {p.slot for p in facts.serving if p.state is State.READY}
    for (slot, generation), history in sorted(facts.slots.items()):
        wanted = generation == desired.generation and slot < len(desired.sizes) and slot not in ready
        if wanted and history.attempt >= TRIES_BEFORE_FAILURE:
            return f"{name}.{slot} {history.last_reason}, {history.attempt} times in a row"
    return ""


def _settled(supervisor: Supervisor, name: str) -> bool:
    """Every slot has the size it wants, and nothing of the pool is still being added or retired.  A slot whose process
    has done all it had to needs none."""
    desired = supervisor.desired.pools[name]
    facts = supervisor.observed.pool(name)
    live = [p for p in facts.serving if p.live]
    finished = finished_slots(desired, facts)
    wanted = {slot: size for slot, size in enumerate(desired.sizes) if slot not in finished}
    if desired.policy.traits.oneshot:
        return not live
    return {p.slot: p.workers for p in live} == wanted and len(live) == len(wanted)


async def await_outcome(
    supervisor: Supervisor,
    goals: Iterable[tuple[str, Goal]],
    wait_seconds: float,
    *,
    changes: tuple[PoolChange, ...] = (),
    message: str,
) -> Outcome:
    """Wait until every pool's part is over, at most `wait_seconds`; 0 answers at once, with nothing yet known."""
    waiting = dict(goals)
    ended: dict[str, PoolOutcome] = {}
    done = asyncio.Event()

    def look() -> None:
        for name in [name for name in waiting if name not in ended]:
            found = verdict(supervisor, name, waiting[name])
            if found is not None:
                ended[name] = found
        if len(ended) == len(waiting):
            done.set()

    if wait_seconds <= 0 or not waiting:
        return Outcome(ok=True, message=message, changes=changes)
    stop_watching = supervisor.watch(look)
    try:
        await supervisor.turned()
        look()
        async with asyncio.timeout(wait_seconds):
            await done.wait()
    except TimeoutError:
        pass
    finally:
        stop_watching()
    return _outcome(supervisor, waiting, ended, changes, message)


def _outcome(
    supervisor: Supervisor,
    waiting: dict[str, Goal],
    ended: dict[str, PoolOutcome],
    changes: tuple[PoolChange, ...],
    message: str,
) -> Outcome:
    pools = []
    for name in waiting:
        if name in ended:
            pools.append(ended[name])
            continue
        desired = supervisor.desired.pools[name]
        state, detail = pool_state(desired, supervisor.desired, supervisor.observed, supervisor.host.now())
        pools.append(PoolOutcome(name, ok=False, verdict="timeout", reason=f"still {state}: {detail}"))
    return Outcome(all(pool.ok for pool in pools), message, changes, tuple(pools))
