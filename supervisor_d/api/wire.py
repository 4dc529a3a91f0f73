"""The JSON that crosses the control socket, as frozen dataclasses; encoded and decoded by msgspec on both sides.

Snapshot and Entry come from core.snapshot as they are, what an operation does and did from core.change and
core.outcome, a line of a log from logs.line.
"""

from __future__ import annotations

from dataclasses import dataclass

from supervisor_d.core.change import PoolChange
from supervisor_d.core.outcome import Outcome, PoolOutcome
from supervisor_d.errors import Problem
from supervisor_d.logs.line import LogLine

__all__ = [
    "Dropped",
    "ErrorBody",
    "LogLine",
    "OperateRequest",
    "Outcome",
    "PoolChange",
    "PoolOutcome",
    "Problem",
    "UpgradeAnswer",
    "UpgradeRequest",
]

MAX_WAIT_SECONDS = 86_400.0
"""The longest that an operation is waited for."""
MAX_BODY_BYTES = 64 * 1024
MAX_LINES = 10_000
"""The most lines of events or logs that one request gets of the past."""


@dataclass(frozen=True, slots=True)
class OperateRequest:
    """The body of every POST that changes something.  `wait_seconds` 0 returns at once."""

    pools: tuple[str, ...] = ()
    """Pool names; empty means all (start, stop, restart) and is refused for scale."""
    workers: int | None = None
    """For scale: the number wanted; None gives the pool back to its config."""
    wait_seconds: float = 0.0
    label: str = ""
    """For deploy: the operator's word for it, a release's name; empty: the daemon makes one of the time."""


@dataclass(frozen=True, slots=True)
class UpgradeRequest:
    """The body of POST /v1/upgrade."""

    python: str = ""
    """The interpreter whose supervisor-d is to take over, an absolute path; empty: the one that runs now."""


@dataclass(frozen=True, slots=True)
class UpgradeAnswer:
    """The new code has proven itself, and the hand-over begins when this answer is sent."""

    before: str
    after: str
    """Versions."""
    pid: int
    records: int
    """Processes on record, all of which the new code can read."""
    serial: int
    """What became of it is in the journal behind this serial: `upgraded` or `upgrade-failed`."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """In a stream of events: the reader was slower than the daemon, and so many entries are missing here."""

    dropped: int


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """Every answer of 4xx and 5xx: the text, the way out, and the exit code the CLI ends with."""

    message: str
    hint: str = ""
    exit_code: int = 1
    problems: tuple[Problem, ...] = ()
    """Where a config was refused: every mistake in it."""
