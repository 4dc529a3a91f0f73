"""Fold one fact into what is known: the one table of legal transitions, and what each fact adds.

`evolve(observed, event, now)` is total over facts of known processes and raises IllegalTransitionError, leaving
everything as it was, for a fact that the table does not know for a process's state.  Facts that race with an end
(a probe's answer after the exit) are in the table and change nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import assert_never

from supervisor_d.core import aftercare
from supervisor_d.core import events as ev
from supervisor_d.core.observed import Observed, PoolFacts, SlotFacts
from supervisor_d.core.process import Aftercare, Exit, IllegalTransitionError, Process, State, StopProgress, TasksLeft
from supervisor_d.core.restart import after_unexpected_end, was_stable

_S = State
_ALIVE = (_S.STARTING, _S.READY, _S.STOPPING, _S.KILLING)
_TOLD_ANY_TIME = (
    ev.WorkersReported,
    ev.WorkerExited,
    ev.Remarked,
    ev.Ailing,
    ev.NotReadyYet,
    ev.ScaleRefused,
    ev.StepDone,
    ev.TasksReported,
    ev.FoundStuck,
    ev.StacksAsked,
    ev.ShimLost,
    ev.ShimReplaced,
)


def _table() -> dict[tuple[State, type], State]:
    table: dict[tuple[State, type], State] = {
        (_S.STARTING, ev.BecameReady): _S.READY,
        (_S.READY, ev.ScaleAsked): _S.READY,
        (_S.STARTING, ev.StopSignalled): _S.STOPPING,
        (_S.READY, ev.StopSignalled): _S.STOPPING,
        (_S.STOPPING, ev.StopSignalled): _S.STOPPING,
        (_S.EXITED, ev.KillSent): _S.EXITED,
        (_S.EXITED, ev.TreeEmptied): _S.EXITED,
        (_S.EXITED, ev.Forgotten): _S.EXITED,
        (_S.EXITED, ev.RestoreAsked): _S.EXITED,
        (_S.EXITED, ev.Restored): _S.EXITED,
        (_S.EXITED, ev.RestoreFailed): _S.EXITED,
    }
    for state in (_S.STARTING, _S.STOPPING, _S.KILLING):
        table[state, ev.Spawned] = state
        table[state, ev.SpawnFailed] = _S.EXITED
    for state in _ALIVE:
        table[state, ev.MainExited] = _S.EXITED
        table[state, ev.KillSent] = _S.KILLING
    for state in _S:
        for told in _TOLD_ANY_TIME:
            table[state, told] = state
    for state in (_S.READY, _S.STOPPING, _S.KILLING, _S.EXITED):
        table[state, ev.BecameReady] = state
    return table


TRANSITIONS: Mapping[tuple[State, type], State] = _table()
"""(state, kind of fact) -> next state.  A pair that is missing is illegal."""

ProcessEvent = (
    ev.Spawned
    | ev.SpawnFailed
    | ev.BecameReady
    | ev.NotReadyYet
    | ev.WorkersReported
    | ev.WorkerExited
    | ev.Remarked
    | ev.Ailing
    | ev.ScaleAsked
    | ev.ScaleRefused
    | ev.StopSignalled
    | ev.StepDone
    | ev.TasksReported
    | ev.FoundStuck
    | ev.StacksAsked
    | ev.RestoreAsked
    | ev.Restored
    | ev.RestoreFailed
    | ev.KillSent
    | ev.MainExited
    | ev.TreeEmptied
    | ev.ShimLost
    | ev.ShimReplaced
    | ev.Forgotten
)


def evolve(observed: Observed, event: ev.Event, now: float) -> Observed:
    """What is known after `event`, a fact of the instant `now`.

    Raises IllegalTransitionError for a fact about an unknown process, or one that its state does not allow.
    """
    match event:
        case ev.SpawnBegan():
            return _spawn_began(observed, event, now)
        case ev.Adopted():
            return _adopted(observed, event)
        case ev.SuccessRecorded():
            facts = observed.pool(event.pool)
            return _with_pool(observed, event.pool, replace(facts, successes=facts.successes | {event.generation}))
        case ev.FailureCleared():
            return _with_pool(observed, event.pool, replace(observed.pool(event.pool), slots={}))
        case ev.PoolRemoved():
            return replace(observed, pools={k: v for k, v in observed.pools.items() if k != event.pool})
        case _:
            return _process_event(observed, event, now)


def _with_pool(observed: Observed, name: str, facts: PoolFacts) -> Observed:
    return replace(observed, pools={**observed.pools, name: facts})


def _spawn_began(observed: Observed, event: ev.SpawnBegan, now: float) -> Observed:
    if observed.find(event.id) is not None:
        raise IllegalTransitionError(f"{event.id} was spawned before")
    process = Process(
        id=event.id,
        pool=event.pool,
        slot=event.slot,
        generation=event.generation,
        workers=event.workers,
        policy=event.policy,
        reason=event.reason,
        state=State.STARTING,
        since=now,
        began_at=now,
        role=event.role,
    )
    facts = observed.pool(event.pool)
    facts = replace(facts, processes={**facts.processes, event.id: process})
    facts = facts if event.role != "serve" else _admitted(facts, event)
    return replace(_with_pool(observed, event.pool, facts), next_serial=observed.next_serial + 1)


def _admitted(facts: PoolFacts, event: ev.SpawnBegan) -> PoolFacts:
    """Its dependencies are not awaited again; of its slot's past only what concerns living generations counts."""
    living = {p.generation for p in facts.processes.values()}
    slots = {key: value for key, value in facts.slots.items() if key[0] != event.slot or key[1] in living}
    return replace(facts, slots=slots, admitted_epoch=event.epoch)


