"""New Celery nodes that do not come up: rolled back, and nobody but the new nodes has noticed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.lossless.queue_shop import SECONDS, QueueShop
from tests.support.dose import FULL, dose, report
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(1500 if FULL else 180)]

FAULTS = {
    "import error": 'raise RuntimeError("this release does not import")\n',
    "boot hang": "import time\ntime.sleep(600)\n",
    "crash after 2 s": "import os, threading\nthreading.Timer(2.0, os._exit, (5,)).start()\n",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_new_nodes_that_do_not_come_up(fault: str) -> None:
    times = dose(1, 7)
    keys: dict[str, Any] = {"start_timeout": "8s", "rollout": {"min_ready": "3s"}, "stop": "TERM 5s, QUIT 2s, KILL"}
    with QueueShop(late=True, prefetch=4, **keys) as shop, shop.load(rate=20, seconds=(0.02, 0.1)) as load:
        before = shop.pids("queue")
        for _ in range(times):
            shop.release(FAULTS[fault])
            done = shop.reload(SECONDS)
            assert done.returncode == 1, done.stdout + done.stderr
            rollout = shop.pool("queue").rollout
            assert rollout is not None
            assert rollout.verdict == "rolled-back"
            wait_for(lambda: shop.pids("queue") == before, SECONDS, "only the old nodes to be left")
            shop.point_to("r1")
            assert shop.reload(SECONDS).returncode == 0
        verdict = shop.settle(load)
    told = verdict.in_numbers()
    must_hold = "0 lost, 0 doubled, rolled back"
    report(f"Celery roll to broken nodes: {fault}", times, must_hold=must_hold, rolled_back=times, **told)
    assert (verdict.lost, verdict.stranded, verdict.doubled, verdict.again) == ([], [], [], [])
