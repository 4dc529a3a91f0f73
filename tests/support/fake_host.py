"""A Host with virtual time: scripted programs instead of processes, an agenda instead of a kernel.

Nothing happens by itself.  `Agenda.advance(to)` moves the clock from happening to happening; each may call `emit`.
A daemon's death is `detach`: programs run on, and what becomes of them is only recorded.  `adopt` hands the records to
the next daemon, and tells it from then on what they do not say.

Worked example, a program that needs 10 ms to be exec'd, ignores TERM and leaves a child for a second:

    0.00  spawn(web.0@g1.1)
    0.01  -> Spawned(web.0@g1.1, pid 1001)
    5.00  signal(TERM)                    nothing: it is ignored
    8.00  kill                            -> MainExited(signal 9), TreeEmptied(proven, 1 killed)
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from supervisor_d.core.events import Event, MainExited, ShimLost, ShimReplaced, Spawned, SpawnFailed, TreeEmptied
from supervisor_d.core.process import Exit
from supervisor_d.core.spec import Launch
from supervisor_d.runtime.host import Emit, Told
from supervisor_d.runtime.linux import Adoption

SIGNAL_NUMBERS = {"HUP": 1, "INT": 2, "QUIT": 3, "KILL": 9, "USR1": 10, "USR2": 12, "TERM": 15}


@dataclass(frozen=True, slots=True)
class Script:
    """What a program does.  Times are seconds after it was exec'd, or after the signal."""

    start_seconds: float = 0.01
    refused: str = ""
    """Why it cannot be started at all (EAGAIN, a missing executable)."""
    ready_seconds: float | None = 0.1
    """When it would answer that it is ready; None: never.  The host does not tell: whoever attends it asks."""
    exit_seconds: float | None = None
    """When it ends by itself."""
    exit: Exit = field(default_factory=lambda: Exit(code=1))
    obeys: Mapping[str, float] = field(default_factory=lambda: {"TERM": 0.2, "QUIT": 0.05})
    """Signals that it obeys, and how long it then takes to end with code 0; all others are ignored."""
    orphan_seconds: float = 0.0
    """How long what is left of its tree outlives its main process."""
    echoes: bool = False
    """Its agent says whatever it is told."""
    drain_seconds: float | None = 0.1
    """How long it takes to say that it takes nothing more; None: it never does."""
    resizable: bool = True
    """Whether it can be resized in place."""
    unsafe_seconds: float = 0.0
    """For how long, once it is asked to stop, it has work that would be lost if it were interrupted."""


