"""The store of listening sockets, as a real process: what it keeps outlives the daemon, what it gives up is free."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from supervisor_d.runtime import pidfd, socket_store
from supervisor_d.runtime.inherited import fd_name
from supervisor_d.runtime.socket_store import SocketStore
from supervisor_d.runtime.zygote import STORE, Zygote
from supervisor_d.shim import kernel, wire
from supervisor_d.shim import store as shim_store
from tests.support import procs
from tests.support.waiting import eventually

pytestmark = pytest.mark.real


class World:
    """A runtime directory, and daemons' sides of its store, one after the other."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.zygote = Zygote(directory / "rehearsal")
        self.lost: list[str] = []
        self.stores: set[int] = set()

    def begin(self, link: socket.socket) -> None:
        directory = os.open(self.directory, os.O_RDONLY)
        try:
            self.zygote.request([link.fileno(), directory], STORE)
        finally:
            os.close(directory)

    def side(self) -> SocketStore:
        """A daemon's side that knows of no store yet."""
        return SocketStore(self.directory, self.lost.append)

    async def store(self) -> SocketStore:
        """A daemon's side with a new store, which has come up."""
        store = self.side()
        store.begin_with(self.begin)
        store.ensure()
        await eventually(lambda: self.pid(store), what="its first word")
        return store

    def pid(self, store: SocketStore) -> int | None:
        process = store._process
        if process is not None:
            self.stores.add(process.pid)
        return process.pid if process else None

    def die(self, store: SocketStore) -> None:
        """The daemon's death, as the store sees it."""
        assert store._link is not None
        asyncio.get_running_loop().remove_reader(store._link.fileno())
        store._link.close()
        store._link = None


@pytest_asyncio.fixture
async def world(open_path: Path) -> AsyncIterator[World]:
    world = World(open_path)
    yield world
    for pid in world.stores:
        if procs.alive(pid):
            os.kill(pid, signal.SIGKILL)
    world.zygote.close()


@contextmanager
def listening(count: int = 1) -> Iterator[list[socket.socket]]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        yield sockets
    finally:
        for each in sockets:
            each.close()


def keep(store: SocketStore, each: socket.socket, pool: str = "") -> str:
    name = fd_name(pool, each.fileno())
    assert store.store(name, each.fileno())
    return name


@contextmanager
def found(store: SocketStore) -> Iterator[dict[str, tuple[str, int]]]:
    """Pool and inode by name of what a former daemon's store holds."""
    given = store.find()
    try:
        yield {name: (each.pool, os.fstat(each.fd).st_ino) for name, each in given.items()}
    finally:
        for each in given.values():
            os.close(each.fd)


def queue(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 2)


async def test_sockets_outlive_all_who_held_them(world: World) -> None:
    store = await world.store()
    with listening() as (web,), listening() as (api,):
        port, inodes = web.getsockname()[1], [os.fstat(each.fileno()).st_ino for each in (web, api)]
        names = [keep(store, web), keep(store, api, "api")]
        world.die(store)
    world.zygote.close()  # it forked the store, and takes nothing with it
    with queue(port) as waiting:
        waiting.setblocking(False)
        store = world.side()
        with found(store) as sockets:
            assert sockets == {names[0]: ("", inodes[0]), names[1]: ("api", inodes[1])}
        with pytest.raises(BlockingIOError):
            waiting.recv(1)
    store.end()
    assert not world.side().find()
    await eventually(lambda: not any(map(procs.alive, world.stores)), what="the store's end")
    with pytest.raises(ConnectionRefusedError):
        queue(port)


async def test_an_address_that_is_given_up_is_free_at_once(world: World) -> None:
    store = await world.store()
    for _ in range(20):
        with listening() as (web,):
            port, name = web.getsockname()[1], keep(store, web)
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
        assert store.unstore(name)
        with socket.socket() as other:
            other.bind(("127.0.0.1", port))


async def test_more_than_one_message_holds(world: World) -> None:
    store = await world.store()
    with listening(2 * shim_store.AT_ONCE + 1) as sockets:
        names = {keep(store, each) for each in sockets}
    assert store.unstore(dropped := min(names))
    world.die(store)
    with found(world.side()) as given:
        assert given.keys() == names - {dropped}


async def test_a_name_that_is_kept_again_is_one_socket(world: World) -> None:
    store = await world.store()
    with listening(2) as (one, other):
        assert store.store("web@1", one.fileno())
        assert store.store("web@1", other.fileno())
        inode, port = os.fstat(other.fileno()).st_ino, one.getsockname()[1]
    world.die(store)
    with found(world.side()) as given:
        assert given == {"web@1": ("web", inode)}
    with pytest.raises(ConnectionRefusedError):
        queue(port)


async def test_a_store_that_dies_is_told(world: World) -> None:
    store = await world.store()
    assert store.address
    store._begun_at -= socket_store.RETRY_SECONDS
    os.kill(world.stores.pop(), signal.SIGKILL)
    await eventually(lambda: world.lost == ["it ended"], what="it is told")
    assert not store.address
    store.ensure()
    await eventually(lambda: world.pid(store), what="another one")
    with listening() as (web,):
        keep(store, web)


