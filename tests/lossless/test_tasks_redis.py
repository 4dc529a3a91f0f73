"""The broker is restarted, killed, and out of reach for a while, under load: everything waits, and goes on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack

import pytest

from tests.lossless.proxy import SilentProxy
from tests.lossless.queue_shop import SECONDS, QueueShop
from tests.lossless.task_load import TaskLoad
from tests.support import net
from tests.support.dose import FULL, dose, report
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(1500 if FULL else 180)]

SILENT_SECONDS = 10.0
AGAIN_SECONDS = 20.0


def _restart(shop: QueueShop, _: SilentProxy) -> None:
    shop.must("restart", "redis", seconds=SECONDS)


def _kill(shop: QueueShop, _: SilentProxy) -> None:
    redis = shop.pid_of("redis")
    os.kill(redis, signal.SIGKILL)
    wait_for(lambda: list(shop.pids("redis").values()) not in ([], [redis]), SECONDS, "the next Redis")
    shop.wait_running("redis", seconds=SECONDS)


def _silence(_: QueueShop, proxy: SilentProxy) -> None:
    proxy.fall_silent()
    until = time.monotonic() + SILENT_SECONDS
    wait_for(lambda: time.monotonic() >= until, 2 * SILENT_SECONDS, "the end of the silence")
    proxy.speak()


EVENTS: Mapping[str, Callable[[QueueShop, SilentProxy], None]] = {
    "restarted": _restart,
    "killed": _kill,
    "half-open for 10 s": _silence,
}


@pytest.mark.parametrize("event", EVENTS)
def test_a_broker_that_is_away(event: str) -> None:
    times = dose(1, 10)
    again: list[float] = []
    (broker_port,) = net.free_ports(1)
    with ExitStack() as stack:
        proxy = stack.enter_context(SilentProxy(broker_port))
        shop = QueueShop(late=True, prefetch=4, redis_port=broker_port, broker_port=proxy.port, restart={"limit": 1000})
        stack.enter_context(shop)
        load = stack.enter_context(shop.load(rate=20, seconds=(0.02, 0.2)))
        for _ in range(times):
            load.wait_more(20)
            EVENTS[event](shop, proxy)
            again.append(_seconds_until_consumed(shop, load))
        verdict = shop.settle(load)
    report(
        f"Redis {event}",
        times,
        must_hold="0 lost with late acknowledgement; consumed again within 20 s",
        consumed_again_at_worst_ms=round(max(again) * 1000),
        **verdict.in_numbers(),
    )
    assert (verdict.lost, verdict.stranded) == ([], [])
    assert max(again) < AGAIN_SECONDS


def _seconds_until_consumed(shop: QueueShop, load: TaskLoad) -> float:
    """From now until a task has started that was sent after now; both nodes must be at it again."""
    now, length = time.monotonic(), shop.records.length()
    load.wait_more(1, SECONDS)

    def at_it() -> bool:
        pids = {note.pid for note in shop.records.notes(length) if note.word == "started"}
        return all(pids & children for children in shop.children_by_main())

    wait_for(at_it, SECONDS, "both nodes to begin tasks again")
    return time.monotonic() - now
