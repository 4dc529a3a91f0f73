"""Listening sockets come back from whoever still holds them, in one order, and never twice to one address.

The truth is the inode of the socket that listens on the port: as long as it stays the same, so does the queue of
connections that wait in it.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support import net, procs
from tests.support.daemon import Daemon
from tests.support.ending import Watched
from tests.support.waiting import wait_for

pytestmark = pytest.mark.real

KEEPER = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
if os.fork() == 0:
    os.setsid()
while True:
    signal.pause()
"""
"""A main process and a child in a session of its own: both hold the listener."""


def _pool(port: int, **others: Any) -> Mapping[str, Any]:
    command = [sys.executable, "-I", "-S", "-c", KEEPER]
    return {
        "program": "command",
        "command": command,
        "bind": f"127.0.0.1:{port}",
        "restart": {"backoff": "1ms"},
        "rollout": {"max_surge": 1, "max_unavailable": 0},
        **others,
    }


def _inodes(port: int) -> list[str]:
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [row[9] for row in rows if row[1] == f"0100007F:{port:04X}" and row[3] == "0A"]


def _kill(pid: int) -> None:
    with Watched(pid) as watched:
        os.kill(pid, signal.SIGKILL)
        watched.end_time(5)


@contextmanager
def _waiting(port: int) -> Iterator[None]:
    """A connection that nobody has accepted, and that must not be reset."""
    with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
        connection.setblocking(False)
        yield
        with pytest.raises(BlockingIOError):
            connection.recv(1)


@pytest.mark.parametrize("shim", ["lives", "stopped", "dead"])
@pytest.mark.parametrize("main", ["lives", "dead"])
def test_the_socket_outlives_every_combination(shim: str, main: str) -> None:
    (port,) = net.free_ports(1)
    with Daemon({"web": _pool(port)}) as daemon:
        daemon.wait_running("web")
        main_pid = daemon.pid_of("web")
        shim_pid = daemon.shim_of(main_pid)
        (child,) = wait_for(lambda: procs.children(main_pid), 5, "the child")
        (inode,) = _inodes(port)
        with _waiting(port):
            daemon.kill()
            if shim == "stopped":
                os.kill(shim_pid, signal.SIGSTOP)
            elif shim == "dead":
                _kill(shim_pid)
            if main == "dead":
                _kill(main_pid)
            assert procs.alive(child) or (shim, main) == ("lives", "dead")
            daemon.start()
            if shim == "stopped":
                os.kill(shim_pid, signal.SIGCONT)
            if main == "dead":
                daemon.wait_event("spawned", after=daemon.wait_event("adopted").serial)  # until then it holds nothing
            daemon.wait_running("web")
            assert _inodes(port) == [inode]
            daemon.kill()
            daemon.start()
            daemon.wait_running("web")
            assert _inodes(port) == [inode]


NEVER = ["sh", "-c", "exit 1"]


@pytest.mark.parametrize("state", ["stopped", "backoff", "failed"])
def test_the_queue_of_a_pool_without_a_process_outlives_the_daemon(state: str) -> None:
    """Nobody but the daemon and the store has its socket then."""
    (port,) = net.free_ports(1)
    failing: dict[str, Any] = {"command": NEVER, "restart": {"backoff": "5m", "backoff_max": "5m"}}
    if state == "failed":
        failing["restart"] = "never"
    with Daemon({"web": _pool(port, **({} if state == "stopped" else failing))}) as daemon:
        if state == "stopped":
            daemon.wait_running("web")
            daemon.must("stop", "web")
        daemon.wait_pool("web", state)
        (inode,) = wait_for(lambda: _inodes(port), 5, "the socket")
        with _waiting(port):
            for _ in range(2):
                daemon.kill()
                daemon.start()
                assert _inodes(port) == [inode]
        if state != "stopped":
            daemon.configure({"web": _pool(port)})
            daemon.must("reload")
        daemon.must("start", "web")
        daemon.wait_running("web")
        assert _inodes(port) == [inode]


@pytest.mark.parametrize("store", ["lives", "stopped"])
def test_the_socket_outlives_all_that_served_it(store: str) -> None:
    (port,) = net.free_ports(1)
    with Daemon({"web": _pool(port)}) as daemon:
        daemon.wait_running("web")
        main, keeper = daemon.pid_of("web"), daemon.store_pid()
        shim, (child,) = daemon.shim_of(main), wait_for(lambda: procs.children(main), 5, "the child")
        (inode,) = _inodes(port)
        with _waiting(port):
            daemon.kill()
            for pid in (shim, main, child):
                _kill(pid)
            if store == "stopped":
                os.kill(keeper, signal.SIGSTOP)
            daemon.start()
            daemon.wait_running("web")
            assert _inodes(port) == [inode]


def test_a_store_that_dies_is_replaced() -> None:
    (port,) = net.free_ports(1)
    with Daemon({"web": _pool(port)}) as daemon:
        daemon.wait_running("web")
        first, main = daemon.store_pid(), daemon.pid_of("web")
        (inode,) = _inodes(port)
        daemon.kill()
        daemon.start()  # one that was found is replaced at once
        _kill(first)
        second = daemon.store_pid()
        assert second != first
        daemon.wait_event("socket-store-replaced", text="it ended")
        wait_for(lambda: any(inode in link for link in procs.descriptors(second).values()), 5, "the socket in it")
        assert daemon.pid_of("web") == main
        daemon.must("stop", "web")
        daemon.kill()
        daemon.start()
        assert _inodes(port) == [inode]


