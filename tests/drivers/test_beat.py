"""What beat says of itself is data: bounded, checked, told on when it changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from supervisor_d.core.events import Remarked
from supervisor_d.core.spec import PoolSpec
from supervisor_d.programs.beat import BeatKeys
from supervisor_d.runtime.drivers.beat import WHY_MAX, BeatDriver
from tests.drivers.support import Told, launch_of, process_of

PID = 4711
ID = "beat.0@g1.1"
SPEC = PoolSpec("beat", "celery-beat", 1, BeatKeys("shop"))


class Listening:
    """A driver that listens to one beat."""

    def __init__(self) -> None:
        self.told = Told()
        self.driver = BeatDriver(self.told.events.append, self.told.ready.append)
        self.driver.started(process_of(SPEC, PID), launch_of(SPEC, Path("/")), "/")

    def hears(self, **said: object) -> None:
        self.driver.told(ID, json.dumps({"pid": PID, **said}))

    @property
    def remarks(self) -> list[str]:
        return [event.remark for event in self.told.events if isinstance(event, Remarked)]


def test_a_life_with_a_lease() -> None:
    beat = Listening()
    beat.hears(ready=True, standby=True, why="a has the lease")
    beat.hears(ready=True, standby=True, why="a has the lease")
    assert (beat.told.ready[:1], beat.remarks) == ([ID], ["stands by: a has the lease"])
    beat.hears(ready=True, lease="held")
    beat.hears(ready=True, lease="held")
    beat.hears(lease="lost", why="late")
    assert beat.remarks[1:] == ["holds the lease", "gave the lease up: late"]
    beat.driver.ended(ID)
    beat.hears(ready=True, lease="held")
    assert len(beat.remarks) == 3


@pytest.mark.parametrize("pid", [1, None, "4711", True])
def test_nobody_else_is_heard(pid: object) -> None:
    beat = Listening()
    beat.hears(pid=pid, ready=True, lease="held")
    assert (beat.told.events, beat.told.ready) == ([], [])


@pytest.mark.parametrize("text", ["", "x", "[]", "[" * 4000, '"ready"', "null", "READY=1"])
def test_what_is_no_word_is_nothing(text: str) -> None:
    beat = Listening()
    beat.driver.told(ID, text)
    assert (beat.told.events, beat.told.ready) == ([], [])


def test_a_reason_is_bounded_and_printable() -> None:
    beat = Listening()
    beat.hears(lease="lost", why="\x1b[31m" + "x" * 4000)
    beat.hears(lease=["held"], standby="yes", why=7)
    first, second = beat.remarks
    assert first == "gave the lease up: ?[31m" + "x" * (WHY_MAX - 5)
    assert second == ""
