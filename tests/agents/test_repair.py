"""The broker goes and comes back: nothing crashes, runs twice, or stays behind."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from supervisor_d.agents.supervisor_d_celery.late_answers import overdue, parse
from supervisor_d.agents.supervisor_d_celery.repair import Repair
from tests.agents.harness import Node, Server, Truth, full_dose
from tests.support.dose import FULL
from tests.support.waiting import wait_for

pytestmark = pytest.mark.real

Start = Callable[..., Node]
LATE = {"task_acks_late": True}
STALE = "dropping stale connection"
"""What kombu 5.7 logs when it does that."""


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "own", append_only=True)
    yield server
    server.kill()


@pytest.fixture
def here(own: Server, store: Server) -> Iterator[Truth]:
    store.client().flushall()
    truth = Truth(own, store)
    yield truth
    truth.close()


def full(here: Truth, count: int) -> bool:
    return len(set(here.started())) >= count and here.unacked() == 8


def settled(here: Truth, node: Node) -> bool:
    return here.queued() == here.unacked() == 0 and node.beat()["active"] == 0


@pytest.mark.parametrize(("prefetch", "late"), [(1, True), (4, True), (4, False)] if FULL else [(4, True)])
def test_restarted_under_load(start: Start, here: Truth, own: Server, prefetch: int, late: bool) -> None:
    node = start(own.url, prefetch=prefetch, conf={"task_acks_late": late})
    node.ready()
    here.send(range(30), 0.6)
    wait_for(lambda: len(here.finished()) >= 2, 30, "some work")
    own.kill()
    before = len(here.started())
    wait_for(lambda: not node.beat()["connected"], 10, "the loss to be noticed")
    assert node.process.poll() is None
    own.start()
    wait_for(lambda: len(here.started()) > before, 30, "work to go on")
    here.wait_finished(30, 60)
    wait_for(lambda: settled(here, node), 10, "everything to be settled")
    assert sorted(here.started()) == list(range(30)), "each once"
    beat = node.beat()
    assert beat["connected"]
    assert beat["can_consume"]
    assert node.stop() == 0


def test_reset_while_running_it_does_not_run_twice(start: Start, truth: Truth, broker: Server) -> None:
    node = start(prefetch=2, conf=LATE)
    node.ready()
    truth.send(range(8), 1.5)
    wait_for(lambda: len(truth.started()) == 2 and truth.unacked() == 4, 20, "two running, two waiting")
    broker.client().execute_command("CLIENT", "KILL", "TYPE", "normal")
    truth.wait_finished(8, 40)
    wait_for(lambda: settled(truth, node), 10, "everything to be settled")
    assert sorted(truth.started()) == list(range(8))


@full_dose
def test_its_task_ends_while_the_broker_is_away(start: Start, here: Truth, own: Server) -> None:
    node = start(own.url, prefetch=1, conf=LATE)
    node.ready()
    here.send(range(4), 1.0)
    wait_for(lambda: len(here.started()) == 2, 20, "two running")
    own.kill()
    here.wait_finished(2, 20)
    own.start()
    here.wait_finished(4, 40)
    wait_for(lambda: settled(here, node), 10, "everything to be settled")
    assert sorted(here.started()) == list(range(4))


@full_dose
def test_again_and_again(start: Start, here: Truth, own: Server) -> None:
    node = start(own.url, prefetch=4, conf=LATE)
    node.ready()
    for first in range(0, 30, 10):
        here.send(range(first, first + 10), 0.4)
        # Without credit no BRPOP is under way: what the broker pops and cannot deliver before it dies is lost by it.
        wait_for(partial(full, here, first + 2), 30, "a full worker")
        own.kill()
        own.start()
    here.wait_finished(30, 60)
    wait_for(lambda: settled(here, node), 10, "everything to be settled")
    assert sorted(here.started()) == list(range(30))


def test_stopped_while_the_broker_is_away_the_ledger_knows(start: Start, here: Truth, own: Server) -> None:
    node = start(own.url, prefetch=2, conf=LATE)
    node.ready()
    here.send(range(6), 1.0)
    wait_for(lambda: len(here.started()) == 2 and here.unacked() == 4, 20, "two running, two waiting")
    own.kill()
    node.process.terminate()
    node.process.wait(30)
    own.start()
    code, counts, _ = node.restore()
    assert code == 0
    assert counts["held"] == 4 == counts["acked"] + counts["restored"]
    assert here.unacked() == 0
    assert here.queued() == 6 - counts["acked"]
    assert counts["acked"] == len(here.finished()), "what was done is not done again"


def test_drained_it_stays_drained_over_a_reconnect(start: Start, here: Truth, own: Server) -> None:
    node = start(own.url, conf=LATE)
    canary = start(own.url, env={"SUPERVISOR_D_CANARY": "1"})
    node.ready()
    canary.ready()
    node.done("drain")
    own.kill()
    both = (node, canary)
    wait_for(lambda: not any(each.beat()["connected"] for each in both), 10, "the loss to be noticed")
    own.start()
    wait_for(lambda: all(each.beat()["connected"] for each in both), 20, "the new connections")
    here.send(range(3))
    now = time.monotonic()
    wait_for(lambda: node.beat()["at"] > now + 1.5 and canary.beat()["at"] > now + 1.5, 10, "two more heartbeats")
    assert (here.queued(), here.unacked()) == (3, 0)
    node.done("resume")
    here.wait_finished(3, 20)


class Proxy:
    """Between worker and broker; silent, it passes nothing and closes nothing: the network is gone."""

    def __init__(self, port: int, *, heals: bool = False) -> None:
        self._target = port
        self.heals = heals
        self.spoken = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.silent = threading.Event()
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self._sockets.append(near)
                if self.silent.is_set():
                    continue
                far = socket.create_connection(("127.0.0.1", self._target))
                self._sockets.append(far)
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if self.silent.is_set() and not self.heals:
                    return  # these two hear nothing of each other any more
                while self.silent.is_set():
                    self.spoken.wait(1)
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)

    def speak(self) -> None:
        self.silent.clear()
        self.spoken.set()

    def close(self) -> None:
        self._listener.close()
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)  # a thread that reads keeps it open, and with it a BRPOP of nobody's
            each.close()


@full_dose
@pytest.mark.slow
def test_half_open_it_consumes_again_within_twenty_seconds(start: Start, truth: Truth, broker: Server) -> None:
    proxy = Proxy(broker.port)
    try:
        node = start(f"redis://127.0.0.1:{proxy.port}/0", prefetch=1, conf=LATE)
        node.ready()
        truth.send(range(2))
        truth.wait_finished(2, 20)
        proxy.silent.set()
        silent = time.monotonic() + 2.0
        wait_for(lambda: time.monotonic() > silent, 5, "the broker to give up the last BRPOP")
        truth.send(range(2, 6))
        began = time.monotonic()
        threading.Timer(2.0, proxy.silent.clear).start()
        truth.wait_finished(6, 40)
        seconds = time.monotonic() - began
        print(f"half-open: consumed again after {seconds:.1f} s")
        assert seconds < 22
        wait_for(lambda: settled(truth, node), 20, "everything to be settled")
        assert sorted(truth.started()) == list(range(6))
    finally:
        proxy.close()


def _silence_with_an_answer_on_its_way(node: Node, truth: Truth, broker: Server, proxy: Proxy) -> None:
    """Two tasks are done; of four more, the first has left the broker."""
    node.ready()
    truth.send(range(2), 0.1)
    truth.wait_finished(2, 20)
    wait_for(lambda: broker.client().info("clients")["blocked_clients"], 20, "the next BRPOP")
    proxy.silent.set()
    truth.send(range(2, 6), 0.1)
    assert truth.queued() == 3, "the broker has answered the BRPOP, and nobody hears it"


@pytest.mark.slow
def test_half_open_under_load_and_healed_nothing_is_lost(start: Start, truth: Truth, broker: Server) -> None:
    proxy = Proxy(broker.port, heals=True)
    try:
        node = start(f"redis://127.0.0.1:{proxy.port}/0", prefetch=1, conf=LATE)
        _silence_with_an_answer_on_its_way(node, truth, broker, proxy)
        threading.Timer(10.0, proxy.speak).start()
        began = time.monotonic()
        truth.wait_finished(6, 40)
        print(f"half-open for 10 s: all done after {time.monotonic() - began:.1f} s")
        assert time.monotonic() - began < 25
        wait_for(lambda: settled(truth, node), 20, "everything to be settled")
        assert sorted(truth.started()) == list(range(6))
    finally:
        proxy.close()


@pytest.mark.slow
def test_kombus_own_look_at_a_silent_broker_costs_no_message(start: Start, truth: Truth, broker: Server) -> None:
    """kombu 5.7 shuts down a connection whose BRPOP is overdue by health_check_interval, with the answer on its way."""
    proxy = Proxy(broker.port, heals=True)
    options = {"health_check_interval": 1, "socket_timeout": 3, "socket_connect_timeout": 3}
    try:
        node = start(
            f"redis://127.0.0.1:{proxy.port}/0", prefetch=1, conf={**LATE, "broker_transport_options": options}
        )
        _silence_with_an_answer_on_its_way(node, truth, broker, proxy)
        wait_for(lambda: not node.beat()["connected"] or STALE in node.text(), 15, "the silence to be noticed")
        proxy.speak()
        truth.wait_finished(6, 30)
        wait_for(lambda: settled(truth, node), 20, "everything to be settled")
        assert sorted(truth.started()) == list(range(6))
        assert STALE not in node.text(), "it was ours to give up the connection"
    finally:
        proxy.close()


class Asked:
    """A channel with a BRPOP under way."""

    brpop_timeout = 1

    def __init__(self, health_check_interval: float, sock: socket.socket) -> None:
        self.health_check_interval = health_check_interval
        self._in_poll = SimpleNamespace(_sock=sock)


@pytest.mark.parametrize(("interval", "late"), [(25, 6.0), (5, 6.0), (0, 6.0), (1, 2.0)])
def test_a_broker_is_silent_no_later_than_the_application_says(interval: float, late: float) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        channel = Asked(interval, ours)
        assert not overdue(channel, 100.0, 100.0 + late - 0.1)
        assert overdue(channel, 100.0, 100.0 + late)
        theirs.send(b"x")
        assert not overdue(channel, 100.0, 200.0), "its answer is here"


def test_kombu_looks_where_nobody_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [50.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    repair = Repair(lambda _: None, lambda _: None)
    assert repair.looked_after() is None
    channel = SimpleNamespace(qos=SimpleNamespace(restore_by_tag=None))
    channel.qos.channel, channel.qos.connection_errors = channel, ()
    repair.connected(channel)
    assert repair.looked_after() is None
    repair.check(channel, None)
    assert repair.looked_after() is channel
    now[0] += 5.0
    assert repair.looked_after() is None, "no loop, no look"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"", None),
        (b"*2\r\n", None),
        (b"*2\r\n$3\r\nkey\r\n$2\r\nhe", None),
        (b"*2\r\n$3\r\nkey\r\n$4\r\n\r\n\r\n\r\n", (b"key", b"\r\n\r\n")),
        (b"*-1\r\n", ()),
        (b"_\r\n", ()),
        (b"-ERR no\r\n", ()),
        (b"*2\r\n:5\r\n:6\r\n", ()),
    ],
)
def test_what_a_late_answer_says(answer: bytes, expected: object) -> None:
    assert parse(answer) == expected