class Agenda:
    """Virtual time: happenings in order of their time, and of their making when the times are equal."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def at(self, when: float, happening: Callable[[], None]) -> None:
        """Let something happen at an instant, now at the earliest."""
        heapq.heappush(self._queue, (max(when, self.now), next(self._order), happening))

    @property
    def next_at(self) -> float | None:
        """When the next happening is due."""
        return self._queue[0][0] if self._queue else None

    def advance(self, to: float) -> None:
        """Move the clock forward, and let everything that is due happen, each at its own instant."""
        while self._queue and self._queue[0][0] <= to:
            when, _, happening = heapq.heappop(self._queue)
            self.now = max(self.now, when)
            happening()
        self.now = max(self.now, to)


@dataclass(slots=True)
class FakeProcess:
    """The truth about a process and its record."""

    id: str
    facts: str
    script: Script
    asked_at: float
    pid: int | None = None
    started_at: float = 0.0
    failed: str = ""
    exit: Exit | None = None
    empty: bool = False
    shim_alive: bool = True
    shim_replaced: bool = False
    stop_asked: bool = False
    note: str = ""
    workers: int | None = None
    """The size that it was brought to in place; None: as it was started."""
    signals: list[tuple[float, str]] = field(default_factory=list)
    busy_until: float | None = None
    """When the work is done that it had when it was first asked to stop."""

    @property
    def runs(self) -> bool:
        """Its main process is alive."""
        return self.pid is not None and self.exit is None

    @property
    def ready_at(self) -> float | None:
        """When it answers, if nothing happens to it before; None: never, or it was not started."""
        seconds = self.script.ready_seconds
        return None if self.pid is None or seconds is None else self.started_at + seconds

    def serves(self, now: float) -> bool:
        """It runs, has become ready, and was not asked to stop."""
        return self.runs and not self.stop_asked and self.ready_at is not None and self.ready_at <= now


class FakeHost:
    """Implements supervisor_d.runtime.host.Host over an agenda."""

    def __init__(
        self, agenda: Agenda, script_of: Callable[[str, Launch], Script], emit: Emit, told: Told = lambda *_: None
    ) -> None:
        self.agenda = agenda
        self.processes: dict[str, FakeProcess] = {}
        """Every record that was not forgotten."""
        self._script_of = script_of
        self._emit: Emit | None = emit
        self._told = told
        self._pids = itertools.count(1001)

    # the protocol

    def now(self) -> float:
        """Virtual monotonic seconds."""
        return self.agenda.now

    def spawn(self, process_id: str, launch: Launch, listeners: tuple[int, ...], facts: str) -> None:
        """Start what the script says."""
        if process_id in self.processes:
            raise ValueError(f"{process_id} has a record already")
        process = FakeProcess(process_id, facts, self._script_of(process_id, launch), self.agenda.now)
        self.processes[process_id] = process
        self._after(process.script.start_seconds, lambda: self._start(process))

    def signal(self, process_id: str, signal_name: str) -> None:
        """Reaches a main process that runs, or nobody."""
        process = self.processes.get(process_id)
        if process is None or not process.runs:
            return
        process.stop_asked = True
        process.signals.append((self.agenda.now, signal_name))
        seconds = process.script.obeys.get(signal_name)
        if seconds is not None:
            self._after(seconds, lambda: self._exit(process, Exit(code=0)))

    def kill(self, process_id: str) -> None:
        """The whole tree is gone, at the next instant of the agenda."""
        process = self.processes.get(process_id)
        if process is None or process.empty:
            return
        process.stop_asked = True
        process.signals.append((self.agenda.now, "KILL"))
        self._after(0.0, lambda: self._killed(process))

    def tell(self, process_id: str, text: str) -> None:
        """Reaches the agent of a main process that runs, as long as it has the shim that it was started by."""
        process = self.processes.get(process_id)
        if process is not None and process.runs and process.shim_alive and process.script.echoes:
            self._after(0.001, lambda: self._say(process, text))

    def note(self, process_id: str, text: str) -> None:
        """Kept until the record goes."""
        process = self.processes.get(process_id)
        if process is not None:
            process.note = text

    def forget(self, process_id: str) -> None:
        """Remove an empty record; any other stays."""
        process = self.processes.get(process_id)
        if process is not None and process.empty:
            del self.processes[process_id]

    # what tests do to the world

    def crash(self, process_id: str, ended: Exit) -> None:
        """Somebody else ends the main process."""
        self._exit(self.processes[process_id], ended)

    def lose_shim(self, process_id: str, *, replaced: bool = False) -> None:
        """Somebody else kills the shim; the program runs on, under another one if that can be had (`replaced`)."""
        process = self.processes[process_id]
        if process.shim_alive and not process.empty and process.pid is not None:
            process.shim_alive = False
            process.shim_replaced = replaced
            self._tell(_without_shim(process))

    def detach(self) -> None:
        """The daemon died.  A spawn whose gate it had not opened (half of the start's time) comes to nothing."""
        self._emit = None
        for process in self.processes.values():
            gate_opened = self.agenda.now >= process.asked_at + process.script.start_seconds / 2
            if process.pid is None and not gate_opened:
                self._fail(process, "the daemon died before it was started")

    def adopt(self, emit: Emit) -> list[Adoption]:
        """A new daemon reads the records; what they do not say reaches it as events, from the next instant on."""
        self._emit = emit
        found = []
        for process in self.processes.values():
            found.append(Adoption(process.id, process.facts, process.pid, process.exit, process.empty, process.note))
            if process.failed:
                self._after(0.0, partial(self._tell_only, emit, SpawnFailed(process.id, process.failed)))
            elif not process.shim_alive and not process.empty:
                self._after(0.0, partial(self._tell_only, emit, _without_shim(process)))
        return found

    # what happens

    def _after(self, seconds: float, happening: Callable[[], None]) -> None:
        self.agenda.at(self.agenda.now + seconds, happening)

    def _tell(self, event: Event) -> None:
        if self._emit is not None:
            self._emit(event)

    def _tell_only(self, emit: Emit, event: Event) -> None:
        """Tell one daemon, if it still lives."""
        if self._emit is emit:
            emit(event)

    def _say(self, process: FakeProcess, text: str) -> None:
        if process.runs and self._emit is not None:
            self._told(process.id, text)

    def _start(self, process: FakeProcess) -> None:
        if process.empty:
            return
        script = process.script
        if script.refused:
            self._fail(process, script.refused)
            return
        process.pid = pid = next(self._pids)
        process.started_at = self.agenda.now
        if script.exit_seconds is not None:
            self._after(script.exit_seconds, lambda: self._exit(process, script.exit))
        self._tell(Spawned(process.id, pid))

    def _fail(self, process: FakeProcess, why: str) -> None:
        process.failed = why
        process.empty = True
        self._tell(SpawnFailed(process.id, why))

    def _exit(self, process: FakeProcess, ended: Exit) -> None:
        if not process.runs:
            return
        process.exit = ended if process.shim_alive or process.shim_replaced else Exit()
        self._tell(MainExited(process.id, process.exit))
        self._after(process.script.orphan_seconds, lambda: self._empty(process, killed=0))

    def _empty(self, process: FakeProcess, *, killed: int) -> None:
        if process.empty:
            return
        process.empty = True
        self._tell(TreeEmptied(process.id, proven=process.shim_alive, killed=killed))

    def _killed(self, process: FakeProcess) -> None:
        if process.empty:
            return
        if process.pid is None:
            self._fail(process, "killed before it was started")
            return
        left = 1 if process.exit is not None or process.script.orphan_seconds else 0
        self._exit(process, Exit(signal=SIGNAL_NUMBERS["KILL"]))
        self._empty(process, killed=left)


def _without_shim(process: FakeProcess) -> Event:
    return ShimReplaced(process.id) if process.shim_replaced else ShimLost(process.id)
