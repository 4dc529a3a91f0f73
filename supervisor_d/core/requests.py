"""Figures of requests: what a worker serves now, and totals that only grow.  Times are monotonic seconds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from supervisor_d.core.snapshot import Serving, Traffic

CLASSES = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")
"""How a request was answered; `none`: the client went away before there was an answer."""

BOUNDS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the durations that are counted apart; longer ones are counted last."""

DOINGS = ("booting", "idle", "busy")


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

    @property
    def doing(self) -> str:
        """`booting`, `busy` or `idle`."""
        if not self.ready:
            return "booting"
        return "busy" if self.in_flight else "idle"


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

    def at_least(self, former: Requests) -> Requests:
        """These totals, none of them below what was known before: whoever tells them must not make them shrink."""
        return Requests(
            tuple(map(max, self.by_class, former.by_class)),
            max(self.seconds, former.seconds),
            tuple(map(max, self.durations, former.durations)),
        )


@dataclass(frozen=True, slots=True)
class Reading:
    """What one process told of its requests."""

    pool: str
    workers: tuple[WorkerFacts, ...]
    totals: Requests


def serving(reading: Reading, now: float) -> Serving:
    """One process, for people."""
    return Serving(_in_flight(reading.workers), reading.totals.total, _oldest(reading.workers, now))


def traffic(readings: Iterable[Reading], former: Requests, now: float) -> Traffic:
    """A pool, for people: its processes, and `former`, the totals of those that are gone."""
    workers: list[WorkerFacts] = []
    totals = former
    for reading in readings:
        workers += reading.workers
        totals += reading.totals
    doing = [worker.doing for worker in workers]
    return Traffic(
        requests_total=dict(zip(CLASSES, totals.by_class, strict=True)),
        duration_seconds_total=totals.seconds,
        duration_bounds=BOUNDS_SECONDS,
        duration_counts=totals.durations,
        in_flight=_in_flight(workers),
        oldest_request_seconds=_oldest(workers, now) or 0.0,
        workers={word: doing.count(word) for word in DOINGS},
    )


def _in_flight(workers: Iterable[WorkerFacts]) -> int:
    return sum(worker.in_flight for worker in workers)


def _oldest(workers: Iterable[WorkerFacts], now: float) -> float | None:
    began = [worker.oldest_began_at for worker in workers if worker.oldest_began_at is not None]
    return max(0.0, now - min(began)) if began else None
