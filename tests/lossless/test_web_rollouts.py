"""Rollouts of the site under load: of good code that takes its time to boot, and of every kind of broken code."""

from __future__ import annotations

import pytest

from tests.lossless.http_load import HttpLoad
from tests.lossless.website import SECONDS, Website
from tests.support import procs
from tests.support.dose import FULL, dose, report
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(1500 if FULL else 180)]

BOOT_SECONDS = 3.0
SLOWEST_MS = 300.0 if FULL else 2000.0
"""In the short dose, beside other tests: less than a boot, for which no answer may have waited.  A busy machine delays
the load itself too, and by as much the site; that is told by the load, and added.
"""


@pytest.mark.parametrize(("shape", "least"), [("gthread", 50_000), *([("asgi", 0), ("sync", 0)] if FULL else [])])
def test_rollouts_of_good_code(shape: str, least: int) -> None:
    times = dose(2, 20)
    with Website(shape) as site:
        site.wait_served()
        releases = ["r1"]
        with HttpLoad(site.port, rate=site.rate) as load:
            for _ in range(times):
                releases.append(site.release(boot_seconds=BOOT_SECONDS))
                done = site.reload(SECONDS)
                assert done.returncode == 0, done.stdout + done.stderr
                site.wait_served()
            wait_for(lambda: load.done() >= dose(0, least), 600, f"{least} answers")
    told = load.told
    report(
        f"rollouts of good code, boot of 3 s ({shape})",
        times,
        must_hold="0 failed, slowest answer under 300 ms",
        requests=told.done,
        failed=told.failures,
        slowest_ms=round(told.slowest_ms),
        p99_ms=round(told.p99_ms),
        client_late_at_worst_ms=round(told.client_late_ms),
    )
    assert told.failed == []
    assert set(told.releases) == set(releases)
    assert told.slowest_ms < SLOWEST_MS + 2 * told.client_late_ms


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("import error", "this release does not import"),
        ("boot hang", "not ready within"),
        ("500 on the health check", "500"),
        ("crash after 2 s", "exited with code 5"),
        ("bad config file", "invalid syntax"),
    ],
)
def test_deploys_of_broken_code(fault: str, why: str) -> None:
    times = dose(1, 4)
    keys = {
        "start_timeout": "4s",
        "graceful_timeout": "2s",
        "ready": {"http": "/healthz"},
        "rollout": {"min_ready": "3s"},
    }
    with Website("gthread", **keys) as site:
        site.wait_served()
        before, workers = site.pids("web"), site.workers()
        with HttpLoad(site.port, rate=site.rate) as load:
            for _ in range(times):
                site.release(fault)
                done = site.reload(SECONDS)
                said = done.stdout + done.stderr
                assert done.returncode == 1, said
                assert why in said
                rollout = site.pool("web").rollout
                assert rollout is not None
                assert rollout.verdict == "rolled-back"
                wait_for(lambda: site.pids("web") == before, SECONDS, "only the old master to be left")
                site.point_to("r1")
                assert site.reload(SECONDS).returncode == 0
            load.wait_more(100)
        assert site.workers() == workers
        assert all(procs.alive(pid) for pid in workers)
    told = load.told
    report(
        f"deploys of broken code: {fault}",
        times,
        must_hold="0 failed, rolled back, reason named",
        requests=told.done,
        failed=told.failures,
        rolled_back=times,
        reason_named=times,
        answers_of_broken_code=told.done - told.releases.get("r1", 0),
        slowest_ms=round(told.slowest_ms),
    )
    assert told.failed == []
    assert set(told.releases) == {"r1"}
