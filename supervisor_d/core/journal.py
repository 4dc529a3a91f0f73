"""The story of the daemon as text: what happened and what was done, each with its reason, in a bounded history.

An action and the fact that performing it yields (see core.performed) are one line, told by the action.  Facts that
add nothing, such as a driver's count that did not change, are no line at all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, assert_never

from supervisor_d.core import actions as act
from supervisor_d.core import events as ev
from supervisor_d.core.evolve import describe_exit
from supervisor_d.core.observed import Observed
from supervisor_d.core.process import State
from supervisor_d.core.snapshot import Entry
from supervisor_d.core.stopping import tasks_left

Kind = Literal["event", "action", "operator", "daemon"]


@dataclass(frozen=True, slots=True)
class Note:
    """A line before it has its place in the history: see Entry."""

    kind: Kind
    name: str
    pool: str
    subject: str
    reason: str


class History:
    """The last `capacity` entries, numbered without gaps from `first_serial`; older ones fall off."""

    def __init__(self, capacity: int, entries: Iterable[Entry] = ()) -> None:
        self._entries: deque[Entry] = deque(entries, maxlen=capacity)
        self.next_serial = self._entries[-1].serial + 1 if self._entries else 1

    def append(self, note: Note, at: float) -> Entry:
        """Write a note down at the wall-clock time `at` (Unix seconds)."""
        entry = Entry(self.next_serial, at, note.kind, note.name, note.pool, note.subject, note.reason)
        self.next_serial += 1
        self._entries.append(entry)
        return entry

    def entries(self, *, after: int = 0, pool: str = "", subject: str = "") -> tuple[Entry, ...]:
        """Entries with a serial above `after`, oldest first; of one pool, of one process or slot (`web.0`) if named."""
        return tuple(
            entry
            for entry in self._entries
            if entry.serial > after and (not pool or entry.pool == pool) and _is_about(entry.subject, subject)
        )


def _is_about(subject: str, wanted: str) -> bool:
    return not wanted or subject == wanted or subject.startswith(f"{wanted}@")


def pool_of(process_id: str) -> str:
    """The pool in a process's id: `web` of `web.0@g3.17`."""
    return process_id.rpartition("@")[0].rpartition(".")[0]


def describe_event(event: ev.Event, observed: Observed) -> Note | None:
    """A fact as a line; `observed` is what was known before it.  None for what an action tells or nothing changes."""
    match event:
        case ev.SuccessRecorded() | ev.FailureCleared() | ev.PoolRemoved():
            return _about_pool(event)
        case ev.NotReadyYet() | ev.SpawnBegan() | ev.ScaleAsked() | ev.StopSignalled() | ev.KillSent() | ev.Forgotten():
            return None
        case ev.StepDone() | ev.FoundStuck() | ev.StacksAsked() | ev.RestoreAsked():
            return None
        case ev.Adopted(process=process):
            reason = f"taken over from a former daemon, {process.state}"
            return Note("event", "adopted", process.pool, process.id, reason)
        case _:
            reason = _process_reason(event, observed)
            return Note("event", _name(event), pool_of(event.id), event.id, reason) if reason else None


def _about_pool(event: ev.SuccessRecorded | ev.FailureCleared | ev.PoolRemoved) -> Note | None:
    if not isinstance(event, ev.FailureCleared):
        return None
    return Note("event", _name(event), event.pool, event.pool, "an operator asked for a fresh try")


_ProcessFact = (
    ev.Spawned
    | ev.SpawnFailed
    | ev.BecameReady
    | ev.WorkersReported
    | ev.ScaleRefused
    | ev.TasksReported
    | ev.WorkerExited
    | ev.Remarked
    | ev.Ailing
    | ev.MainExited
    | ev.TreeEmptied
    | ev.Restored
    | ev.RestoreFailed
    | ev.ShimLost
    | ev.ShimReplaced
)


def _process_reason(event: _ProcessFact, observed: Observed) -> str:
    """The text of a fact about a process; empty for one that is not worth a line."""
    match event:
        case ev.Spawned():
            return f"runs as pid {event.pid}"
        case ev.SpawnFailed():
            return event.reason
        case ev.BecameReady():
            process = observed.find(event.id)
            return "answered: it may serve" if process and process.state is State.STARTING else ""
        case ev.WorkersReported() | ev.ScaleRefused() | ev.TasksReported():
            return _sized(event, observed)
        case ev.WorkerExited():
            return f"its worker {event.pid} {describe_exit(event.exit)}"
        case ev.Remarked() | ev.Ailing():
            return _told_of(event, observed)
        case ev.MainExited():
            return f"{describe_exit(event.exit)}, {_expected(event.id, observed)}"
        case ev.TreeEmptied():
            return _emptied(event)
        case ev.Restored() | ev.RestoreFailed():
            return _restored(event, observed)
        case ev.ShimLost():
            return "its shim died"
        case ev.ShimReplaced():
            return "its shim died; another one keeps its log, its sockets and its exit"
        case _:
            assert_never(event)


