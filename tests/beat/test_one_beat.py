"""One beat under a daemon, whatever is done to either: never two senders, and none for no longer than one boot.

The witness is the queue (tests/beat/sent.py).  A boot is what the journal says of this machine: from spawn to ready.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.beat.sent import PERIOD_SECONDS, assert_never_two, gaps, senders, sent, write_app
from tests.lossless.judge import Records
from tests.support.daemon import Daemon
from tests.support.ending import Watched
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.real, pytest.mark.e2e, pytest.mark.slow]

SECONDS = 60.0
STOP_SECONDS = 1.0
"""Beat's own end, measured at 0.2 s, on a busy machine."""


class BeatShop(Daemon):
    """A daemon whose only pool is beat, and the queue that it sends to."""

    def __init__(self, broker: Records, **keys: object) -> None:
        super().__init__()
        self.broker = broker
        write_app(self.work)
        self._keys = keys
        self.configure(self.pools())

    def pools(self, **more: object) -> dict[str, dict[str, object]]:
        keys = {"program": "celery-beat", "app": "shop", "cwd": str(self.work), **self._keys, **more}
        return {"beat": {**keys, "env": {"BROKER_PORT": str(self.broker.port)}}}

    def sends(self, pid: int | None = None) -> int:
        """Wait until a beat, or this one, has sent something new; its pid."""
        before = len(sent(self.broker))
        found = wait_for(
            lambda: [each.pid for each in sent(self.broker)[before:] if pid in (None, each.pid)], SECONDS, "a task sent"
        )
        return found[0]

    def boot_seconds(self) -> float:
        """The longest boot of a beat here, by the journal."""
        at: dict[tuple[str, str], float] = {(e.subject, e.name): e.at for e in self.events(pool="beat")}
        boots = [
            at[who, what] - at[who, "spawn"] for who, what in at if what == "became-ready" and (who, "spawn") in at
        ]
        return max(boots)

    def assert_one(self, turns: int, more_seconds: float = 0.0) -> None:
        """Never two, as many as there should be, and none for no longer than a stop and a boot."""
        messages = sent(self.broker)
        assert_never_two(messages)
        assert len(senders(messages)) == turns, senders(messages)
        # Ready is told before the first tick; one period may pass until then, and one before the end.
        most = STOP_SECONDS + self.boot_seconds() + 2 * PERIOD_SECONDS + more_seconds
        print(f"gaps {[f'{gap:.2f}' for gap in gaps(messages)]} s, a boot {self.boot_seconds():.2f} s")
        assert max(gaps(messages)) < most


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Records]:
    with Records(tmp_path / "broker") as server:
        yield server


@pytest.fixture
def shop(broker: Records) -> Iterator[BeatShop]:
    with BeatShop(broker) as daemon:
        daemon.wait_running("beat", seconds=SECONDS)
        daemon.sends()
        yield daemon


def test_restarts_and_a_changed_key(shop: BeatShop) -> None:
    for _ in range(3):
        shop.must("restart", "beat")
        shop.sends()
    shop.configure(shop.pools(loglevel="WARNING"))
    shop.must("reload")
    shop.sends()
    shop.assert_one(turns=5)


def test_a_killed_beat(shop: BeatShop) -> None:
    for _ in range(3):
        serial = shop.last_serial()
        os.kill(shop.pid_of("beat"), signal.SIGKILL)
        shop.wait_event("became-ready", after=serial, pool="beat", seconds=SECONDS)
        shop.sends()
    # The first restart in a row is at once; the others wait, which is asked for.
    backoffs = 0.5 + 1.0 + 0.2
    shop.assert_one(turns=4, more_seconds=backoffs)


def test_a_dead_shim(shop: BeatShop) -> None:
    pid, serial = shop.pid_of("beat"), shop.last_serial()
    os.kill(shop.shim_of(pid), signal.SIGKILL)
    shop.wait_event("shim-replaced", after=serial, pool="beat")
    assert shop.sends() == pid
    shop.must("restart", "beat")
    shop.sends()
    shop.assert_one(turns=2)


@pytest.mark.parametrize("moment", ["asked", "told to stop", "gone"])
def test_a_daemon_that_is_killed_while_it_rolls_beat(shop: BeatShop, moment: str) -> None:
    with Watched(shop.pid_of("beat")) as old:
        asked = shop.cli_begin("restart", "beat")
        if moment == "told to stop":
            shop.wait_event("signal", pool="beat", text="TERM", seconds=SECONDS)
        elif moment == "gone":
            assert old.ended(SECONDS)
        began = time.monotonic()
        shop.kill()
        asked.wait(SECONDS)
    shop.start()
    away = time.monotonic() - began
    shop.wait_running("beat", seconds=SECONDS)
    shop.sends()
    if moment == "asked" and len(senders(sent(shop.broker))) == 1:
        return  # the daemon was gone before it heard of it
    shop.assert_one(turns=2, more_seconds=away)
