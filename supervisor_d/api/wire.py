"""The JSON that crosses the control socket, as frozen dataclasses; encoded and decoded by msgspec on both sides.

Snapshot and Entry come from core.snapshot as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

from supervisor_d.core.change import PoolChange
from supervisor_d.core.outcome import Outcome, PoolOutcome

__all__ = ["ErrorBody", "LogLine", "OperateRequest", "Outcome", "PoolChange", "PoolOutcome"]


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