def _told_of(event: ev.Remarked | ev.Ailing, observed: Observed) -> str:
    """What a program or its driver says of a process, if that is new."""
    process = observed.find(event.id)
    if isinstance(event, ev.Remarked):
        return event.remark if process is None or process.remark != event.remark else ""
    known = process is not None and (process.ailing or not process.live)
    return "" if known else f"{event.why}: it is replaced"


def _sized(event: ev.WorkersReported | ev.ScaleRefused | ev.TasksReported, observed: Observed) -> str:
    """Of its workers, or of what they have in hand."""
    if isinstance(event, ev.TasksReported):
        process = observed.find(event.id)
        had = process is not None and process.tasks is not None and process.tasks.active > 0
        return tasks_left(event.tasks, event.at) or ("no task is left" if had else "")
    if isinstance(event, ev.ScaleRefused):
        return f"cannot be brought to {event.workers} workers in place: {event.reason}"
    process = observed.find(event.id)
    if process is not None and (process.workers_live, process.workers_ready) == (event.live, event.ready):
        return ""
    return f"{event.live} workers live, {event.ready} ready"


def _expected(process_id: str, observed: Observed) -> str:
    process = observed.find(process_id)
    if process is None or process.stop is None:
        return "by itself"
    return f"as asked: {process.stop.reason}" if process.stop.expected else f"stopped: {process.stop.reason}"


def _emptied(event: ev.TreeEmptied) -> str:
    left = f"{event.killed} left over by it were killed, " if event.killed else ""
    return left + ("nothing is left of its tree" if event.proven else "nothing is known to be left (not proven)")


def log_to_quote(event: ev.Event, observed: Observed) -> tuple[str, float]:
    """(the log whose last lines may tell why a process fails, since when it writes there): `web.0`, 12.5.

    For one that is not well, and for one that ended by itself with an error, once its log is whole; ("", 0.0) for all
    else.  What a signal killed had no time for words, and the words of a trial are told with its verdict.
    """
    process = observed.find(event.id) if isinstance(event, ev.Ailing | ev.TreeEmptied) else None
    if process is None or process.stop is not None or process.role != "serve":
        return "", 0.0
    if isinstance(event, ev.TreeEmptied) and (process.exit is None or not process.exit.code):
        return "", 0.0
    others = (p for p in observed.pool(process.pool).processes.values() if p.slot == process.slot and p is not process)
    if any(other.pid is not None and other.began_at >= process.began_at for other in others):
        return "", 0.0  # the youngest log of the slot is another one's
    return f"{process.pool}.{process.slot}", process.began_at


def _restored(event: ev.Restored | ev.RestoreFailed, observed: Observed) -> str:
    """A failure is told once, however often it is tried; and when there is another reason."""
    if isinstance(event, ev.Restored):
        return event.summary
    process = observed.find(event.id)
    if process is not None and process.aftercare.last_error == event.reason:
        return ""
    return f"what it held is not given back yet: {event.reason}"


def describe_action(action: act.Action) -> Note:
    """An action as a line."""
    match action:
        case act.Spawn() if action.role != "serve":
            return Note("action", _name(action), action.pool, action.id, f"{action.role}: {action.reason}")
        case act.Spawn() | act.TakeStacks() | act.Restore() | act.Forget():
            return Note("action", _name(action), pool_of(action.id), action.id, action.reason)
        case act.Signal() | act.DriverStep() | act.Kill():
            return Note("action", _name(action), pool_of(action.id), action.id, _stop_reason(action))
        case act.Scale():
            reason = f"to {action.workers} workers: {action.reason}"
            return Note("action", _name(action), pool_of(action.id), action.id, reason)
        case act.PassGate():
            return Note("action", _name(action), action.pool, action.pool, action.reason)
        case act.ConcludeRollout():
            reason = f"g{action.generation} {action.verdict}: {action.reason}"
            return Note("action", _name(action), action.pool, action.pool, reason)
        case act.RecordSuccess() | act.DropPool():
            return Note("action", _name(action), action.pool, action.pool, action.reason)
        case _:
            assert_never(action)


def _stop_reason(action: act.Signal | act.DriverStep | act.Kill) -> str:
    """`QUIT: stopped by alice; still there 30 s after TERM; 2 tasks left, the oldest 41 s: shop.tasks.export`."""
    reason = f"{action.reason}; {action.left}" if action.left else action.reason
    match action:
        case act.Signal():
            return f"{action.signal}: {reason}"
        case act.DriverStep():
            return f"{action.word}: {reason}"
        case act.Kill():
            return reason
        case _:
            assert_never(action)


def _name(happening: ev.Event | act.Action) -> str:
    """`main-exited` of MainExited."""
    letters = (f"-{letter.lower()}" if letter.isupper() else letter for letter in type(happening).__name__)
    return "".join(letters).removeprefix("-")