def _adopted(observed: Observed, event: ev.Adopted) -> Observed:
    process = event.process
    if observed.find(process.id) is not None:
        raise IllegalTransitionError(f"{process.id} is known already")
    facts = observed.pool(process.pool)
    epoch = max(facts.admitted_epoch, event.epoch if process.role == "serve" else -1)
    facts = replace(facts, processes={**facts.processes, process.id: process}, admitted_epoch=epoch)
    serial = max(observed.next_serial, event.serial + 1)
    return replace(_with_pool(observed, process.pool, facts), next_serial=serial)


def _process_event(observed: Observed, event: ProcessEvent, now: float) -> Observed:
    process = observed.find(event.id)
    if process is None:
        raise IllegalTransitionError(f"{type(event).__name__} about {event.id}, which is not known")
    state = TRANSITIONS.get((process.state, type(event)))
    if state is None or (isinstance(event, ev.Forgotten) and not process.empty):
        raise IllegalTransitionError(f"{type(event).__name__} about {event.id}, which is {process.state}")
    facts = observed.pools[process.pool]
    moved = process if state is process.state else replace(process, state=state, since=now)
    if isinstance(event, ev.Forgotten):
        remaining = {key: value for key, value in facts.processes.items() if key != event.id}
        return _with_pool(observed, process.pool, replace(facts, processes=remaining))
    after = _add_fact(moved, event, now)
    facts = _account(facts, process, after, event, now)
    facts = replace(facts, processes={**facts.processes, process.id: after})
    return _with_pool(observed, process.pool, facts)


_Lived = ev.Spawned | ev.SpawnFailed | ev.MainExited | ev.TreeEmptied | ev.ShimLost | ev.ShimReplaced
_Asked = ev.ScaleAsked | ev.ScaleRefused | ev.StopSignalled | ev.StepDone | ev.KillSent
_Cared = ev.RestoreAsked | ev.Restored | ev.RestoreFailed


