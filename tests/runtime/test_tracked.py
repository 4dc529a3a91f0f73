"""Shims that die while they take another's place: each order of a death, its end of file and its last word."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from supervisor_d.core.events import Event, ShimLost, ShimReplaced
from supervisor_d.core.spec import Launch
from supervisor_d.runtime import tracked
from supervisor_d.runtime.known import Known
from supervisor_d.runtime.records import Record, Records, make_spec
from supervisor_d.runtime.tracked import Ties, Tracked
from supervisor_d.shim import wire
from tests.support.waiting import eventually, throughout

pytestmark = pytest.mark.real

ID = "one.0@g1.1"


class Stage:
    """A process on record, its shims and its main process played by `sleep`; and what the tracked one asks for."""

    def __init__(self, directory: Path) -> None:
        records = Records(directory)
        records.prepare()
        self.record: Record = records.of(ID)
        self.spec = make_spec(
            self.record, Launch(("/bin/sleep",), {}, "/", log_name="one.0"), "{}", None, 0, directory, ""
        )
        records.create(self.spec)
        self.events: list[Event] = []
        self.links: list[socket.socket] = []
        self._ended = ExitStack()

    def process(self) -> subprocess.Popen[bytes]:
        """One that is ended with the stage."""
        process = subprocess.Popen(["/bin/sleep", "600"])
        self._ended.callback(process.wait)
        self._ended.callback(process.kill)
        return process

    def started(self) -> subprocess.Popen[bytes]:
        """Put a running process on record; returns its shim."""
        shim, main = self.process(), self.process()
        self.write({"event": "began", "version": wire.VERSION, "process": fields(shim)})
        self.write({"event": "forked", "process": fields(main), "cgroup": False})
        self.write({"event": "opened"})
        self.write({"event": "started"})
        return shim

    def write(self, fact: wire.Message) -> None:
        """Put a fact on record."""
        with (self.record.path / wire.EVENTS).open("ab") as file:
            file.write(wire.encode(fact))

    def follow(self) -> Tracked:
        """The tracked process, taken over from its record."""
        ties = Ties(asyncio.get_running_loop(), self.events.append, _ignore, _ignore, _ignore, keep=self._keep)
        known = Known(ID, "/bin/sleep")
        for fact in self.record.events():
            known.fold(fact)
        followed = Tracked(ties, self.record, self.spec, known)
        self._ended.callback(followed.close)
        followed.take_over()
        return followed

    def _keep(self, _process_id: str, link: socket.socket, _main: int) -> None:
        self.links.append(mine := link.dup())
        self._ended.callback(mine.close)

    def close(self) -> None:
        self._ended.close()


def _ignore(*_: object) -> None:
    pass


def fields(process: subprocess.Popen[bytes]) -> tuple[int, int, int, str]:
    pidfd = os.pidfd_open(process.pid)
    try:
        return wire.identity_fields(process.pid, pidfd)
    finally:
        os.close(pidfd)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    made.close()


async def asked(stage: Stage, times: int) -> socket.socket:
    """The link that goes with the latest request for a shim in adopt mode."""
    await eventually(lambda: len(stage.links) >= times, what="the request for a shim")
    return stage.links[times - 1]


async def test_the_end_of_one_that_died_at_once_does_not_pass_for_the_next_ones(stage: Stage) -> None:
    shim = stage.started()
    stage.follow()
    shim.kill()
    first = await asked(stage, 1)
    short_lived = stage.process()
    replaced = {"event": "replaced", "process": fields(short_lived)}
    short_lived.kill()
    short_lived.wait()
    first.send(wire.encode(replaced))
    second = await asked(stage, 2)
    first.close()
    second.send(wire.encode({"event": "replaced", "process": fields(stage.process())}))
    await eventually(lambda: stage.events.count(ShimReplaced(ID)) == 2, what="the second one's word")
    await throughout(lambda: ShimLost(ID) not in stage.events and len(stage.links) == 2, 0.2, "its staying")


async def test_one_that_dies_before_its_word_is_followed_by_another(stage: Stage) -> None:
    shim = stage.started()
    stage.follow()
    shim.kill()
    (await asked(stage, 1)).close()
    (await asked(stage, 2)).send(wire.encode({"event": "replaced", "process": fields(stage.process())}))
    await eventually(lambda: ShimReplaced(ID) in stage.events, what="the second one's word")
    assert ShimLost(ID) not in stage.events


async def test_they_are_bounded(stage: Stage) -> None:
    shim = stage.started()
    stage.follow()
    shim.kill()
    for number in range(1, tracked.SHORT_LIVES_MAX + 1):
        (await asked(stage, number)).close()
    await eventually(lambda: ShimLost(ID) in stage.events, what="the end of it")
    assert len(stage.links) == tracked.SHORT_LIVES_MAX


async def test_one_whose_link_broke_after_it_was_on_record_stays(stage: Stage) -> None:
    shim = stage.started()
    stage.follow()
    shim.kill()
    link = await asked(stage, 1)
    stage.write({"event": "replaced", "process": fields(stage.process())})
    link.close()
    await eventually(lambda: ShimReplaced(ID) in stage.events, what="its word")
    await throughout(lambda: len(stage.links) == 1, 0.2, "its staying")


async def test_one_that_comes_too_late_is_told_to_go(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracked, "REPLACE_SECONDS", 0.05)
    shim = stage.started()
    stage.follow()
    shim.kill()
    link = await asked(stage, 1)
    await eventually(lambda: ShimLost(ID) in stage.events, what="the end of our patience")
    link.settimeout(5)
    assert link.recv(100) == wire.encode({"ask": "release"})
    assert link.recv(100) == b""
