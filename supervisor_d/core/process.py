"""One process from its spawn to its empty tree: the states and the one table of legal transitions.

A process is one-shot and monotone: it only ever moves down the list

    starting -> ready -> stopping -> killing -> exited

and what comes next in its slot is a new process.  `exited` speaks of the main process; `empty` says that its whole
tree is gone, by the kernel's word.  A fact that the table does not know for a state raises IllegalTransition and
leaves the state as it was.

Worked example, `web.0@g3.17` told to stop while a child of its own ignores TERM:

    SpawnBegan            -> starting
    Spawned(pid 4711)     -> starting
    BecameReady           -> ready
    StopSignalled(TERM)   -> stopping    deadline now + 30 s
    StopSignalled(QUIT)   -> stopping    the first deadline passed
    KillSent              -> killing
    MainExited(-9)        -> exited      the tree may still hold others
    TreeEmptied           -> exited, empty: the record may be forgotten
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from supervisor_d.core.spec import RestartPolicy, Role, StopStep, Traits


class State(StrEnum):
    """Where a process is on its one way from start to end."""

    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    KILLING = "killing"
    EXITED = "exited"


class IllegalTransitionError(Exception):
    """A fact arrived that its process's state does not allow: a bug, or a host that lies."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The part of a pool's spec that a process keeps for life: it stops by the list it was started with."""

    stop: tuple[StopStep, ...]
    restart: RestartPolicy
    traits: Traits
    start_timeout_seconds: float


@dataclass(frozen=True, slots=True)
class Exit:
    """How a main process ended.  Exactly one of `code` and `signal` is set; both None: the kernel could not tell."""

    code: int | None = None
    signal: int | None = None
    oom: bool = False

    @property
    def ok(self) -> bool:
        return self.code == 0


@dataclass(frozen=True, slots=True)
class StopProgress:
    """How far a stop list has come: the step last sent, its deadline (monotonic; None: waits for ever), and why."""

    step: int
    deadline: float | None
    reason: str
    expected: bool
    """False when the process is stopped for a fault of its own (start timeout, lost shim): its slot backs off."""
    done: bool = False
    """The step did all it can: the next need not wait for the deadline."""
    began_at: float = 0.0
    """When its first step was sent."""


@dataclass(frozen=True, slots=True)
class TasksLeft:
    """The work that a process has in hand, as its driver reads it.  Times are monotonic seconds."""

    active: int = 0
    reserved: int = 0
    """Taken from the queue, and not begun."""
    unsafe: int = 0
    """How many of the active would be lost if they were interrupted."""
    oldest_started_at: float | None = None
    oldest_name: str = ""


@dataclass(frozen=True, slots=True)
class Aftercare:
    """How far giving back what an ended process held has come."""

    attempts: int = 0
    failures: int = 0
    """How many of the attempts failed for another reason than a broker that is away."""
    under_way: bool = False
    not_before: float = 0.0
    done: bool = False
    """Nothing is held any more, or nothing can be done about it."""
    last_error: str = ""


@dataclass(frozen=True, slots=True)
class Process:
    """One spawned process and its tree, as far as known.  Times are monotonic seconds."""

    id: str
    pool: str
    slot: int
    generation: int
    workers: int
    policy: Policy
    reason: str
    state: State
    since: float
    began_at: float
    pid: int | None = None
    ready_at: float | None = None
    stop: StopProgress | None = None
    exit: Exit | None = None
    empty: bool = False
    shim_lost: bool = False
    adopted: bool = False
    workers_live: int = 0
    workers_ready: int = 0
    scale_asked: int | None = None
    """The size last asked of the driver and not yet seen; None when nothing is under way."""
    scale_asked_at: float = 0.0
    resize_refused: str = ""
    """Why it cannot be resized in place; empty as long as nothing shows that it cannot."""
    remark: str = ""
    """What the program says of itself, for people; nothing decides by it."""
    tasks: TasksLeft | None = None
    """None: its driver does not know, or the program has no such thing."""
    unsafe_ended_at: float | None = None
    """When the last work ended that would have been lost by an interruption; None while there is, or was, none."""
    stuck: str = ""
    """Why it is thought to make no progress; it is replaced."""
    stacks_asked_at: float | None = None
    aftercare: Aftercare = Aftercare()
    ailing: str = ""
    """What is wrong with it although it lives: another one takes its place.  Empty when nothing is."""
    unready: str = ""
    """How its probes were last not answered well, while it is starting."""
    role: Role = "serve"
    end: str = ""
    """How it ended, in words; empty while it has not."""

    @property
    def live(self) -> bool:
        """It serves or is about to: starting or ready."""
        return self.state in (State.STARTING, State.READY)

    @property
    def ended(self) -> bool:
        """Its main process is gone; its tree may not be."""
        return self.state is State.EXITED

    @property
    def fault(self) -> str:
        """The fault of its own that it was stopped for; empty when there is none."""
        return self.stop.reason if self.stop is not None and not self.stop.expected else ""

    @property
    def kill_sent(self) -> bool:
        """The last step of its stop list, KILL, was sent."""
        return self.stop is not None and self.stop.step >= len(self.policy.stop) - 1


def process_id(pool: str, slot: int, generation: int, serial: int) -> str:
    """The unique name of a process, also of its record's directory: `web.0@g3.17`."""
    return f"{pool}.{slot}@g{generation}.{serial}"


def pool_and_generation(process_id: str) -> tuple[str, int]:
    """The pool and the generation in a process's id: `web` and 3 of `web.0@g3.17`.  Raises ValueError for any other
    text."""
    slot, _, version = process_id.rpartition("@g")
    pool, _, number = slot.rpartition(".")
    if not pool or not number.isdecimal():
        raise ValueError(f"not the id of a process: {process_id!r}")
    return pool, int(version.partition(".")[0])
