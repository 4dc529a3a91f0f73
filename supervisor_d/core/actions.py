"""Effects as data: all that the core may ever ask for.  Each carries its reason, in words for an operator.

The runtime alone performs them.  Performing an action yields, before anything else is planned, the event that keeps
the plan from asking again: Spawn -> SpawnBegan, Signal and DriverStep -> StopSignalled, Kill -> KillSent,
Scale -> ScaleAsked, TakeStacks -> StacksAsked, Restore -> RestoreAsked, Forget -> Forgotten,
RecordSuccess -> SuccessRecorded, DropPool -> PoolRemoved; PassGate and ConcludeRollout change Desired.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from supervisor_d.core.process import Policy
from supervisor_d.core.spec import Role


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start a new process in a slot."""

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
class Signal:
    """Send step `step` of the stop list to the main process."""

    id: str
    signal: str
    step: int
    deadline: float | None
    reason: str
    expected: bool
    left: str = ""
    """What work it still has in hand, in words."""


@dataclass(frozen=True, slots=True)
class DriverStep:
    """Have the program's driver carry out step `step` of the stop list, which is no signal."""

    id: str
    word: str
    step: int
    deadline: float | None
    reason: str
    expected: bool
    left: str = ""


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL the whole tree until nothing is left."""

    id: str
    reason: str
    expected: bool
    left: str = ""


@dataclass(frozen=True, slots=True)
class Scale:
    """Bring a process to `workers` in place, through its driver."""

    id: str
    workers: int
    reason: str


@dataclass(frozen=True, slots=True)
class TakeStacks:
    """Make a stuck process write the stacks of all that it does to its log."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Restore:
    """Give back what an ended process held."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Forget:
    """Remove the record of a process whose tree is empty."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class RecordSuccess:
    """Write down that a oneshot's generation succeeded."""

    pool: str
    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class PassGate:
    """Write down that a rollout's new generation passed a gate: it need not be tried there again."""

    pool: str
    generation: int
    gate: Role
    reason: str


@dataclass(frozen=True, slots=True)
class ConcludeRollout:
    """End a rollout: keep the new generation, or go back to the old one."""

    pool: str
    generation: int
    verdict: Literal["succeeded", "rolled-back"]
    reason: str
    log: str = ""
    """The log that may tell more of a failure, as `logs` names it: `web.0`, `web.canary`."""


@dataclass(frozen=True, slots=True)
class DropPool:
    """Drop the facts of a pool that the config no longer has and of which nothing is left."""

    pool: str
    reason: str


Action = (
    Spawn
    | Signal
    | DriverStep
    | Kill
    | Scale
    | TakeStacks
    | Restore
    | Forget
    | RecordSuccess
    | PassGate
    | ConcludeRollout
    | DropPool
)