def test_a_store_that_is_made_anew_is_given_all_there_is() -> None:
    """Killed shortly before an upgrade: the next daemon must not take for stored what the dead one held."""
    (port,) = net.free_ports(1)
    with Daemon({"web": _pool(port)}) as daemon:
        daemon.wait_running("web")
        daemon.must("stop", "web")
        (inode,) = _inodes(port)
        _kill(daemon.store_pid())
        daemon.must("upgrade")
        store = daemon.store_pid()
        wait_for(lambda: any(inode in link for link in procs.descriptors(store).values()), 5, "the socket in it")
        with _waiting(port):
            daemon.kill()
            daemon.start()
            assert _inodes(port) == [inode]


def test_each_pool_has_its_own_socket_back() -> None:
    """A port of 0 could be any; it stands first in the file, and was bound last."""
    (port,) = net.free_ports(1)
    with Daemon({"web": _pool(port)}) as daemon:
        daemon.wait_running("web")
        daemon.configure({"api": _pool(0), "web": _pool(port)})
        daemon.must("reload")
        addresses = {name: daemon.pool(name).listeners for name in ("api", "web")}
        daemon.kill()
        daemon.start()
        assert {name: daemon.pool(name).listeners for name in ("api", "web")} == addresses
        daemon.must("upgrade")
        assert {name: daemon.pool(name).listeners for name in ("api", "web")} == addresses


def test_an_address_that_is_given_up_can_be_taken_again_at_once() -> None:
    (port,) = net.free_ports(1)
    with Daemon({"web": _pool(port)}) as daemon:
        daemon.wait_running("web")
        daemon.store_pid()
        for _ in range(3):
            daemon.configure({"tick": {"program": "command", "command": ["sleep", "600"]}})
            daemon.must("reload")
            assert _inodes(port) == []
            daemon.configure({"web": _pool(port)})
            daemon.must("reload")
        daemon.stop()
        assert _inodes(port) == [], "the daemon ended after its store"


def test_what_nobody_holds_is_bound_anew() -> None:
    (port,) = net.free_ports(1)
    with Daemon({"web": _pool(port)}) as daemon:
        daemon.wait_running("web")
        main = daemon.pid_of("web")
        shim, (child,) = daemon.shim_of(main), wait_for(lambda: procs.children(main), 5, "the child")
        daemon.kill()
        for pid in (shim, main, child, daemon.store_pid()):
            _kill(pid)
        wait_for(lambda: not _inodes(port), 5, "the socket to be gone")
        daemon.start()
        daemon.wait_running("web")
        assert len(_inodes(port)) == 1


def test_what_cannot_be_bound_is_tried_again_when_it_is_needed() -> None:
    (port,) = net.free_ports(1)
    with Daemon({"web": _pool(port)}) as daemon:
        daemon.wait_running("web")
        main = daemon.pid_of("web")
        shim, (child,) = daemon.shim_of(main), wait_for(lambda: procs.children(main), 5, "the child")
        daemon.kill()
        for pid in (shim, main, child, daemon.store_pid()):
            _kill(pid)
        with socket.socket() as stranger:
            stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            stranger.bind(("127.0.0.1", port))
            stranger.listen()
            daemon.start()
            daemon.wait_event("listen-refused")
            daemon.wait_event("spawn-failed", text="cannot listen")
        daemon.must("start", "web")
        daemon.wait_running("web")


def test_a_rollout_that_goes_back_finds_both_sockets() -> None:
    old, new = net.free_ports(2)
    never = {"ready": {"tcp": f"127.0.0.1:{net.free_ports(1)[0]}", "timeout": "100ms"}, "start_timeout": "4s"}
    with Daemon({"web": _pool(old)}) as daemon:
        daemon.wait_running("web")
        before, (inode,) = daemon.pids("web"), _inodes(old)
        daemon.configure({"web": _pool(new, **never)})
        daemon.must("reload", "--no-wait")
        wait_for(lambda: len(daemon.pids("web")) == 2, 10, "the new generation")
        (fresh,) = _inodes(new)
        daemon.kill()
        daemon.start()
        assert _inodes(old) == [inode]
        assert _inodes(new) == [fresh]
        daemon.wait_event("conclude-rollout", text="rolled-back")
        wait_for(lambda: daemon.pids("web") == before, 20, "the old generation alone")
        assert _inodes(old) == [inode]
        assert _inodes(new) == []
        daemon.kill()
        daemon.start()
        daemon.wait_running("web")
        assert daemon.pids("web") == before
        assert _inodes(old) == [inode]


def test_a_foreign_process_with_the_pid_of_a_holder_is_not_asked() -> None:
    """The record is made to name a process that listens on the very address, and is none of ours."""
    (port,) = net.free_ports(1)
    with Daemon({"web": _pool(port)}) as daemon:
        daemon.wait_running("web")
        main = daemon.pid_of("web")
        shim, (child,) = daemon.shim_of(main), wait_for(lambda: procs.children(main), 5, "the child")
        (record,) = (daemon.directory / "run" / "processes").iterdir()
        daemon.kill()
        for pid in (shim, main, child, daemon.store_pid()):
            _kill(pid)
        events = (record / "events.jsonl").read_text()
        with socket.socket() as stranger:
            stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            stranger.bind(("127.0.0.1", port))
            stranger.listen()
            forged = events.replace(f"[{main},", f"[{os.getpid()},").replace(f"[{shim},", f"[{os.getpid()},")
            assert forged != events
            (record / "events.jsonl").write_text(forged)
            daemon.start()
            daemon.wait_event("listen-refused")
        daemon.must("stop", "web")
