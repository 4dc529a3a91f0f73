"""Facts folded together: what is known of every pool at one instant.  Frozen; `evolve` makes the next one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from supervisor_d.core.process import Exit, Process

EMPTY: Mapping[str, int] = {}


@dataclass(frozen=True, slots=True)
class SlotFacts:
    """The restart history of one slot in one generation."""

    restarts: tuple[float, ...] = ()
    """Times of the restarts inside the intensity period, oldest first; bounded by the policy's limit + 1."""
    attempt: int = 0
    """How many unexpected ends in a row, without a stable time between."""
    not_before: float = 0.0
    """The slot may not start again before this time (backoff)."""
    failed: str = ""
    """Why the slot gave up; empty while it has not."""
    finished: bool = False
    """It ended by itself and its policy says that this is all."""
    last_exit: Exit | None = None
    last_reason: str = ""

    @property
    def ended_well(self) -> bool:
        """All that was to be done is done."""
        return self.finished and self.last_exit is not None and self.last_exit.ok

    @property
    def ended_badly(self) -> bool:
        """It ended with an error, and its policy says that it is not tried again."""
        return self.finished and not self.ended_well


@dataclass(frozen=True, slots=True)
class PoolFacts:
    """All facts of one pool."""

    processes: Mapping[str, Process] = field(default_factory=dict)
    slots: Mapping[tuple[int, int], SlotFacts] = field(default_factory=dict)
    """By (slot, generation)."""
    admitted_epoch: int = -1
    """The start epoch whose dependencies were once satisfied; a dependency's later death stops nothing."""
    successes: frozenset[int] = frozenset()
    """Generations of a oneshot whose success is on record."""
    restarts_total: Mapping[str, int] = field(default_factory=dict)
    """Unexpected ends that led to a restart, by kind of reason."""
    exits_total: Mapping[str, int] = field(default_factory=dict)
    """Ends of main processes by kind: `ok`, `error`, `signal`, `oom`, `unknown`; and `spawn-failed`."""
    worker_exits_total: Mapping[str, int] = field(default_factory=dict)
    restored_messages_total: int = 0
    """Messages that ended processes had taken and not finished, given back to their queues."""

    @property
    def serving(self) -> tuple[Process, ...]:
        """The processes that are there for the pool's work."""
        return tuple(p for p in self.processes.values() if p.role == "serve")

    @property
    def tried(self) -> tuple[Process, ...]:
        """The processes that try a generation out (core/trial.py)."""
        return tuple(p for p in self.processes.values() if p.role != "serve")


@dataclass(frozen=True, slots=True)
class Observed:
    """Every fact the core knows."""

    pools: Mapping[str, PoolFacts] = field(default_factory=dict)
    next_serial: int = 1

    def pool(self, name: str) -> PoolFacts:
        """The facts of a pool, empty ones for a pool never seen."""
        return self.pools.get(name) or PoolFacts()

    def processes(self) -> Iterator[Process]:
        """Every process of every pool."""
        for facts in self.pools.values():
            yield from facts.processes.values()

    def find(self, process_id: str) -> Process | None:
        """The process with that id, if it is known."""
        facts = self.pools.get(process_id.rpartition("@")[0].rpartition(".")[0])
        return facts.processes.get(process_id) if facts else None
