"""Nobody runs of whom no daemon knows; and neither zygote nor daemon is needed by who runs."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from supervisor_d.core.events import MainExited, ShimLost, Spawned, SpawnFailed, TreeEmptied
from supervisor_d.core.process import Exit
from supervisor_d.core.spec import Launch
from supervisor_d.runtime.cgroups import Cgroups
from supervisor_d.runtime.records import Records, make_spec
from supervisor_d.runtime.zygote import Zygote
from supervisor_d.shim import wire
from tests.shim.conftest import ENV, ID, ShimWorld
from tests.support import procs
from tests.support.waiting import eventually, wait_for

pytestmark = pytest.mark.real

OTHER = "pool.1@g1.2"


class Gate:
    """A request to a zygote by hand, to stop at any point."""

    def __init__(self, tmp_path: Path, argv: tuple[str, ...]) -> None:
        records = Records(tmp_path)
        records.prepare()
        self.record = records.of(ID)
        launch = Launch(argv, ENV, "/", log_name="pool.0")
        records.create(make_spec(self.record, launch, "{}", None, 0, tmp_path, ""))
        self.zygote = Zygote(tmp_path / "rehearsal")
        self.link, theirs = socket.socketpair()
        directory, log_dir = self.record.open(), os.open(tmp_path, os.O_RDONLY)
        self.zygote.request([theirs.fileno(), directory, log_dir])
        for fd in (directory, log_dir):
            os.close(fd)
        theirs.close()
        self.link.settimeout(10)
        self._lines = wire.Lines()
        self._facts: list[wire.Message] = []

    def hear(self, kind: str) -> wire.Message:
        """The next fact of a kind."""
        while True:
            for fact in self._facts:
                if fact["event"] == kind:
                    return fact
            self._facts += self._lines.feed(self.link.recv(65536))

    def ask(self, word: str) -> None:
        self.link.send(wire.encode({"ask": word}))

    def close(self) -> None:
        self.link.close()
        self.zygote.close()


def test_a_gate_that_is_never_opened_starts_nothing(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    gate = Gate(tmp_path, ("/bin/touch", str(ran)))
    shim = gate.hear("began")["process"][0]
    child = gate.hear("forked")["process"][0]
    assert procs.alive(child)
    gate.close()
    wait_for(lambda: not procs.alive(shim) and not procs.alive(child), what="the end of shim and child")
    assert not ran.exists()


def test_an_opened_gate_starts_it(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    gate = Gate(tmp_path, ("/bin/touch", str(ran)))
    gate.hear("began")
    gate.ask("go")
    gate.hear("started")
    assert os.waitstatus_to_exitcode(gate.hear("exited")["status"]) == 0
    gate.hear("emptied")
    assert ran.exists()
    gate.ask("release")
    assert wait_for(lambda: gate.link.recv(1) == b"", what="the shim's end")
    gate.close()


def test_only_the_first_link_opens_the_gate(tmp_path: Path) -> None:
    gate = Gate(tmp_path, ("/bin/true",))
    gate.hear("began")
    wait_for((gate.record.path / wire.SOCKET).exists, what="the shim's socket")
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.settimeout(10)
        wait_for(lambda: stranger.connect_ex(str(gate.record.path / wire.SOCKET)) == 0)
        stranger.send(wire.encode({"ask": "go"}) + wire.encode({"ask": "release"}))
        lines = wire.Lines()
        facts: list[wire.Message] = []
        while not any(fact["event"] == "forked" for fact in facts):
            facts += lines.feed(stranger.recv(65536))
        stranger.settimeout(0.2)
        with pytest.raises(TimeoutError):
            stranger.recv(1)
    gate.ask("go")
    gate.hear("started")
    gate.hear("emptied")
    gate.ask("release")
    gate.close()


def test_a_child_killed_at_its_gate_was_never_started(tmp_path: Path) -> None:
    gate = Gate(tmp_path, ("/bin/true",))
    os.kill(gate.hear("forked")["process"][0], signal.SIGKILL)
    assert gate.hear("failed")["step"] == "wait for its exec"
    gate.close()


async def test_the_zygote_may_die(shims: ShimWorld) -> None:
    shims.sh("sleep 1000")
    pid = await shims.spawned()
    zygote = shims.host._zygote.pid
    assert zygote
    os.kill(zygote, signal.SIGKILL)
    for number in range(3):
        other = f"pool.1@g1.{number}"
        shims.sh("exit 5", process_id=other)
        assert await shims.over(other) == Exit(code=5)
    assert procs.alive(pid)
    os.kill(pid, signal.SIGSEGV)
    assert await shims.over() == Exit(signal=11)
    assert not shims.seen(ShimLost)


async def test_a_spare_that_dies_is_replaced(shims: ShimWorld) -> None:
    shims.sh("sleep 1000")
    await shims.spawned()
    zygote = shims.host._zygote.pid
    assert zygote
    shim = shims.fact(ID, "began")["process"][0]
    spares = await eventually(lambda: set(procs.children(zygote)) - {shim}, what="a spare")
    for spare in spares:
        os.kill(spare, signal.SIGKILL)
    shims.sh("exit 5", process_id=OTHER)
    assert await shims.over(OTHER) == Exit(code=5)


async def test_a_shim_released_is_reaped_at_once(shims: ShimWorld) -> None:
    shims.sh("exit 0")
    await shims.over()
    shim = shims.fact(ID, "began")["process"][0]
    shims.host.forget(ID)
    await eventually(lambda: procs.stat(int(shim)) is None, 1, "the shim's end")


async def test_killed_before_it_was_started(shims: ShimWorld, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    shims.start("/bin/touch", str(ran))
    shims.host.kill(ID)
    assert await shims.failure() == "cannot start /bin/touch: it was killed before it was started"
    await shims.settle()
    assert not ran.exists()
    shims.host.forget(ID)
    assert not shims.record(ID).exists()


async def test_a_signal_that_comes_too_early_is_kept(shims: ShimWorld) -> None:
    shims.start("/bin/sleep", "1000")
    shims.host.signal(ID, "TERM")
    assert await shims.over() == Exit(signal=15)
    assert shims.seen(Spawned)


async def test_many_at_once(shims: ShimWorld) -> None:
    ids = [f"pool.{number}@g1.{number}" for number in range(60)]
    for number, process_id in enumerate(ids):
        shims.sh(f"exit {number}", process_id=process_id, log_name=f"pool.{number}")
    for number, process_id in enumerate(ids):
        assert await shims.over(process_id) == Exit(code=number)


async def test_too_many_listeners_are_refused(shims: ShimWorld) -> None:
    shims.start("/bin/true", listeners=tuple([0] * 201))
    assert await shims.failure() == "cannot start /bin/true: more than 200 listeners"


async def test_an_id_is_used_once(shims: ShimWorld) -> None:
    shims.sh("sleep 1000")
    with pytest.raises(ValueError, match="has a record already"):
        shims.sh("sleep 1000")
    await shims.spawned()


async def test_a_shim_that_dies_at_its_gate(shims: ShimWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    shims.sh("sleep 1000")
    await shims.spawned()
    shims.sh("exit 0", process_id=OTHER)
    tracked = shims.host._tracked[OTHER]
    monkeypatch.setattr(tracked, "_open_gate", lambda: None)
    await eventually(lambda: tracked.known.main, what="the child")
    assert tracked.known.shim
    os.kill(tracked.known.shim.pid, signal.SIGKILL)
    assert (await shims.failure(OTHER)).endswith("its shim died")
    await shims.settle()
    assert [kind for kind in (MainExited, TreeEmptied, ShimLost) if shims.seen(kind, OTHER)] == []
    assert shims.seen(SpawnFailed, OTHER)


def test_cgroups_are_refused_gracefully(tmp_path: Path) -> None:
    cgroups = Cgroups(tmp_path, tmp_path / "no" / "cgroup")
    assert cgroups.create(ID) == ""
    assert Cgroups(tmp_path, None).create(ID) == ""
