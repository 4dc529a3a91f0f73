"""/metrics on loopback: it parses, and it agrees with what /proc says."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support import net, procs
from tests.support.daemon import Daemon
from tests.support.waiting import wait_for

pytestmark = pytest.mark.real

PREFIX = "supervisor_daemon_"
TREE = "sleep 600 & exec sleep 600"
Labels = dict[str, str]


class Scraped:
    """One scrape, by name and labels."""

    def __init__(self, text: str) -> None:
        self._samples = [s for family in text_string_to_metric_families(text) for s in family.samples]

    def value(self, name: str, **labels: str) -> float | None:
        """The one sample with that name and (at least) those labels; None when there is none."""
        found = [s.value for s in self._samples if s.name == PREFIX + name and labels.items() <= s.labels.items()]
        assert len(found) <= 1, f"{name}{labels} is there {len(found)} times"
        return found[0] if found else None


@pytest.fixture(scope="module")
def port() -> int:
    return net.free_ports(1)[0]


@pytest.fixture(scope="module")
def daemon(port: int) -> Iterator[Daemon]:
    pools: dict[str, dict[str, Any]] = {
        "tree": {"program": "command", "command": ["sh", "-c", TREE], "workers": 2},
        "fragile": {"program": "command", "command": ["sleep", "600"]},
    }
    with Daemon(pools, settings={"metrics": {"listen": f"127.0.0.1:{port}"}}) as daemon:
        daemon.wait_running("tree", "fragile")
        yield daemon


def _scrape(port: int) -> Scraped:
    status, text = net.get(port, "/metrics")
    assert status == 200
    return Scraped(text)


def test_counts_are_those_of_the_pools(daemon: Daemon, port: int) -> None:
    scraped = _scrape(port)
    assert scraped.value("pool_workers_desired", pool="tree") == 2
    assert scraped.value("pool_workers_ready", pool="tree") == 2
    assert scraped.value("pool_processes", pool="tree", state="ready") == 2
    assert scraped.value("pool_generation", pool="tree") == 1
    assert scraped.value("pool_info", pool="tree", program="command") == 1


def test_a_trees_figures_agree_with_proc(daemon: Daemon, port: int) -> None:
    main = daemon.pids("tree")[next(name for name in daemon.pids("tree") if name.startswith("tree.0@"))]
    tree = [main, *procs.below(main)]
    assert len(tree) == 2
    labels = {"pool": "tree", "slot": "0"}

    def sampled() -> Scraped | None:
        scraped = _scrape(port)
        return scraped if scraped.value("process_tree_processes", **labels) == 2 else None

    scraped = wait_for(sampled, 20, "a sample of the whole tree")
    assert scraped is not None
    assert scraped.value("process_open_fds", **labels) == sum(len(procs.descriptors(pid)) for pid in tree)
    assert scraped.value("process_threads", **labels) == 2
    rss = sum(int(procs.status(pid)["VmRSS"].split()[0]) * 1024 for pid in tree)
    assert scraped.value("process_resident_memory_bytes", **labels) == pytest.approx(rss, rel=0.2)
    cpu = sum(found.cpu_ticks for pid in tree if (found := procs.stat(pid))) / os.sysconf("SC_CLK_TCK")
    assert scraped.value("process_cpu_seconds_total", **labels) == pytest.approx(cpu, abs=0.1)


def test_restarts_are_counted_by_reason(daemon: Daemon, port: int) -> None:
    before = _scrape(port).value("pool_restarts_total", pool="fragile", reason="signal")
    assert before is not None
    serial = daemon.last_serial()
    os.kill(daemon.pid_of("fragile"), signal.SIGKILL)
    daemon.wait_event("became-ready", after=serial, pool="fragile")
    after = _scrape(port)
    assert after.value("pool_restarts_total", pool="fragile", reason="signal") == before + 1
    assert after.value("pool_exits_total", pool="fragile", kind="signal") == before + 1


def test_nothing_else_is_served_and_nothing_can_be_changed_there(daemon: Daemon, port: int) -> None:
    for method, path in (("POST", "/metrics"), ("POST", "/v1/stop"), ("GET", "/v1/status"), ("POST", "/v1/shutdown")):
        status, _ = net.request(port, method, path, "{}" if method == "POST" else None)
        assert status in (403, 404, 405), (method, path)
    assert daemon.pool("tree").workers_ready == 2
