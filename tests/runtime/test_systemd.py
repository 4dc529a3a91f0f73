from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor_d.runtime.systemd import STATUS_LIMIT_CHARACTERS, Notifier


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The service manager's end: a bound datagram socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(5)
        yield listening


@pytest.fixture
def notifier(manager: socket.socket) -> Notifier:
    return Notifier(manager.getsockname())


def heard(manager: socket.socket) -> dict[str, str]:
    return dict(line.split("=", 1) for line in manager.recv(65536).decode().split("\n"))


def test_each_word_is_sent_as_sd_notify_spells_it(manager: socket.socket, notifier: Notifier) -> None:
    assert notifier.ready("3 pools run")
    assert heard(manager) == {"READY": "1", "STATUS": "3 pools run"}
    assert notifier.stopping()
    assert heard(manager) == {"STOPPING": "1"}
    assert notifier.status("draining")
    assert heard(manager) == {"STATUS": "draining"}
    assert notifier.extend_timeout(2.5)
    assert heard(manager) == {"EXTEND_TIMEOUT_USEC": "2500000"}
    assert notifier.send("FDSTORE=1", "FDNAME=web")
    assert heard(manager) == {"FDSTORE": "1", "FDNAME": "web"}


def test_reloading_carries_the_monotonic_time_in_microseconds(manager: socket.socket, notifier: Notifier) -> None:
    before = time.monotonic()
    assert notifier.reloading("SIGHUP")
    told = heard(manager)
    assert told["RELOADING"] == "1"
    assert before <= int(told["MONOTONIC_USEC"]) / 1e6 + 1e-6 <= time.monotonic() + 1e-6


def test_a_status_is_one_line_of_bounded_length(manager: socket.socket, notifier: Notifier) -> None:
    notifier.status("web\nREADY=1\nWATCHDOG=1 " + "x" * 5000)
    told = heard(manager)
    assert list(told) == ["STATUS"]
    assert len(told["STATUS"]) == STATUS_LIMIT_CHARACTERS


def test_an_abstract_address_is_written_with_an_at_sign() -> None:
    name = f"supervisor-d-test-{os.getpid()}-{time.monotonic_ns()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name)
        manager.settimeout(5)
        assert Notifier("@" + name).ready()
        assert heard(manager) == {"READY": "1"}


@pytest.mark.parametrize("address", ["", "relative", "vsock:2:1234", "/nowhere/at/all", "@nobody-listens-here"])
def test_nobody_listens_and_nothing_breaks(address: str) -> None:
    assert not Notifier(address).ready()


def test_a_full_queue_loses_the_message_and_does_not_wait(manager: socket.socket, notifier: Notifier) -> None:
    sent = 0
    while notifier.status("again") and sent < 100_000:
        sent += 1
    began = time.monotonic()
    assert not notifier.ready()
    assert time.monotonic() - began < 1
    assert heard(manager) == {"STATUS": "again"}
    assert notifier.ready()


def test_the_environment_is_taken_and_cleared() -> None:
    environ = {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid()), "HOME": "/"}
    assert Notifier.take(environ) == Notifier("@x", 3.0)
    assert environ == {"HOME": "/"}
    assert Notifier.take(environ) == Notifier()


@pytest.mark.parametrize("wrong", [{"WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "-1"}])
def test_a_watchdog_meant_for_another_process_is_not_fed(wrong: dict[str, str]) -> None:
    environ = {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())} | wrong
    assert Notifier.take(environ).watchdog_seconds == 0


def test_what_the_process_starts_does_not_see_the_socket(manager: socket.socket) -> None:
    program = (
        "import subprocess; from supervisor_d.runtime import systemd; assert systemd.notify('READY=1');"
        "subprocess.run(['env'], check=True); assert systemd.notify('STOPPING=1')"
    )
    env = os.environ | {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "1000000"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=30, check=True
    )
    assert "NOTIFY" not in done.stdout
    assert "WATCHDOG" not in done.stdout
    assert [heard(manager), heard(manager)] == [{"READY": "1"}, {"STOPPING": "1"}]


async def test_the_watchdog_is_fed_twice_per_period_and_starves_with_the_loop(manager: socket.socket) -> None:
    manager.setblocking(False)
    loop = asyncio.get_running_loop()
    feeding = asyncio.create_task(Notifier(manager.getsockname(), 0.04).feed_watchdog())
    began = time.monotonic()
    for _ in range(3):
        assert await asyncio.wait_for(loop.sock_recv(manager, 100), 5) == b"WATCHDOG=1"
    assert time.monotonic() - began >= 0.04  # three meals are two half periods
    time.sleep(0.1)  # the loop hangs
    with pytest.raises(BlockingIOError):
        manager.recv(100)
    feeding.cancel()


async def test_nobody_watches_and_the_feeder_ends() -> None:
    await asyncio.wait_for(Notifier("@x").feed_watchdog(), 5)
    await asyncio.wait_for(Notifier("", 1.0).feed_watchdog(), 5)