def _add_fact(process: Process, event: ProcessEvent, now: float) -> Process:
    """What the fact adds to its process, whose state has moved already."""
    match event:
        case ev.Spawned() | ev.SpawnFailed() | ev.MainExited() | ev.TreeEmptied() | ev.ShimLost() | ev.ShimReplaced():
            return _lived(process, event)
        case ev.ScaleAsked() | ev.ScaleRefused() | ev.StopSignalled() | ev.StepDone() | ev.KillSent():
            return _asked(process, event, now)
        case ev.RestoreAsked() | ev.Restored() | ev.RestoreFailed():
            return replace(process, aftercare=_cared(process, event, now))
        case ev.TasksReported() | ev.FoundStuck() | ev.StacksAsked():
            return _observed(process, event, now)
        case ev.BecameReady():
            fresh = process.state is State.READY and process.ready_at is None
            return replace(process, ready_at=now) if fresh else process
        case ev.NotReadyYet():
            return replace(process, unready=event.why)
        case ev.Remarked():
            return replace(process, remark=event.remark)
        case ev.Ailing():
            return replace(process, ailing=event.why) if process.live else process
        case ev.WorkersReported():
            return _workers_reported(process, event)
        case ev.WorkerExited() | ev.Forgotten():
            return process
        case _:
            assert_never(event)


def _lived(process: Process, event: _Lived) -> Process:
    """What the host told of its life."""
    match event:
        case ev.Spawned():
            return replace(process, pid=event.pid)
        case ev.SpawnFailed():
            return replace(process, exit=Exit(), empty=True, end=event.reason)
        case ev.MainExited():
            return replace(process, exit=event.exit, workers_live=0, workers_ready=0, end=describe_exit(event.exit))
        case ev.TreeEmptied():
            return replace(process, empty=True)
        case ev.ShimLost():
            return replace(process, shim_lost=True)
        case ev.ShimReplaced():
            return replace(process, shim_lost=False)
        case _:
            assert_never(event)


def _asked(process: Process, event: _Asked, now: float) -> Process:
    """What was asked of it."""
    match event:
        case ev.ScaleAsked():
            return replace(process, scale_asked=event.workers, scale_asked_at=now)
        case ev.ScaleRefused():
            if process.scale_asked != event.workers:
                return process  # another size is wanted by now
            return replace(process, scale_asked=None, resize_refused=event.reason)
        case ev.StopSignalled():
            began = _stop_began(process, now)
            stop = StopProgress(event.step, event.deadline, event.reason, event.expected, began_at=began)
            return replace(process, stop=stop)
        case ev.StepDone():
            if process.stop is None or process.stop.step != event.step:
                return process  # its time was up before it was done
            return replace(process, stop=replace(process.stop, done=True))
        case ev.KillSent():
            last = len(process.policy.stop) - 1
            stop = StopProgress(last, None, event.reason, event.expected, began_at=_stop_began(process, now))
            return replace(process, stop=stop)
        case _:
            assert_never(event)


def _stop_began(process: Process, now: float) -> float:
    return now if process.stop is None else process.stop.began_at


def _cared(process: Process, event: _Cared, now: float) -> Aftercare:
    """What became of what it held."""
    match event:
        case ev.RestoreAsked():
            return aftercare.asked(process.aftercare)
        case ev.Restored():
            return Aftercare(process.aftercare.attempts, done=True)
        case ev.RestoreFailed():
            return aftercare.failed(process.aftercare, event.reason, now, away=event.away)
        case _:
            assert_never(event)


def _workers_reported(process: Process, event: ev.WorkersReported) -> Process:
    if process.state is State.EXITED:
        return process
    process = replace(process, workers_live=event.live, workers_ready=event.ready)
    if process.scale_asked is not None and event.live == event.ready == process.scale_asked:
        return replace(process, workers=process.scale_asked, scale_asked=None)
    return process


def _observed(process: Process, event: ev.TasksReported | ev.FoundStuck | ev.StacksAsked, now: float) -> Process:
    """What its driver sees of its work."""
    match event:
        case ev.TasksReported():
            return _tasks_reported(process, event.tasks, now)
        case ev.FoundStuck():
            return replace(process, stuck=process.stuck or event.reason)
        case ev.StacksAsked():
            return replace(process, stacks_asked_at=now)
        case _:
            assert_never(event)