async def test_one_that_dies_at_once_is_not_replaced_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await world.store()
    monkeypatch.setattr(socket_store, "RETRY_SECONDS", 0.3)
    begun, loop = store._begun_at, asyncio.get_running_loop()
    os.kill(world.stores.pop(), signal.SIGKILL)
    await eventually(lambda: world.lost, what="it is told")
    assert loop.time() >= begun + 0.3


@pytest.mark.parametrize("continues", [True, False])
async def test_a_stopped_store_gives_its_sockets_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch, *, continues: bool
) -> None:
    """It is continued; one that does not answer then either (here: that is not continued) is copied and killed."""
    monkeypatch.setattr(socket_store, "ANSWER_SECONDS", 1.0 if continues else 0.2)
    store = await world.store()
    (pid,) = world.stores
    with listening() as (web,):
        name = keep(store, web, "web")
        await eventually(lambda: _holds(pid, web), what="it has it")
        inode = os.fstat(web.fileno()).st_ino
    world.die(store)
    os.kill(pid, signal.SIGSTOP)
    if not continues:
        send = pidfd.send
        monkeypatch.setattr(pidfd, "send", lambda fd, number: number == signal.SIGCONT or send(fd, number))
    store = world.side()
    with found(store) as given:
        assert given == {name: ("web", inode)} if continues else list(given.values()) == [("", inode)]
    assert procs.alive(pid) == bool(store.address) == continues
    if not continues:
        store.begin_with(world.begin)
        await eventually(lambda: world.lost == ["it did not answer"], what="it is told")


def test_a_store_that_comes_too_late_takes_nobodys_place(open_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its daemon died before it came up, and the next one has a store of its own by then."""
    monkeypatch.setattr(kernel, "set_name", lambda _: None)  # it is this process
    (open_path / wire.STORE).touch()
    ours, theirs = kernel.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.close()
    directory = os.open(open_path, os.O_RDONLY)
    shim_store.Store().run(theirs, directory)
    os.close(directory)
    assert (open_path / wire.STORE).is_file()


async def test_a_store_without_sockets_ends_with_its_daemon(world: World) -> None:
    store = await world.store()
    world.die(store)
    await eventually(lambda: not any(map(procs.alive, world.stores)), what="its end")


async def test_a_word_that_was_read_already_blocks_nobody(world: World) -> None:
    """The loop had noticed it when somebody who waited for an answer read it."""
    store = await world.store()
    loop = asyncio.get_running_loop()
    began = loop.time()
    store._ready()
    assert loop.time() - began < socket_store.ANSWER_SECONDS / 2
    assert store.address


def _holds(pid: int, listener: socket.socket) -> bool:
    return f"socket:[{os.fstat(listener.fileno()).st_ino}]" in procs.descriptors(pid).values()


async def test_a_stopped_store_keeps_no_address_that_is_given_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_store, "ANSWER_SECONDS", 0.2)
    store = await world.store()
    store._begun_at -= socket_store.RETRY_SECONDS
    (pid,) = world.stores
    with listening() as (web,):
        port, name = web.getsockname()[1], keep(store, web)
    os.kill(pid, signal.SIGSTOP)
    assert not store.unstore(name)
    assert not procs.alive(pid)
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
    await eventually(lambda: world.lost, what="it is told")


async def test_an_end_that_it_does_not_hear_is_made(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_store, "ANSWER_SECONDS", 0.2)
    store = await world.store()
    (pid,) = world.stores
    os.kill(pid, signal.SIGSTOP)
    store.end()
    assert not procs.alive(pid)
    assert world.lost == []


async def test_where_none_can_be_had_it_is_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_store, "RETRY_SECONDS", 0.05)
    store = world.side()

    def refuse(_: socket.socket) -> None:
        raise BlockingIOError

    def cannot_fork(link: socket.socket) -> None:
        link.send(wire.encode({"event": "failed", "step": "fork its shim", "errno": 11}))

    store.begin_with(refuse)
    store.ensure()
    assert not store.address
    await eventually(lambda: world.lost == [""], what="another attempt")
    store.begin_with(cannot_fork)
    store.ensure()
    await eventually(lambda: world.lost == ["", ""], what="another attempt")
    with listening() as (web,):
        assert not store.store("web@1", web.fileno())
        assert not store.unstore("web@1")


async def test_what_makes_no_sense_ends_the_link_and_nothing_else(world: World) -> None:
    store = await world.store()
    with listening() as (web,):
        name = keep(store, web)
        for junk in (b"no json", b"[1]", b'{"ask":"keep","name":"web@1"}', b'{"ask":7}', wire.encode({"ask": "sing"})):
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
                stranger.connect(store.address)
                stranger.send(junk)
        links = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2 * wire.LINKS_MAX)]
        for link in links:
            link.settimeout(5)
            link.connect(store.address)
        assert links[-1].recv(100) == b"", "one too many"
        for link in links:
            link.close()
        await eventually(lambda: _welcomed(store), what="room for another one")
        world.die(store)
        with found(world.side()) as given:
            assert given.keys() == {name}


def _welcomed(store: SocketStore) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
        link.settimeout(5)
        link.connect(store.address)
        return link.recv(100) != b""


async def test_a_socket_file_of_a_dead_store_is_in_nobodys_way(world: World) -> None:
    await world.store()
    os.kill(world.stores.pop(), signal.SIGKILL)
    assert not world.side().find()
    await world.store()
