"""The site is scaled up and down under load."""

from __future__ import annotations

import random

import pytest

from tests.lossless.http_load import HttpLoad
from tests.lossless.website import SECONDS, Website
from tests.support.dose import FULL, dose, report

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(1500 if FULL else 180)]


@pytest.mark.parametrize("shape", ["gthread", *(["sync", "asgi"] if FULL else [])])
def test_scales_up_and_down(shape: str) -> None:
    times = dose(4, 50)
    with Website(shape) as site:
        site.wait_served()
        master, at = site.pid_of("web"), len(site.workers())
        sizes = range(at - 1, at + 3)
        with HttpLoad(site.port, rate=site.rate) as load:
            for _ in range(times):
                at = random.choice([size for size in sizes if size != at])
                site.must("scale", f"web={at}", seconds=SECONDS)
                site.wait_workers(at)
        assert site.pid_of("web") == master
    told = load.told
    report(
        f"scales up and down ({shape})",
        times,
        must_hold="0 failed",
        requests=told.done,
        failed=told.failures,
        masters_replaced=0,
        slowest_ms=round(told.slowest_ms),
        client_late_at_worst_ms=round(told.client_late_ms),
    )
    assert told.failed == []
