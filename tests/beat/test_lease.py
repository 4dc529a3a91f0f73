"""Beats of two hosts on one lease: real beats, a real Redis, and what they sent as the only witness."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from subprocess import DEVNULL, Popen

import pytest

from supervisor_d.core.events import Remarked
from supervisor_d.core.spec import PoolSpec
from supervisor_d.programs.beat import BeatKeys, LeaseKeys
from supervisor_d.runtime.drivers.beat import BeatDriver
from tests.beat.sent import assert_never_two, gaps, senders, sent, write_app
from tests.drivers.support import Running, running
from tests.lossless.judge import Records
from tests.support.waiting import eventually, wait_for

pytestmark = [pytest.mark.real, pytest.mark.slow]

TTL = 3.0
LOST, SECOND = 76, 77
SLACK_SECONDS = 2.0
"""What a busy machine may add to an instant that a timer has set."""


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Records]:
    with Records(tmp_path / "broker") as server:
        yield server


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[Records]:
    """A second Redis: where the lease's own goes away, the messages are seen in this one."""
    with Records(tmp_path / "witness") as server:
        yield server


@contextlib.asynccontextmanager
async def beat(
    directory: Path, broker: Records, lease: Records | None, *, ttl: float = TTL, name: str = "schedule", **env: str
) -> AsyncIterator[Running]:
    """The beat of one host, whose memory is its own directory."""
    directory.mkdir(exist_ok=True)
    write_app(directory)
    keys = BeatKeys(
        app="shop",
        schedule=str(directory / name) if name else "",
        lease=None if lease is None else LeaseKeys(url=f"redis://127.0.0.1:{lease.port}/1", ttl=ttl),
    )
    env = {"BROKER_PORT": str(broker.port), **env}
    spec = PoolSpec("beat", "celery-beat", 1, keys, cwd=str(directory), env=env)
    private = directory / str(time.monotonic_ns())
    private.mkdir()
    async with running(BeatDriver, spec, private) as found:
        yield found


def remarks(host: Running) -> list[str]:
    return [event.remark for event in host.told.events if isinstance(event, Remarked)]


async def said(host: Running, text: str, seconds: float = 20.0) -> None:
    await eventually(lambda: any(text in remark for remark in remarks(host)), seconds, f"{text!r} of {remarks(host)}")


async def sends(host: Running, broker: Records, seconds: float = 20.0) -> None:
    """Wait until a message of this host is there that was not before."""
    before = sum(each.pid == host.pid for each in sent(broker))
    await eventually(
        lambda: sum(each.pid == host.pid for each in sent(broker)) > before, seconds, f"a task sent by pid {host.pid}"
    )


@contextlib.asynccontextmanager
async def two_hosts(
    tmp_path: Path, broker: Records, lease: Records, ttl: float = TTL
) -> AsyncIterator[tuple[Running, Running]]:
    """One that holds the lease and sends, one that stands by."""
    async with AsyncExitStack() as stack:
        a = await stack.enter_async_context(beat(tmp_path / "a", broker, lease, ttl=ttl))
        await said(a, "holds the lease")
        await sends(a, broker)
        b = await stack.enter_async_context(beat(tmp_path / "b", broker, lease, ttl=ttl))
        await b.ready()
        await said(b, f"stands by: {os.uname().nodename} (pid {a.pid}) has the lease")
        yield a, b


async def test_a_holder_that_is_killed_is_followed_within_the_lease(tmp_path: Path, broker: Records) -> None:
    async with two_hosts(tmp_path, broker, broker) as (a, b):
        assert {each.pid for each in sent(broker)} == {a.pid}
        os.kill(a.pid, signal.SIGKILL)
        await said(b, "holds the lease")
        await sends(b, broker)
    messages = sent(broker)
    assert senders(messages) == [a.pid, b.pid]
    assert gaps(messages)[0] < TTL + SLACK_SECONDS


async def test_a_holder_that_ends_in_order_is_followed_at_once(tmp_path: Path, broker: Records) -> None:
    async with two_hosts(tmp_path, broker, broker, ttl=30.0) as (a, b):
        os.kill(a.pid, signal.SIGTERM)
        await sends(b, broker)
        await asyncio.wait_for(a.child.wait(), 10)
    messages = sent(broker)
    assert senders(messages) == [a.pid, b.pid]
    assert gaps(messages)[0] < 2.0 + SLACK_SECONDS


async def test_a_holder_that_was_stopped_for_longer_than_the_lease_never_sends_again(
    tmp_path: Path, broker: Records
) -> None:
    async with two_hosts(tmp_path, broker, broker) as (a, b):
        os.kill(a.pid, signal.SIGSTOP)
        await sends(b, broker, TTL + 20)
        os.kill(a.pid, signal.SIGCONT)
        assert await asyncio.wait_for(a.child.wait(), 10) == LOST
        await said(a, "gave the lease up: ")
        await sends(b, broker)
    assert_never_two(sent(broker))


async def test_a_holder_whose_redis_hangs_ends_before_another_could_have_the_lease(
    tmp_path: Path, broker: Records, witness: Records
) -> None:
    async with two_hosts(tmp_path, witness, broker) as (a, b):
        began = time.monotonic()
        os.kill(broker._server.pid, signal.SIGSTOP)
        try:
            assert await asyncio.wait_for(a.child.wait(), TTL + 10) == LOST
            assert time.monotonic() - began < TTL + SLACK_SECONDS
            await said(b, "stands by: the lease cannot be had: ")
        finally:
            os.kill(broker._server.pid, signal.SIGCONT)
        await sends(b, witness, TTL + 20)
    messages = sent(witness)
    assert senders(messages) == [a.pid, b.pid]
    silent = [each.at for each in messages if each.pid == a.pid and each.at > began]
    assert len(silent) <= 1, "who cannot ask sends nothing, but for what was allowed already"


