"""Two hosts with a beat each, one lease, and the cable of the one that sends is pulled: one beat again, never two."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.beat.sent import APP, assert_never_two, gaps, sent
from tests.lossless.two_hosts import HOSTS, PORT, Network
from tests.support.daemon import Daemon
from tests.support.dose import FULL, dose, report
from tests.support.waiting import wait_for

pytestmark = [
    pytest.mark.real,
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.timeout(900 if FULL else 120),
    pytest.mark.skip_allowed("needs root and network namespaces"),
]

TTL_SECONDS = 4.0
TAKES_OVER_SECONDS = 2.0
"""How long after the end of a lease the others may ask, at most."""
SLACK_SECONDS = 2.0
"""What a busy machine may add."""
SECONDS = 60.0


@pytest.fixture
def network() -> Iterator[Network]:
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "nsenter", "unshare"))):
        pytest.skip("needs root, ip, nsenter and unshare")
    # The path of a unix socket has 107 bytes at most, and pytest's tmp_path is long.
    with tempfile.TemporaryDirectory(prefix="sd-", dir="/tmp") as directory, Network(Path(directory)) as found:
        yield found


def _host(network: Network, name: str) -> Daemon:
    daemon = Daemon(prefix=network.hosts[name].entering)
    (daemon.work / "shop.py").write_text(APP.replace("127.0.0.1", network.address(name)))
    beat = {
        "program": "celery-beat",
        "app": "shop",
        "cwd": str(daemon.work),
        "env": {"BROKER_PORT": str(PORT)},
        "lease": {"url": f"redis://{network.address(name)}:{PORT}/1", "ttl": f"{TTL_SECONDS:g}s"},
        "restart": {"limit": 1000},
    }
    daemon.configure({"beat": beat})
    return daemon


def _sender(network: Network, hosts: dict[str, Daemon], not_pid: int = 0) -> tuple[str, int]:
    """The host that sends, and the pid of its beat, which is another than `not_pid`."""

    def found() -> tuple[str, int] | None:
        messages = sent(network.redis)
        pid = messages[-1].pid if messages else 0
        names = [name for name, daemon in hosts.items() if pid in daemon.pids("beat").values()]
        return (names[0], pid) if names and pid != not_pid else None

    answer = wait_for(found, SECONDS, "a beat that sends")
    assert answer is not None
    return answer


def _wait_until_ended(daemon: Daemon, pid: int) -> None:
    wait_for(lambda: pid not in daemon.pids("beat").values(), SECONDS, f"the end of {pid}")


def _let_pass(seconds: float) -> None:
    """Time in which both are connected again, and one that wrongly believes to hold the lease would send."""
    until = time.monotonic() + seconds
    wait_for(lambda: time.monotonic() > until, SECONDS, "that time to pass")


def test_one_beat_again_and_never_two(network: Network) -> None:
    times = dose(1, 10)
    with ExitStack() as stack:
        hosts = {name: stack.enter_context(_host(network, name)) for name in HOSTS}
        for daemon in hosts.values():
            daemon.wait_running("beat", seconds=SECONDS)
        for _ in range(times):
            name, pid = _sender(network, hosts)
            network.cut(name)
            other, _ = _sender(network, hosts, not_pid=pid)
            assert other != name
            # Cut off for longer than its lease: it has ended itself, before anybody else may send.
            _wait_until_ended(hosts[name], pid)
            network.mend(name)
            hosts[name].wait_running("beat", seconds=SECONDS)
            _let_pass(TTL_SECONDS)
        messages = sent(network.redis)
    silences = gaps(messages)
    report(
        "two hosts, one beat by lease of 4 s, its host cut off",
        times,
        must_hold="one beat again within the lease, never two",
        tasks_sent=len(messages),
        sent_by_two_at_a_time=len(silences) - times,
        longest_silence_ms=round(max(silences) * 1000),
    )
    assert_never_two(messages)
    assert len(silences) == times
    assert max(silences) < TTL_SECONDS + TAKES_OVER_SECONDS + SLACK_SECONDS
