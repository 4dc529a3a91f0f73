"""SIGKILL of Celery under load, with late acknowledgement and reject_on_worker_lost: what was delivered comes back.

What cannot come back is a message that Redis hands to a main process which dies before it has read it: between the
SIGKILL and the instant at which the kernel closes its sockets, one for each main that waits for work.  That bound is
asserted; what was lost is counted and told.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import pytest

from tests.lossless.queue_shop import SECONDS, QueueShop
from tests.lossless.task_load import FLOOD
from tests.support import procs
from tests.support.dose import FULL, dose, report
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(1500 if FULL else 180)]

KEYS: dict[str, Any] = {"workers": 8, "concurrency": 4, "prefetch": 4, "restart": {"stable": "100ms", "limit": 1000}}
BACK_SECONDS = 2.0 if FULL else 10.0
"""Messages that nobody brings back stay away for an hour.  The short dose runs beside other tests."""


def _a_main(shop: QueueShop) -> list[int]:
    return [random.choice(shop.mains())]


def _a_pool_process(shop: QueueShop) -> list[int]:
    return [random.choice(shop.pool_processes())]


def _all(shop: QueueShop) -> list[int]:
    return [pid for main in shop.mains() for pid in (main, *procs.children(main))]


VICTIMS: Mapping[str, Callable[[QueueShop], list[int]]] = {
    "a Celery main": _a_main,
    "a pool process": _a_pool_process,
    "all mains and pool processes at once": _all,
}


def _kill(pids: list[int]) -> float:
    """SIGKILL; the monotonic time of it."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return time.monotonic()


def _wait_for_any_instant() -> None:
    """So that a kill falls anywhere between two sendings, and not just behind one."""
    until = time.monotonic() + random.uniform(0, 0.1)
    wait_for(lambda: time.monotonic() >= until, 1, "an instant")


def _seconds_until_back(shop: QueueShop, victims: list[int]) -> float:
    """Kill them; how long until nothing of what was delivered at that time is with the dead.

    A message is back when it stands in `unacked` no more, or when somebody has noted something of its task since.
    """
    length, mains = shop.records.length(), shop.mains()
    killed = _kill(victims)
    delivered = set(shop.broker.held().unacked)
    if set(victims).isdisjoint(mains):
        delivered &= _begun_by(victims, shop)

    def back() -> bool:
        since = {note.task for note in shop.records.notes(length) if note.at > killed}
        return not delivered & set(shop.broker.held().unacked) - since

    wait_for(back, SECONDS, "every delivered message to be back")
    return time.monotonic() - killed


def _begun_by(pids: list[int], shop: QueueShop) -> set[str]:
    """What these pool processes have begun."""
    return {note.task for note in shop.records.notes() if note.pid in pids}


@pytest.mark.parametrize("whom", VICTIMS)
def test_what_was_delivered_comes_back(whom: str) -> None:
    times = dose(2, 20)
    back: list[float] = []
    with QueueShop(late=True, **KEYS) as shop, shop.load(rate=20, seconds=(0.05, 0.3)) as load:
        for _ in range(times):
            load.wait_more(20)
            _wait_for_any_instant()
            victims = VICTIMS[whom](shop)
            back.append(_seconds_until_back(shop, victims))
            shop.wait_running("queue", seconds=SECONDS)
            wait_for(lambda: len(shop.pool_processes()) == KEYS["workers"], SECONDS, "all pool processes")
        verdict = shop.settle(load)
    report(
        f"kill -9 of {whom}",
        times,
        must_hold="0 lost; messages back within 2 s",
        back_at_worst_ms=round(max(back) * 1000),
        **verdict.in_numbers(),
    )
    assert (verdict.lost, verdict.stranded) == ([], [])
    assert max(back) < BACK_SECONDS


def test_a_container_that_is_killed_whole_and_started_again_with_another_config() -> None:
    """All that the daemon ever started dies with it, and the files are as they were but for the identity of PID 1."""
    with QueueShop(late=True, **KEYS) as shop, shop.load(rate=20, seconds=(0.05, 0.3)) as load:
        for number in range(dose(1, 5)):
            load.wait_more(20)
            _kill(list(shop.pids("redis").values()))  # first: what it hands to the dying is lost, see above
            wait_for(lambda: not _kill_all(shop), 10, "the container's end")
            (shop.directory / "run" / "ruling").write_text("another life")
            shop.configure(shop.pools(prefetch=5 + number))
            shop.start()
            shop.wait_running("queue", seconds=SECONDS)
            shop.wait_event("restore")
        verdict = shop.settle(load)
    assert (verdict.lost, verdict.stranded) == ([], [])


def _kill_all(shop: QueueShop) -> set[int]:
    """SIGKILL to all that is left; who that was."""
    left = set(shop.marker.members())
    _kill(list(left))
    return left


def test_a_flood() -> None:
    """Thousands of short tasks: each main that dies has just been handed something, or is about to be."""
    times = dose(2, 20)
    with (
        QueueShop(late=True, **KEYS) as shop,
        shop.load(rate=FLOOD, seconds=(0.001, 0.01), most=times * 600) as load,
    ):
        for number in range(1, times + 1):
            shop.records.wait_length(2 * number * 300, SECONDS)
            _kill(_a_main(shop))
            wait_for(lambda: len(shop.mains()) == 2, SECONDS, "both nodes")
            shop.wait_running("queue", seconds=SECONDS)
        verdict = shop.settle(load, dose(1, 6) * SECONDS)
    report(
        "kill -9 of a Celery main under a flood",
        times,
        must_hold="counted: at most one message for each kill",
        **verdict.in_numbers(),
    )
    assert verdict.stranded == []
    assert len(verdict.lost) <= times
