"""What people are shown: one Snapshot out of what is wanted and what is known.

Pure and lossy: nothing decides by it.  Instants become wall-clock times by adding one offset (Unix seconds minus
monotonic seconds), which is read when the picture is taken: a clock that was set wrong is right in the next picture.

The one word for a pool, the first that fits:

    stopping   it is not to run, and something of it is left     stopped   it is not to run, and nothing is left
    done       a oneshot succeeded, or all slots ended well      rolling   a new generation takes over
    running    every slot has a ready process                    waiting   for the pools it comes after
    failed     nothing is ready and a slot has given up          backoff   nothing is ready, a slot waits to restart
    degraded   some slots serve; one failed, waits or restarts   starting  on its way, and nothing went wrong
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from supervisor_d.core.aftercare import is_left
from supervisor_d.core.dependencies import waits_for
from supervisor_d.core.desired import Desired, DesiredPool, Trial
from supervisor_d.core.evolve import describe_exit
from supervisor_d.core.intent import Intent, PoolIntent, RolloutRecord
from supervisor_d.core.observed import Observed, PoolFacts, SlotFacts
from supervisor_d.core.process import Process, State
from supervisor_d.core.snapshot import (
    DaemonView,
    PoolView,
    ProcessView,
    RolloutView,
    Serving,
    SlotView,
    Snapshot,
    TasksNow,
    Traffic,
    Usage,
    Work,
)
from supervisor_d.core.stopping import tasks_left, together


@dataclass(frozen=True, slots=True)
class Sources:
    """All that a picture is made of, at the instant `now` (monotonic)."""

    intent: Intent
    desired: Desired
    observed: Observed
    now: float
    wall_offset_seconds: float
    usages: Mapping[str, Usage]
    """By process id."""
    listeners: Mapping[str, tuple[str, ...]]
    """By pool: the addresses as bound, with the port that the kernel gave for port 0."""
    serving: Mapping[str, Serving] = field(default_factory=dict)
    """By process id."""
    traffic: Mapping[str, Traffic] = field(default_factory=dict)
    """By pool."""
    tasks: Mapping[str, TasksNow] = field(default_factory=dict)
    """By process id."""
    work: Mapping[str, Work] = field(default_factory=dict)
    """By pool."""
    backlogs: Mapping[str, int] = field(default_factory=dict)
    """By pool."""

    def wall(self, instant: float) -> float:
        """Unix seconds of a monotonic instant."""
        return instant + self.wall_offset_seconds


def snapshot(daemon: DaemonView, sources: Sources) -> Snapshot:
    """The picture of this instant; pools in the order of the config."""
    views = tuple(pool_view(name, pool, sources) for name, pool in sources.intent.pools.items())
    return Snapshot(sources.wall(sources.now), daemon, views)


def pool_view(name: str, intent: PoolIntent, sources: Sources) -> PoolView:
    """One pool as people see it."""
    desired = sources.desired.pools[name]
    facts = sources.observed.pool(name)
    state, detail = pool_state(desired, sources.desired, sources.observed, sources.now)
    views = tuple(process_view(process, sources) for process in facts.processes.values())
    return PoolView(
        name=name,
        program=intent.wanted.spec.program,
        state=state,
        detail=detail,
        generation=desired.generation,
        workers_desired=sum(desired.sizes) if desired.running and state != "done" else 0,
        workers_live=sum(view.workers_live for view in views if view.role == "serve"),
        workers_ready=sum(view.workers_ready for view in views if view.role == "serve"),
        workers_from="config" if intent.workers is None else "operator",
        after=desired.after,
        listeners=sources.listeners.get(name, ()),
        processes=views,
        slots=_slot_views(desired, facts, sources.now),
        restarts_total=facts.restarts_total,
        exits_total=facts.exits_total,
        worker_exits_total=facts.worker_exits_total,
        rollout=None if intent.rollout is None else _rollout_view(intent.rollout, sources),
        rollouts_total=intent.rollouts_total,
        traffic=sources.traffic.get(name),
        work=sources.work.get(name),
        restored_messages_total=facts.restored_messages_total,
        backlog=sources.backlogs.get(name),
    )


def process_view(process: Process, sources: Sources) -> ProcessView:
    """One process as people see it."""
    live, ready = _workers(process)
    return ProcessView(
        id=process.id,
        pool=process.pool,
        slot=process.slot,
        generation=process.generation,
        state=process.state.value,
        pid=process.pid,
        workers=process.workers,
        workers_live=live,
        workers_ready=ready,
        started_at=sources.wall(process.began_at),
        ready_at=None if process.ready_at is None else sources.wall(process.ready_at),
        reason=process.reason,
        stop_reason=process.stop.reason if process.stop else "",
        exit=describe_exit(process.exit) if process.exit else "",
        adopted=process.adopted,
        usage=sources.usages.get(process.id),
        remark=process.remark,
        serving=sources.serving.get(process.id),
        tasks=sources.tasks.get(process.id),
        role=process.role,
    )


def _workers(process: Process) -> tuple[int, int]:
    """(live, ready): as its driver counts them; where no driver does, a process stands for all its workers."""
    if process.policy.traits.scale_in_place or process.workers_live:
        return process.workers_live, process.workers_ready if process.state is State.READY else 0
    running = process.pid is not None and not process.ended
    return process.workers if running else 0, process.workers if process.state is State.READY else 0


def _slot_views(desired: DesiredPool, facts: PoolFacts, now: float) -> tuple[SlotView, ...]:
    """The slots of the wanted generation that wait for their next start or gave up."""
    return tuple(
        SlotView(
            slot=slot,
            generation=desired.generation,
            attempt=history.attempt,
            backoff_seconds=0.0 if history.failed else max(0.0, history.not_before - now),
            failed=history.failed,
            last_exit=describe_exit(history.last_exit) if history.last_exit else "",
        )
        for slot, history in _histories(desired, facts)
        if history.failed or history.not_before > now
    )


def _histories(desired: DesiredPool, facts: PoolFacts) -> list[tuple[int, SlotFacts]]:
    keys = ((slot, desired.generation) for slot in range(len(desired.sizes)))
    return [(key[0], facts.slots[key]) for key in keys if key in facts.slots]


def _rollout_view(record: RolloutRecord, sources: Sources) -> RolloutView:
    return RolloutView(
        from_generation=record.from_generation,
        to_generation=record.to_generation,
        verdict=record.verdict or "in progress",
        reason=record.verdict_reason or record.reason,
        began_at=sources.wall(record.began_at),
        ended_at=None if record.ended_at is None else sources.wall(record.ended_at),
    )


def pool_state(pool: DesiredPool, desired: Desired, observed: Observed, now: float) -> tuple[str, str]:
    """(one word, detail) for a pool; the words and their order stand at the top of this file."""
    facts = observed.pool(pool.name)
    if not pool.running:
        return _stopping(pool, facts, now)
    if pool.generation in facts.successes:
        return "done", f"g{pool.generation} succeeded"
    ready = _ready_slots(pool, facts)
    counted = f"{_ready_workers(pool, facts)} of {sum(pool.sizes)} ready"
    if pool.trial is not None:
        return "rolling", f"{_tried(pool.trial)}; g{pool.generation} serves: {counted}"
    if pool.rollout is not None:
        return "rolling", f"g{pool.rollout.from_generation} to g{pool.generation} ({pool.rollout.reason}): {counted}"
    missing = [(slot, history) for slot, history in _histories(pool, facts) if slot not in ready]
    if trouble := _trouble(pool, missing, now, serving=bool(ready)):
        return trouble
    if len(ready) == len(pool.sizes):
        return "running", "; ".join((counted, *_remarks(facts)))
    if waited := waits_for(pool, desired, observed):
        return "waiting", f"for {', '.join(waited)}"
    return "starting", counted


def _tried(trial: Trial) -> str:
    if trial.waits_for:
        return f"g{trial.generation} waits for {', '.join(trial.waits_for)} ({trial.reason})"
    return f"g{trial.generation} is tried as {trial.gate} ({trial.reason})"


def _stopping(pool: DesiredPool, facts: PoolFacts, now: float) -> tuple[str, str]:
    left = [process for process in facts.processes.values() if is_left(process)]
    if not left:
        return "stopped", pool.stop_reason
    detail = f"{pool.stop_reason}; {len(left)} left"
    tasks = tasks_left(together(process.tasks for process in left if not process.ended and process.tasks), now)
    return "stopping", f"{detail}; {tasks}" if tasks else detail


def _ready_slots(pool: DesiredPool, facts: PoolFacts) -> set[int]:
    ready = {process.slot for process in facts.serving if process.state is State.READY}
    return {slot for slot in ready if slot < len(pool.sizes)}


def _remarks(facts: PoolFacts) -> tuple[str, ...]:
    """What ready processes say of themselves, each thing once."""
    said = (process.remark for process in facts.processes.values() if process.state is State.READY)
    return tuple(dict.fromkeys(filter(None, said)))


def _ready_workers(pool: DesiredPool, facts: PoolFacts) -> int:
    """The slots' ready workers; of two generations in a slot, the one that has more of them counts."""
    by_slot: dict[int, int] = {}
    for process in facts.serving:
        if process.slot < len(pool.sizes):
            by_slot[process.slot] = max(by_slot.get(process.slot, 0), _workers(process)[1])
    return sum(by_slot.values())


def _trouble(
    pool: DesiredPool, missing: list[tuple[int, SlotFacts]], now: float, *, serving: bool
) -> tuple[str, str] | None:
    """What went wrong with the slots that have no ready process; None when nothing did."""
    for slot, history in missing:
        name = f"{pool.name}.{slot}"
        if history.failed:
            return "degraded" if serving else "failed", f"{name} failed: {history.failed}"
        if history.finished and not (history.last_exit and history.last_exit.ok):
            return "degraded" if serving else "failed", f"{name} {history.last_reason} and is not started again"
    if missing and len(missing) == len(pool.sizes) and all(history.finished for _, history in missing):
        return "done", f"{pool.name}.{missing[0][0]} {missing[0][1].last_reason}"
    for slot, history in missing:
        if history.not_before > now:
            detail = f"{pool.name}.{slot} restarts in {history.not_before - now:.1f} s: {history.last_reason}"
            return "degraded" if serving else "backoff", detail
    for slot, history in missing:
        if history.attempt and serving:
            return "degraded", f"{pool.name}.{slot} restarts: {history.last_reason}"
    return None
