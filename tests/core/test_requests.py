"""Totals of requests add up."""

from __future__ import annotations

from supervisor_d.core.requests import BOUNDS_SECONDS, CLASSES, Reading, Requests, WorkerFacts, serving, traffic
from supervisor_d.core.snapshot import Serving


def test_sums() -> None:
    some = Requests((1, 0, 5, 0, 2, 0), 1.5, (3, 5, *(0,) * 12))
    more = Requests((0, 0, 1, 1, 0, 3), 2.0, (*(0,) * 13, 5))
    assert some + Requests() == some
    both = some + more
    assert both == Requests((1, 0, 6, 1, 2, 3), 3.5, (3, 5, *(0,) * 11, 5))
    assert both.total == 13
    assert len(both.by_class) == len(CLASSES)
    assert len(both.durations) == len(BOUNDS_SECONDS) + 1


def test_what_is_told_never_shrinks() -> None:
    before = Requests((1, 0, 6, 0, 0, 0), 3.0, (7, *(0,) * 13))
    assert Requests().at_least(before) == before
    more = Requests((1, 0, 7, 0, 0, 0), 3.5, (8, *(0,) * 13))
    assert more.at_least(before) == more


def worker(pid: int, *, ready: bool = True, began: tuple[float, ...] = ()) -> WorkerFacts:
    return WorkerFacts(pid, pid, ready, 0.0, len(began), min(began, default=None))


def test_a_process_and_its_pool() -> None:
    one = Reading("web", (worker(1, began=(7.0, 9.0)), worker(2)), Requests((0, 0, 5, 0, 0, 0), 1.0))
    two = Reading("web", (worker(3, ready=False), worker(4, began=(8.0,))), Requests((0, 0, 0, 0, 0, 2), 1.0))
    assert serving(one, 10.0) == Serving(2, 5, 3.0)
    assert serving(Reading("web", (), Requests()), 10.0) == Serving(0, 0, None)
    whole = traffic([one, two], Requests((3, 0, 0, 0, 0, 0), 0.5), 10.0)
    assert whole.requests_total == {"none": 3, "1xx": 0, "2xx": 5, "3xx": 0, "4xx": 0, "5xx": 2}
    assert (whole.in_flight, whole.oldest_request_seconds, whole.duration_seconds_total) == (3, 3.0, 2.5)
    assert whole.workers == {"booting": 1, "idle": 1, "busy": 2}
    assert traffic([], Requests(), 10.0).oldest_request_seconds == 0.0
