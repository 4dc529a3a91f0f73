"""Totals of requests add up."""

from __future__ import annotations

from supervisor_d.core.requests import BOUNDS_SECONDS, CLASSES, Requests


def test_sums() -> None:
    some = Requests((1, 0, 5, 0, 2, 0), 1.5, (3, 5, *(0,) * 12))
    more = Requests((0, 0, 1, 1, 0, 3), 2.0, (*(0,) * 13, 5))
    assert some + Requests() == some
    both = some + more
    assert both == Requests((1, 0, 6, 1, 2, 3), 3.5, (3, 5, *(0,) * 11, 5))
    assert both.total == 13
    assert len(both.by_class) == len(CLASSES)
    assert len(both.durations) == len(BOUNDS_SECONDS) + 1
