"""Reload: what changed is replaced, what did not is not touched, and what is wrong changes nothing at all."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from supervisor_d.api.client import Client, RefusedError
from supervisor_d.api.wire import OperateRequest
from tests.support import procs
from tests.support.daemon import ROOT, Daemon
from tests.support.programs import Notes
from tests.support.waiting import wait_for

pytestmark = pytest.mark.real

SLEEPER: Mapping[str, Any] = {"program": "command", "command": ["sleep", "600"]}
THREE: Mapping[str, Mapping[str, Any]] = {"one": SLEEPER, "two": SLEEPER, "three": SLEEPER}
BAD = Path(__file__).parents[1] / "config" / "bad"
EXPECT = re.compile(r"# expect: (?:[^:\s]+:)?(\d+):(\d+): (\S+): ")
EUID = re.compile(r"# euid: (\d+)")


def _bad_for_us() -> list[Path]:
    """The bad configs, without those that are wrong for another user than ours only."""
    euids = {path: EUID.search(path.read_text()) for path in sorted(BAD.glob("*.yaml"))}
    return [path for path, euid in euids.items() if euid is None or int(euid[1]) == os.geteuid()]


def test_only_the_changed_pool_is_touched() -> None:
    with Daemon(THREE) as daemon:
        daemon.wait_running(*THREE)
        before = {name: daemon.pids(name) for name in THREE}
        daemon.configure({**THREE, "two": {**SLEEPER, "env": {"NEW": "value"}}})
        done = daemon.reload()
        assert done.returncode == 0, done.stderr
        assert "two" in done.stdout
        after = {name: daemon.wait_pids(name, 1) for name in THREE}
        assert after["one"] == before["one"]
        assert after["three"] == before["three"]
        assert set(after["two"].values()).isdisjoint(before["two"].values())
        assert procs.environment(daemon.pid_of("two"))["NEW"] == "value"
        assert daemon.pool("two").generation == 2
        assert daemon.pool("one").generation == 1


def test_a_reload_of_the_same_file_does_nothing() -> None:
    with Daemon(THREE) as daemon:
        daemon.wait_running(*THREE)
        before = daemon.all_pids()
        assert daemon.reload().returncode == 0
        assert daemon.all_pids() == before


def test_pools_come_and_go() -> None:
    with Daemon({"one": SLEEPER, "two": SLEEPER}) as daemon:
        daemon.wait_running("one", "two")
        kept, gone = daemon.pids("one"), daemon.pid_of("two")
        daemon.configure({"one": SLEEPER, "new": SLEEPER})
        assert daemon.reload().returncode == 0
        assert {pool.name for pool in daemon.status().pools} == {"one", "new"}
        assert not procs.alive(gone)
        assert daemon.pids("one") == kept
        daemon.wait_running("new")


def test_what_only_the_daemon_needs_to_know_touches_no_process() -> None:
    with Daemon(THREE) as daemon:
        daemon.wait_running(*THREE)
        before = daemon.all_pids()
        daemon.configure({**THREE, "two": {**SLEEPER, "restart": {"limit": 3}, "after": ["one"]}})
        assert daemon.reload().returncode == 0
        assert daemon.all_pids() == before
        assert daemon.pool("two").after == ("one",)


def test_a_new_release_directory_or_env_file_is_a_new_generation_and_an_old_one_is_not() -> None:
    daemon = Daemon()
    for release in ("first", "second"):
        (daemon.work / release).mkdir()
    current, env_file = daemon.work / "current", daemon.work / "app.env"
    current.symlink_to("first")
    env_file.write_text("COLOUR=blue\n")
    daemon.configure({"one": {**SLEEPER, "cwd": str(current), "env_files": [str(env_file)]}, "two": SLEEPER})
    with daemon:
        daemon.wait_running("one", "two")
        first, other = daemon.pid_of("one"), daemon.pids("two")
        assert (Path(f"/proc/{first}/cwd").readlink(), _colour(first)) == (daemon.work / "first", "blue")
        assert daemon.reload().returncode == 0
        assert daemon.pid_of("one") == first
        current.unlink()
        current.symlink_to("second")
        assert daemon.reload().returncode == 0
        (second,) = daemon.wait_pids("one", 1).values()
        assert (Path(f"/proc/{second}/cwd").readlink(), second != first) == (daemon.work / "second", True)
        env_file.write_text("COLOUR=green\n")
        assert daemon.reload().returncode == 0
        (third,) = daemon.wait_pids("one", 1).values()
        assert (_colour(third), third != second) == ("green", True)
        assert daemon.pids("two") == other


def _colour(pid: int) -> str:
    return procs.environment(pid)["COLOUR"]


def test_reloads_at_the_same_time_queue_up() -> None:
    with Daemon({"one": SLEEPER}) as daemon:
        daemon.wait_running("one")
        daemon.configure({"one": SLEEPER, "two": SLEEPER})
        with ThreadPoolExecutor(3) as pool:
            done = list(pool.map(lambda _: daemon.reload(), range(3)))
        assert [each.returncode for each in done] == [0, 0, 0]
        assert len(daemon.all_pids()) == 2
        assert len([entry for entry in daemon.events() if entry.name == "spawn"]) == 2


def test_an_operation_goes_on_when_its_command_is_gone() -> None:
    daemon = Daemon()
    notes = Notes(daemon.work / "notes")
    daemon.configure({"one": {"program": "command", "command": notes.polite("p", 0.5)}})
    with daemon:
        notes.wait("p", "ready")
        argv = [sys.executable, "-m", "supervisor_d", "restart", "one", "--socket", str(daemon.socket)]
        with subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL) as command:
            notes.wait("p", "term")
            command.kill()
        notes.wait("p", "ready", 2)
        daemon.wait_running("one")


def test_a_generation_that_ends_at_once_is_rolled_back_with_its_reason() -> None:
    daemon = Daemon()
    notes = Notes(daemon.work / "notes")
    good = {"program": "command", "command": notes.polite("good"), "rollout": {"min_ready": "200ms"}}
    surge = {"max_surge": 1, "max_unavailable": 0, "min_ready": "200ms"}
    daemon.configure({"one": {**good, "rollout": surge}})
    with daemon:
        daemon.wait_running("one")
        before = daemon.pids("one")
        daemon.configure({"one": {**good, "rollout": surge, "command": ["sh", "-c", "exit 9"]}})
        done = daemon.reload()
        assert done.returncode == 1
        assert "exited with code 9" in done.stdout + done.stderr
        assert daemon.pids("one") == before
        pool = daemon.pool("one")
        assert pool.rollout is not None
        assert pool.rollout.verdict == "rolled-back"
        assert dict(pool.exits_total) == {"error": 1}
        assert notes.of("good", "term") == []
        assert daemon.wait_event("conclude-rollout", text="rolled-back").pool == "one"


def test_a_port_that_is_taken_is_refused_before_anything_changes() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, Daemon(THREE) as daemon:
        daemon.wait_running(*THREE)
        before = daemon.all_pids()
        bound = {**SLEEPER, "bind": f"127.0.0.1:{taken.getsockname()[1]}"}
        daemon.configure({"one": {**SLEEPER, "env": {"NEW": "1"}}, "two": SLEEPER, "web": bound})
        done = daemon.reload()
        assert done.returncode == 73
        assert str(taken.getsockname()[1]) in done.stderr
        assert "cannot" in done.stderr
        assert daemon.all_pids() == before
        assert {pool.name for pool in daemon.status().pools} == set(THREE)


def test_hangup_reloads_and_a_bad_file_then_changes_nothing() -> None:
    with Daemon(THREE) as daemon:
        daemon.wait_running(*THREE)
        before = daemon.all_pids()
        daemon.configure({"one": SLEEPER, "two": SLEEPER})
        daemon.signal(signal.SIGHUP)
        wait_for(lambda: len(daemon.status().pools) == 2, 20, "the third pool to go")
        left = daemon.all_pids()
        assert left.items() < before.items()
        daemon.write("version: 1\npools: {one: {program: comand}}\n")
        daemon.signal(signal.SIGHUP)
        daemon.wait_event("reload-refused", text="did you mean")
        assert daemon.all_pids() == left


@pytest.fixture(scope="module")
def three() -> Iterator[Daemon]:
    with Daemon(THREE) as daemon:
        shutil.copytree(BAD / "env", daemon.directory / "env")
        daemon.wait_running(*THREE)
        yield daemon


def test_a_bad_file_exits_78_and_changes_nothing(three: Daemon) -> None:
    before = three.all_pids()
    three.write("version: 1\npools:\n  one:\n    program: command\n    comand: [sleep, '1']\n")
    done = three.reload()
    assert done.returncode == 78
    assert f"{three.config}:5:5: pools.one.comand: " in done.stderr
    assert "did you mean" in done.stderr
    assert three.all_pids() == before


def test_there_are_fifty_bad_configs() -> None:
    assert len(_bad_for_us()) >= 50


@pytest.mark.parametrize("path", _bad_for_us(), ids=lambda path: path.stem)
def test_a_reload_with_a_bad_config_leaves_every_pid_as_it_was(three: Daemon, path: Path) -> None:
    before = three.all_pids()
    assert len(before) == 3
    text = path.read_text()
    three.write(text)
    with pytest.raises(RefusedError) as refused:
        Client(str(three.socket)).post("/v1/reload", OperateRequest(wait_seconds=10))
    assert refused.value.exit_code == 78
    places = {(str(p.line), str(p.column), p.key) for p in refused.value.problems}
    assert set(EXPECT.findall(text)) <= places
    assert three.all_pids() == before
    assert all(procs.alive(pid) for pid in before.values())


def test_a_rollout_that_was_rolled_back_once_is_no_part_of_a_later_start_or_return() -> None:
    with Daemon({"one": SLEEPER, "two": SLEEPER}) as daemon:
        daemon.wait_running("one", "two")
        broken = {**SLEEPER, "command": ["sh", "-c", "exit 3"], "ready": {"notify": True}, "start_timeout": "5s"}
        daemon.configure({"one": broken, "two": SLEEPER})
        assert daemon.reload().returncode == 1
        daemon.must("stop", "one")
        daemon.must("start", "one")
        daemon.wait_running("one")
        daemon.configure({"two": SLEEPER})
        assert daemon.reload().returncode == 0
        daemon.configure({"one": SLEEPER, "two": SLEEPER})
        back = daemon.reload()
        assert back.returncode == 0, back.stdout + back.stderr
        daemon.wait_running("one")


def test_a_rollout_of_what_ends_well_by_itself_is_over_when_it_has_ended() -> None:
    ends_well = {"command": ["true"], "ready": {"notify": True}, "restart": {"when": "on-failure"}}
    warm = {"program": "command", **ends_well}
    with Daemon({"warm": warm}) as daemon:
        daemon.wait_pool("warm", "done")
        daemon.configure({"warm": {**warm, "env": {"NEW": "value"}}})
        done = daemon.cli("reload", "--timeout", "10s")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "done" in done.stdout