def _tasks_reported(process: Process, tasks: TasksLeft, now: float) -> Process:
    was_unsafe = process.tasks is not None and process.tasks.unsafe > 0
    ended_at = None if tasks.unsafe else now if was_unsafe else process.unsafe_ended_at
    return replace(process, tasks=tasks, unsafe_ended_at=ended_at)


def _account(facts: PoolFacts, before: Process, after: Process, event: ProcessEvent, now: float) -> PoolFacts:
    """Totals and slot history: what remains of a process when it is gone.  Of one that was only tried out, nothing."""
    if before.role != "serve":
        return facts
    if isinstance(event, ev.WorkerExited):
        return replace(facts, worker_exits_total=_count(facts.worker_exits_total, exit_kind(event.exit)))
    if isinstance(event, ev.Restored | ev.RestoreFailed):
        return replace(facts, restored_messages_total=facts.restored_messages_total + event.restored)
    if isinstance(event, ev.ShimLost) and before.live:
        return replace(facts, restarts_total=_count(facts.restarts_total, "shim-lost"))
    if isinstance(event, ev.Ailing) and before.live and not before.ailing:
        return replace(facts, restarts_total=_count(facts.restarts_total, "ailing"))
    if not isinstance(event, ev.MainExited | ev.SpawnFailed):
        return facts
    ended = after.exit or Exit()
    kind = "spawn-failed" if isinstance(event, ev.SpawnFailed) else exit_kind(ended)
    facts = replace(facts, exits_total=_count(facts.exits_total, kind))
    key = (before.slot, before.generation)
    if isinstance(event, ev.SpawnFailed) and before.adopted:
        return facts  # the former daemon died before it could let it start: no fault of its own
    if before.stop is not None and before.stop.expected:
        return _past_forgotten(facts, key) if was_stable(before.policy.restart, before, now) else facts
    reason = before.stop.reason if before.stop else after.end
    slot = after_unexpected_end(before, ended, reason, facts.slots.get(key, SlotFacts()), now)
    facts = replace(facts, slots={**facts.slots, key: slot})
    if slot.finished or slot.failed:
        return facts
    if before.stop:
        kind = "stuck" if before.stuck else "start-timeout"
    return replace(facts, restarts_total=_count(facts.restarts_total, kind))


def _past_forgotten(facts: PoolFacts, key: tuple[int, int]) -> PoolFacts:
    """It was stable and ended as asked: whatever starts next in its slot is no restart."""
    return replace(facts, slots={k: v for k, v in facts.slots.items() if k != key})


def _count(totals: Mapping[str, int], kind: str) -> Mapping[str, int]:
    return {**totals, kind: totals.get(kind, 0) + 1}


def exit_kind(ended: Exit) -> str:
    """The label of an exit in metrics: `ok`, `error`, `signal`, `oom` or `unknown`."""
    if ended.oom:
        return "oom"
    if ended.signal is not None:
        return "signal"
    if ended.code is None:
        return "unknown"
    return "ok" if ended.code == 0 else "error"


SIGNAL_NAMES: Mapping[int, str] = {
    1: "HUP", 2: "INT", 3: "QUIT", 4: "ILL", 6: "ABRT", 7: "BUS", 8: "FPE", 9: "KILL", 10: "USR1",
    11: "SEGV", 12: "USR2", 13: "PIPE", 14: "ALRM", 15: "TERM", 24: "XCPU", 25: "XFSZ", 31: "SYS",
}  # fmt: skip
"""Linux numbers (signal(7)); the core may not import `signal`."""


def describe_exit(ended: Exit) -> str:
    """An exit in words: `exited with code 3`, `killed by SIGSEGV`."""
    if ended.signal is not None:
        name = SIGNAL_NAMES.get(ended.signal)
        word = f"killed by SIG{name}" if name else f"killed by signal {ended.signal}"
        return f"{word} (out of memory)" if ended.oom else word
    return "ended, exit status unknown" if ended.code is None else f"exited with code {ended.code}"