async def test_a_redis_that_lost_the_lease_never_makes_two_senders(
    tmp_path: Path, broker: Records, witness: Records
) -> None:
    async with two_hosts(tmp_path, witness, broker) as (a, b):
        broker.redis.flushall()
        await eventually(lambda: "holds the lease" in remarks(b) or a.child.returncode == LOST, 20, "either to go on")
        if a.child.returncode is None and "holds the lease" in remarks(b):
            assert await asyncio.wait_for(a.child.wait(), 10) == LOST
        await sends(b, witness, TTL + 20)
    assert_never_two(sent(witness))


async def test_what_another_host_has_sent_is_not_sent_again(tmp_path: Path, broker: Records) -> None:
    """Both hosts' schedule files say that the hourly task is due."""
    async with two_hosts(tmp_path, broker, broker) as (a, b):
        await eventually(lambda: any(each.task == "shop.hourly" for each in sent(broker)), 10, "the hourly task")
        os.kill(a.pid, signal.SIGTERM)
        await sends(b, broker)
        await sends(b, broker)
    assert [each.pid for each in sent(broker) if each.task == "shop.hourly"] == [a.pid]


async def test_on_one_host_the_next_beat_need_not_wait_for_the_lease_of_a_killed_one(
    tmp_path: Path, broker: Records
) -> None:
    async with beat(tmp_path / "a", broker, broker, ttl=600.0) as first:
        await sends(first, broker)
        os.kill(first.pid, signal.SIGKILL)
        await first.child.wait()
    async with beat(tmp_path / "a", broker, broker, ttl=600.0) as second:
        await sends(second, broker)
        assert remarks(second) == ["holds the lease"]
    assert senders(sent(broker)) == [first.pid, second.pid]
    assert [each.pid for each in sent(broker) if each.task == "shop.hourly"] == [first.pid]


# ------------------------------------------------------------------------------------------------ one host, no lease


async def test_a_killed_beat_sends_nothing_again_that_it_had_sent(tmp_path: Path, broker: Records) -> None:
    async with beat(tmp_path / "a", broker, None) as first:
        await eventually(lambda: any(each.task == "shop.hourly" for each in sent(broker)), 20, "the hourly task")
        await sends(first, broker)
        os.kill(first.pid, signal.SIGKILL)
        await first.child.wait()
    async with beat(tmp_path / "a", broker, None) as second:
        await sends(second, broker)
        await sends(second, broker)
    assert [each.pid for each in sent(broker) if each.task == "shop.hourly"] == [first.pid]


async def test_a_second_beat_on_one_schedule_is_refused(tmp_path: Path, broker: Records) -> None:
    async with beat(tmp_path / "a", broker, None) as first:
        await sends(first, broker)
        async with beat(tmp_path / "a", broker, None) as second:
            assert await asyncio.wait_for(second.child.wait(), 30) == SECOND
            await said(second, f"refuses to be a second beat: {os.uname().nodename}/{first.pid}/")
            assert second.told.ready == []
        await sends(first, broker)
    assert senders(sent(broker)) == [first.pid]


@pytest.mark.parametrize("option", [(), ("-s", "./schedule"), ("--schedule=schedule",)])
async def test_a_beat_that_was_started_by_hand_is_seen(
    tmp_path: Path, broker: Records, option: tuple[str, ...]
) -> None:
    directory = tmp_path / "a"
    directory.mkdir()
    write_app(directory)
    argv = [sys.executable, "-m", "celery", "-A", "shop", "beat", *option, "--pidfile="]
    env = {**os.environ, "BROKER_PORT": str(broker.port)}
    with Popen(argv, cwd=directory, env=env, stdout=DEVNULL, stderr=DEVNULL) as by_hand:
        try:
            wait_for(lambda: sent(broker), 20, "what the beat by hand sends")
            async with beat(directory, broker, None, name="schedule" if option else "") as ours:
                assert await asyncio.wait_for(ours.child.wait(), 30) == SECOND
                await said(ours, f"refuses to be a second beat: pid {by_hand.pid}, ")
        finally:
            by_hand.kill()
    assert senders(sent(broker)) == [by_hand.pid]


async def test_term_waits_for_the_task_that_is_being_sent(tmp_path: Path, broker: Records) -> None:
    begun = tmp_path / "begun"
    async with beat(tmp_path / "a", broker, broker, SLOW_SEND=str(begun)) as host:
        await eventually(begun.exists, 20, "a task to be sent")
        os.kill(host.pid, signal.SIGTERM)
        assert await asyncio.wait_for(host.child.wait(), 10) == 0
    assert len(sent(broker)) == len(begun.read_text().splitlines()) == 1


async def test_a_second_term_does_not_wait(tmp_path: Path, broker: Records) -> None:
    begun = tmp_path / "begun"
    async with beat(tmp_path / "a", broker, None, SLOW_SEND=str(begun), SEND_SECONDS="60") as host:
        await eventually(begun.exists, 20, "a task to be sent")
        os.kill(host.pid, signal.SIGTERM)
        os.kill(host.pid, signal.SIGINT)
        assert await asyncio.wait_for(host.child.wait(), 10) == 0
