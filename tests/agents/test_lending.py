"""A connection that is lent outlives its closing, and must leave main's event loop all the same."""

from __future__ import annotations

import contextlib
import os
import re
import select
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.agents.harness import Node, Server, Truth
from tests.support.waiting import wait_for

Start = Callable[..., Node]


@pytest.fixture
def lending(agent_module: Callable[[str], Any]) -> Any:
    return agent_module("lending")


class Shim:
    """The wire, and who holds what was lent last."""

    def __init__(self) -> None:
        self.main = os.getpid()
        self.held: list[int] = []

    def lend(self, descriptor: int) -> bool:
        self.held.append(os.dup(descriptor))
        return True


class Scene:
    """A channel with redis-py's and kombu's ways: a connection, its socket in an epoll, and a peer."""

    def __init__(self, lending: Any) -> None:
        class Connection:
            _sock: Any = None

            def disconnect(self, *_: object, **__: object) -> None:
                sock, self._sock = self._sock, None
                if sock is not None:
                    sock.close()

        self.shim = Shim()
        self.lender = lending.Lender(self.shim)
        self.connection = Connection()
        self.kind: Any = Connection
        self.epoll = select.epoll()
        cycle = SimpleNamespace(poller=self.epoll)
        client = SimpleNamespace(connection=self.connection)
        self.channel = SimpleNamespace(client=client, connection=SimpleNamespace(cycle=cycle))
        self._peers: list[socket.socket] = []

    def connect(self) -> None:
        self.connection._sock, theirs = socket.socketpair()
        self._peers.append(theirs)
        self.epoll.register(self.connection._sock, select.EPOLLIN)

    def hang_up(self) -> None:
        self._peers.pop().close()

    def close(self) -> None:
        self.connection.disconnect()
        for peer in self._peers:
            peer.close()
        for descriptor in self.shim.held:
            os.close(descriptor)
        self.epoll.close()


@pytest.fixture
def scene(lending: Any) -> Iterator[Scene]:
    scene = Scene(lending)
    scene.connect()
    yield scene
    scene.close()


def test_what_is_lent_leaves_the_poller_before_it_is_closed(scene: Scene) -> None:
    for _ in range(3):
        scene.lender.lend(scene.channel)
        scene.hang_up()
        assert scene.epoll.poll(0)
        scene.connection.disconnect()
        scene.connection.disconnect(error=None)
        assert scene.epoll.poll(0) == []
        scene.connect()
    assert len(scene.shim.held) == 3


def test_one_class_is_wrapped_once(scene: Scene) -> None:
    scene.lender.lend(scene.channel)
    wrapped = scene.kind.disconnect
    scene.connection.disconnect()
    scene.connect()
    scene.lender.lend(scene.channel)
    assert scene.kind.disconnect is wrapped


def test_a_process_forked_from_main_leaves_its_poller_alone(scene: Scene) -> None:
    scene.lender.lend(scene.channel)
    scene.shim.main += 1
    scene.hang_up()
    scene.connection.disconnect()
    assert scene.epoll.poll(0), "main shares it, and has not closed this"


def test_a_poller_that_is_gone_hinders_no_disconnect(scene: Scene) -> None:
    scene.lender.lend(scene.channel)
    scene.epoll.close()
    scene.connection.disconnect()
    assert scene.connection._sock is None


def test_where_there_is_no_poller_nothing_is_lent(scene: Scene) -> None:
    scene.channel.connection.cycle = None
    with pytest.raises(AttributeError):
        scene.lender.lend(scene.channel)
    assert scene.shim.held == []


# ------------------------------------------------------------------------------------------------- a real worker


def borrowed(node: Node) -> socket.socket | None:
    """What the next datagram lends, as the shim takes it."""
    with contextlib.suppress(TimeoutError):
        _, descriptors, _, _ = socket.recv_fds(node.socket, 65536, 1)
        return socket.socket(fileno=descriptors[0]) if descriptors else None
    return None


def opened(pid: int) -> set[str]:
    """What a process has open, as `socket:[INODE]`."""
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(os.readlink(entry))
    return found


def watched(pid: int) -> set[int]:
    """The inodes in a process's epolls."""
    found = set()
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        with contextlib.suppress(OSError):
            found |= {int(inode, 16) for inode in re.findall(r"tfd:.* ino:\s*([0-9a-f]+)", entry.read_text())}
    return found


@pytest.mark.real
def test_an_idle_connection_that_redis_closes_leaves_the_loop(start: Start, broker: Server, truth: Truth) -> None:
    """kombu 5.7 notices at once, and 5.6 when the task ends: until then its own loop is woken for nothing."""
    node = start(concurrency=1, conf={"task_acks_late": True})
    lent = wait_for(lambda: borrowed(node), 30, "a connection, lent")
    assert lent is not None
    with lent:
        inode = os.fstat(lent.fileno()).st_ino
        name = "{}:{}".format(*lent.getsockname())
        client = broker.client()
        truth.send(range(1), 4.0)
        wait_for(lambda: truth.started() == [0], 20, "a task that takes all credit")
        wait_for(lambda: _idle(client, name), 10, "no BRPOP under way")
        assert inode in watched(node.pid)
        client.client_kill(name)
        wait_for(lambda: f"socket:[{inode}]" not in opened(node.pid), 20, "main's closing it")
        assert inode not in watched(node.pid)


def _idle(client: Any, name: str) -> bool:
    """Whether this connection asks for nothing just now."""
    (one,) = (each for each in client.client_list() if each["addr"] == name)
    return "b" not in one["flags"]
