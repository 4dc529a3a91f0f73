"""Which worker is to be replaced, if any: each rule at its edge, one worker at a time, the worst first."""

from __future__ import annotations

import math

import pytest

from supervisor_d.core.fitness import AGE_SPREAD, Cure, crashing, cure, short_of_workers
from supervisor_d.core.requests import WorkerFacts
from supervisor_d.core.spec import Fitness

NOW = 1000.0
MIB = 2**20


def worker(pid: int, *, runs: float | None = None, pss: int | None = None, lived: float = 0.0) -> WorkerFacts:
    """A worker whose oldest request runs for `runs` seconds."""
    began_at = None if runs is None else NOW - runs
    return WorkerFacts(pid, pid, True, NOW - lived, int(runs is not None), began_at, pss)


def test_nothing_is_limited_unless_asked() -> None:
    everything = worker(1, runs=1e6, pss=10**12, lived=1e6)
    assert cure([everything], Fitness(), NOW) is None
    assert not Fitness().limits_something
    assert Fitness(age_seconds=1.0).limits_something
    assert cure([], Fitness(1.0, 1, 1.0), NOW) is None


def test_a_request_that_runs_for_too_long() -> None:
    limits = Fitness(request_seconds=60.0)
    found = cure([worker(4711, runs=65.0), worker(4712, runs=10.0), worker(4713)], limits, NOW)
    assert found == Cure(4711, "a request runs for 1m5s, its limit is 1m", stuck=True)
    assert cure([worker(1, runs=60.0)], limits, NOW) is None
    assert cure([worker(1, runs=math.nextafter(60.0, 61) + 1e-9)], limits, NOW) is not None
    assert cure([worker(1)], limits, NOW) is None


def test_the_longest_running_first() -> None:
    found = cure([worker(1, runs=70.0), worker(2, runs=90.0)], Fitness(request_seconds=0.5), NOW)
    assert found is not None
    assert found.pid == 2
    short = cure([worker(1, runs=0.75)], Fitness(request_seconds=0.5), NOW)
    assert short == Cure(1, "a request runs for 0.8s, its limit is 500ms", stuck=True)


def test_a_worker_that_uses_too_much_memory() -> None:
    limits = Fitness(memory_bytes=300 * MIB)
    found = cure([worker(1, pss=301 * MIB), worker(2, pss=400 * MIB), worker(3)], limits, NOW)
    assert found == Cure(2, "it uses 400 MiB (PSS), its limit is 300MiB")
    assert cure([worker(1, pss=300 * MIB), worker(2)], limits, NOW) is None


def test_a_worker_that_is_too_old() -> None:
    limits = Fitness(age_seconds=100.0)
    found = cure([worker(1, lived=200.0), worker(2, lived=300.0)], limits, NOW)
    assert found == Cure(2, "it is 5m old, its limit is 1m40s")
    assert cure([worker(1, lived=100.0), worker(2, lived=1.0)], limits, NOW) is None


def test_ages_are_spread_and_always_the_same() -> None:
    limits = Fitness(age_seconds=100.0)
    due = [pid for pid in range(100, 300) if cure([worker(pid, lived=105.0)], limits, NOW)]
    assert 60 < len(due) < 140, "about half of them at half of the spread"
    assert due == [pid for pid in range(100, 300) if cure([worker(pid, lived=105.0)], limits, NOW)]
    assert all(cure([worker(pid, lived=100 * (1 + AGE_SPREAD) + 1)], limits, NOW) for pid in range(100, 300))


def test_what_hurts_now_comes_first() -> None:
    limits = Fitness(request_seconds=60.0, memory_bytes=100 * MIB, age_seconds=100.0)
    all_of_them = [worker(1, lived=900.0), worker(2, pss=900 * MIB), worker(3, runs=61.0)]
    picked = []
    while found := cure(all_of_them, limits, NOW):
        picked.append(found.pid)
        all_of_them = [each for each in all_of_them if each.pid != found.pid]
    assert picked == [3, 2, 1]


@pytest.mark.parametrize(
    ("crashes", "workers", "ailing"), [(9, 1, False), (10, 1, True), (10, 4, False), (12, 4, True)]
)
def test_workers_that_keep_crashing(crashes: int, workers: int, ailing: bool) -> None:
    times = [NOW - 1.0] * crashes + [NOW - 60.0] * 50
    told = crashing(times, workers, NOW)
    assert told == (f"its workers keep crashing: {crashes} of them within 1m" if ailing else "")


def test_fewer_workers_than_wanted_for_too_long() -> None:
    assert short_of_workers(1, 4, NOW - 59.9, 60.0, NOW) == ""
    told = short_of_workers(1, 4, NOW - 60.0, 60.0, NOW)
    assert told == "it has 1 of 4 workers ready, and has not got there within 1m"
    assert short_of_workers(-1, 1, NOW - 60.0, 60.0, NOW).startswith("it has 0 of 1 workers ready")
    assert short_of_workers(4, 4, NOW - 600.0, 60.0, NOW) == ""


def test_workers_that_are_to_go_and_still_serve_are_no_fault() -> None:
    assert short_of_workers(4, 3, NOW - 600.0, 60.0, NOW) == ""
