"""Figures of requests: what a worker serves now, and totals that only grow.  Times are monotonic seconds."""

from __future__ import annotations

from dataclasses import dataclass

CLASSES = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")
"""How a request was answered; `none`: the client went away before there was an answer."""

BOUNDS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the durations that are counted apart; longer ones are counted last."""


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """One worker inside a process, as its agent tells of it: data."""

    pid: int
    age: int
    """Counts up with every worker of a master: the lowest is the oldest."""
    ready: bool
    began_at: float
    in_flight: int
    oldest_began_at: float | None = None
    """When the longest-running request that it serves now began."""
    pss_bytes: int | None = None
    """Its share of memory, where it was measured."""


@dataclass(frozen=True, slots=True)
class Requests:
    """Totals of requests that ended: by class of their answer, how long they took in all, and how many how long."""

    by_class: tuple[int, ...] = (0,) * len(CLASSES)
    seconds: float = 0.0
    durations: tuple[int, ...] = (0,) * (len(BOUNDS_SECONDS) + 1)

    def __add__(self, other: Requests) -> Requests:
        return Requests(
            tuple(a + b for a, b in zip(self.by_class, other.by_class, strict=True)),
            self.seconds + other.seconds,
            tuple(a + b for a, b in zip(self.durations, other.durations, strict=True)),
        )

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.by_class)
