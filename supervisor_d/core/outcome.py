"""How an operator's request ended, as data: what became of each pool it touched."""

from __future__ import annotations

from dataclasses import dataclass

from supervisor_d.core.change import PoolChange


@dataclass(frozen=True, slots=True)
class PoolOutcome:
    """The end of one pool's part of an operation: `verdict` is one word (`timeout`: it goes on), `reason` says why."""

    pool: str
    ok: bool
    verdict: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an operation ended for each pool it touched."""

    ok: bool
    message: str
    changes: tuple[PoolChange, ...] = ()
    pools: tuple[PoolOutcome, ...] = ()
