"""The JSON that crosses the control socket, as frozen dataclasses; encoded and decoded by msgspec on both sides.

Snapshot and Entry come from core.snapshot as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Change = Literal["keep", "scale", "roll", "add", "remove", "update"]


@dataclass(frozen=True, slots=True)
class PoolChange:
    """What a reload does (or would do) to one pool.

    `update` changes only what the daemon itself needs (restart policy, dependencies): no process is touched.
    `keys` are the changed config keys (names only, never values); `detail` is for people, the capacity dip included.
    """

    pool: str
    change: Change
    keys: tuple[str, ...] = ()
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an operation ended for each pool it touched."""

    ok: bool
    message: str
    changes: tuple[PoolChange, ...] = ()
    pools: tuple[PoolOutcome, ...] = ()


@dataclass(frozen=True, slots=True)
class PoolOutcome:
    """The end of one pool's part of an operation: `verdict` is one word, `reason` says why."""

    pool: str
    ok: bool
    verdict: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class OperateRequest:
    """The body of every POST that changes something.  `wait_seconds` 0 returns at once."""

    pools: tuple[str, ...] = ()
    """Pool names; empty means all (start, stop, restart) and is refused for scale."""
    workers: int | None = None
    """For scale: the number wanted; None gives the pool back to its config."""
    wait_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a worker's log, with the slot's log it came from (`web.0`)."""

    source: str
    text: str


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """Every answer of 4xx and 5xx: the text, the way out, and the exit code the CLI ends with."""

    message: str
    hint: str = ""
    exit_code: int = 1
