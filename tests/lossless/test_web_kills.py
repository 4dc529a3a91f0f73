"""SIGKILL of gunicorn under load: of a master, which costs nothing, and of a worker, which costs what it held."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Mapping

import pytest

from tests.lossless.http_load import Failed, HttpLoad
from tests.lossless.website import SECONDS, Website, Work, wait_gone
from tests.support.dose import FULL, dose, report
from tests.support.ending import Watched

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(1500 if FULL else 180)]

SHAPES = ["sync", "gthread", "asgi"]
TOLD_SECONDS = 2.0
"""How long after a kill the client may take to learn of it, on a busy machine."""


def _kill(pid: int) -> float:
    """SIGKILL; the monotonic time of it."""
    with Watched(pid) as watched:
        now = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        watched.end_time(10)
    return now


@pytest.mark.parametrize("shape", SHAPES)
def test_the_death_of_a_master(shape: str) -> None:
    """The next one starts at once on the held socket, and the orphans finish what they have."""
    times = dose(2, 20)
    ready: list[float] = []
    with Website(shape, restart={"stable": "100ms", "limit": 100}) as site:
        site.wait_served()
        with HttpLoad(site.port, rate=site.rate) as load:
            for _ in range(times):
                load.wait_more(50)  # it has been stable for long enough to be started again at once
                master, orphans, serial = site.pid_of("web"), site.workers(), site.last_serial()
                killed = _kill(master)
                site.wait_event("became-ready", after=serial, pool="web", seconds=SECONDS)
                ready.append(time.monotonic() - killed)
                wait_gone(orphans)
                site.wait_served()
                assert site.pid_of("web") != master
    told = load.told
    report(
        f"kill -9 of a gunicorn master ({shape})",
        times,
        must_hold="0 failed",
        requests=told.done,
        failed=told.failures,
        slowest_ms=round(told.slowest_ms),
        next_one_ready_at_worst_ms=round(max(ready) * 1000),
    )
    assert told.failed == []


@pytest.mark.parametrize("shape", SHAPES)
def test_the_death_of_a_worker(shape: str) -> None:
    """What it had begun and not ended fails, and what it had accepted and not read; nobody else's."""
    times = dose(3, 20)
    killed: dict[int, float] = {}
    with Website(shape) as site:
        site.wait_served()
        count = len(site.workers())
        with HttpLoad(site.port, rate=site.rate) as load:
            for _ in range(times):
                load.wait_more(100)
                pid = random.choice(site.workers())
                killed[pid] = _kill(pid)
                site.wait_workers(count)
                site.wait_running("web", seconds=SECONDS)
        noted = site.noted()
    told = load.told
    places = Counter(_place(failed, noted, killed) for failed in told.failed)
    report(
        f"kill -9 of a gunicorn worker ({shape})",
        times,
        must_hold="only the requests in that worker's hands",
        requests=told.done,
        failed=told.failures,
        **{name.replace(" ", "_"): places[name] for name in ("begun by it", "accepted by it", "of others")},
    )
    assert places["of others"] == 0, [f for f in told.failed if _place(f, noted, killed) == "of others"]
    assert not [token for token, work in noted.items() if work.ended is None and work.pid not in killed]


def _place(failed: Failed, noted: Mapping[str, Work], killed: dict[int, float]) -> str:
    """Where a request was when it failed: by the application's notes; unread, by what nobody noted just then."""
    work = noted.get(failed.token)
    if work is not None:
        return "begun by it" if work.pid in killed else "of others"
    at_a_kill = any(at <= failed.at <= at + TOLD_SECONDS for at in killed.values())
    on_its_connection = not failed.kept or failed.pid in killed
    return "accepted by it" if at_a_kill and on_its_connection else "of others"


def test_the_places_of_failures() -> None:
    """The judge itself: each place is told apart."""
    noted = {"dead": Work(1, 0.0, None), "alive": Work(2, 0.0, None)}
    kill = {1: 10.0}
    assert _place(Failed(10.1, "dead", "reset", kept=True, pid=1, seconds=0), noted, kill) == "begun by it"
    assert _place(Failed(10.1, "alive", "reset", kept=True, pid=2, seconds=0), noted, kill) == "of others"
    assert _place(Failed(10.1, "unread", "reset", kept=False, pid=0, seconds=0), noted, kill) == "accepted by it"
    assert _place(Failed(10.1, "unread", "reset", kept=True, pid=2, seconds=0), noted, kill) == "of others"
    assert _place(Failed(9.9, "unread", "reset", kept=False, pid=0, seconds=0), noted, kill) == "of others"
