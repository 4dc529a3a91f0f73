"""Facts, in the past tense: all that may ever reach the core.  `id` is a process's id.

Edges (shims, pidfds, probes, drivers, the API) make them; `evolve` folds them into Observed, one at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

from supervisor_d.core.process import Exit, Policy, Process, TasksLeft
from supervisor_d.core.spec import Role


@dataclass(frozen=True, slots=True)
class SpawnBegan:
    """A spawn was asked of the host; from here on the process exists for the core."""

    id: str
    pool: str
    slot: int
    generation: int
    workers: int
    policy: Policy
    epoch: int
    reason: str
    role: Role = "serve"


@dataclass(frozen=True, slots=True)
class Spawned:
    """The program was exec'd as `pid`."""

    id: str
    pid: int


@dataclass(frozen=True, slots=True)
class SpawnFailed:
    """No program runs and none will: exec failed, the zygote or the kernel refused.  The record is already empty."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class BecameReady:
    """The process answered: it may serve now."""

    id: str


@dataclass(frozen=True, slots=True)
class NotReadyYet:
    """The process was asked and did not answer well: `why`, as in `http /healthz answered 503`."""

    id: str
    why: str


@dataclass(frozen=True, slots=True)
class WorkersReported:
    """The driver counted the workers inside a process."""

    id: str
    live: int
    ready: int


@dataclass(frozen=True, slots=True)
class WorkerExited:
    """A worker inside a process ended (a gunicorn worker, a Celery pool process); its program replaces it."""

    id: str
    pid: int
    exit: Exit


@dataclass(frozen=True, slots=True)
class Remarked:
    """The program says, for people, what it is about: `holds the lease`.  A new remark takes the place of the old."""

    id: str
    remark: str


@dataclass(frozen=True, slots=True)
class Ailing:
    """The process lives and does not do what it should: `why`, as in `its workers keep crashing`."""

    id: str
    why: str


@dataclass(frozen=True, slots=True)
class ScaleAsked:
    """The driver was told to bring a process to `workers`."""

    id: str
    workers: int
    reason: str


@dataclass(frozen=True, slots=True)
class ScaleRefused:
    """The process cannot be brought to `workers` in place: its slot needs another process."""

    id: str
    workers: int
    reason: str


@dataclass(frozen=True, slots=True)
class StopSignalled:
    """Step `step` of the stop list was sent; `deadline` is when the next is due (monotonic)."""

    id: str
    step: int
    deadline: float | None
    reason: str
    expected: bool


@dataclass(frozen=True, slots=True)
class StepDone:
    """Step `step` of the stop list did all it can, before its time: the next may follow."""

    id: str
    step: int


@dataclass(frozen=True, slots=True)
class TasksReported:
    """The driver read, at the instant `at`, what work a process has in hand; told while it stops."""

    id: str
    tasks: TasksLeft
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class FoundStuck:
    """The process lives and makes no progress (core/health.py)."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class StacksAsked:
    """A stuck process was made to write its stacks to its log."""

    id: str


@dataclass(frozen=True, slots=True)
class RestoreAsked:
    """What an ended process held is being given back."""

    id: str


@dataclass(frozen=True, slots=True)
class Restored:
    """What an ended process held was given back: `summary` says what; empty when it held nothing."""

    id: str
    summary: str
    restored: int = 0


@dataclass(frozen=True, slots=True)
class RestoreFailed:
    """It could not be given back, but for `restored` messages.

    `away`: because the broker cannot be reached, or has not told all yet, so that it is tried until it can.
    """

    id: str
    reason: str
    away: bool
    restored: int = 0


@dataclass(frozen=True, slots=True)
class KillSent:
    """SIGKILL was sent to the whole tree."""

    id: str
    reason: str
    expected: bool


@dataclass(frozen=True, slots=True)
class MainExited:
    """The main process ended."""

    id: str
    exit: Exit


@dataclass(frozen=True, slots=True)
class TreeEmptied:
    """Nothing of the process's tree is left; `proven` when the kernel said so (ECHILD or an empty cgroup)."""

    id: str
    proven: bool
    killed: int


@dataclass(frozen=True, slots=True)
class ShimLost:
    """The shim died before its tree was empty."""

    id: str


@dataclass(frozen=True, slots=True)
class ShimReplaced:
    """The shim died, and another one took its place: log, sockets and exit are kept again, and the process lives on."""

    id: str


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The record of an empty process was removed."""

    id: str


@dataclass(frozen=True, slots=True)
class Adopted:
    """A process of a former daemon was taken over, with all that its record proves."""

    process: Process
    serial: int
    epoch: int = -1


@dataclass(frozen=True, slots=True)
class SuccessRecorded:
    """A oneshot's success was written to the state directory."""

    pool: str
    generation: int


@dataclass(frozen=True, slots=True)
class FailureCleared:
    """An operator asked for a fresh try: backoff, intensity and failure of the pool's slots are forgotten."""

    pool: str


@dataclass(frozen=True, slots=True)
class PoolRemoved:
    """The config no longer has this pool and nothing of it is left: its facts are dropped."""

    pool: str


Event = (
    SpawnBegan
    | Spawned
    | SpawnFailed
    | BecameReady
    | NotReadyYet
    | WorkersReported
    | WorkerExited
    | Remarked
    | Ailing
    | ScaleAsked
    | ScaleRefused
    | StopSignalled
    | StepDone
    | TasksReported
    | FoundStuck
    | StacksAsked
    | RestoreAsked
    | Restored
    | RestoreFailed
    | KillSent
    | MainExited
    | TreeEmptied
    | ShimLost
    | ShimReplaced
    | Forgotten
    | Adopted
    | SuccessRecorded
    | FailureCleared
    | PoolRemoved
)
