"""Workers held by pidfds: how they end is told at once, and only the right parent's are taken."""

from __future__ import annotations

import asyncio
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from supervisor_d.core.process import Exit
from supervisor_d.runtime import pidfd
from supervisor_d.runtime.drivers.members import Members
from supervisor_d.runtime.proc import children_of, parent_of, stat_fields
from tests.support.waiting import eventually, wait_for

T = TypeVar("T", bound=Callable[..., Any])
KERNEL = tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2])


def tells_exits(test: T) -> T:
    """A test that needs a kernel which keeps the exit of a process that is not our child (Linux 6.15)."""
    reason = "before Linux 6.15 no kernel keeps the exit of a non-child"
    marked: T = pytest.mark.skip_allowed(reason)(pytest.mark.skipif(KERNEL < (6, 15), reason=reason)(test))
    return marked


# Forks children that wait for a line each on a pipe of their own, and reaps them only when told to.
_PARENT = """
import os, signal, sys
pids = []
for _ in range(2):
    pid = os.fork()
    if pid == 0:
        signal.pause()
    pids.append(pid)
print(*pids, flush=True)
for line in sys.stdin:
    os.waitpid(int(line), 0)
"""


@pytest.fixture
def parent() -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen([sys.executable, "-c", _PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    yield child
    for pid in children_of(child.pid):
        os.kill(pid, signal.SIGKILL)
    child.kill()
    child.communicate()


def pids_of(parent: subprocess.Popen[str]) -> tuple[int, int]:
    assert parent.stdout
    first, second = map(int, parent.stdout.readline().split())
    return first, second


def reap(parent: subprocess.Popen[str], pid: int) -> None:
    assert parent.stdin
    parent.stdin.write(f"{pid}\n")
    parent.stdin.flush()


@tells_exits
async def test_the_exit_of_somebody_elses_child(parent: subprocess.Popen[str]) -> None:
    first, second = pids_of(parent)
    told: list[tuple[str, int, Exit]] = []
    members = Members(lambda *end: told.append(end))
    assert members.follow("web.0@g1.1", parent.pid, first)
    assert members.follow("web.0@g1.1", parent.pid, second)
    assert members.pids("web.0@g1.1") == {first, second}
    os.kill(first, signal.SIGKILL)
    reap(parent, first)
    await eventually(lambda: told, what="the end of the first")
    assert told == [("web.0@g1.1", first, Exit(signal=9))]
    assert members.pids("web.0@g1.1") == {second}
    members.close()


@tells_exits
async def test_a_zombie_that_nobody_reaps_does_not_spin_the_loop(parent: subprocess.Popen[str]) -> None:
    first, _ = pids_of(parent)
    told: list[tuple[str, int, Exit]] = []
    members = Members(lambda *end: told.append(end))
    members.follow("web.0@g1.1", parent.pid, first)
    os.kill(first, signal.SIGTERM)
    wait_for(lambda: _is_zombie(first), what="a zombie")
    before = time.process_time()
    await asyncio.sleep(0.3)
    assert time.process_time() - before < 0.1
    assert told == []
    reap(parent, first)
    await eventually(lambda: told, what="its end, once it is reaped")
    assert told[0][2] == Exit(signal=15)
    members.close()


async def test_only_children_of_the_main_process_are_taken(parent: subprocess.Popen[str]) -> None:
    first, _ = pids_of(parent)
    members = Members(lambda *_: None)
    for foreign in (1, os.getpid(), os.getppid(), 2**22 + 1, 2**40):
        assert not members.follow("web.0@g1.1", parent.pid, foreign)
    assert not members.follow("web.0@g1.1", os.getpid(), first)
    assert members.pids("web.0@g1.1") == frozenset()
    assert parent_of(first) == parent.pid
    members.close()


async def test_what_is_dropped_is_told_no_more_and_leaks_nothing(parent: subprocess.Popen[str]) -> None:
    first, second = pids_of(parent)
    told: list[tuple[str, int, Exit]] = []
    before = open_fds()
    members = Members(lambda *end: told.append(end))
    members.follow("web.0@g1.1", parent.pid, first)
    members.follow("web.1@g1.2", parent.pid, second)
    members.drop("web.0@g1.1")
    os.kill(first, signal.SIGKILL)
    reap(parent, first)
    os.kill(second, signal.SIGKILL)
    reap(parent, second)
    await eventually(lambda: told, what="the end of the second")
    assert [end[:2] for end in told] == [("web.1@g1.2", second)]
    members.close()
    assert open_fds() == before


def open_fds() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _is_zombie(pid: int) -> bool:
    return stat_fields(pid)[0] == "Z"


async def test_one_that_its_main_process_never_waits_for() -> None:
    """A main process that is stopped does not reap: its worker is no longer counted, and that is told."""
    unreaped: list[str] = []
    ended: list[int] = []
    members = Members(lambda _, pid, __: ended.append(pid), unreaped.append)
    child = subprocess.Popen(["sleep", "100"])
    try:
        assert members.follow("web.0@g1.1", os.getpid(), child.pid)
        assert members.pids("web.0@g1.1") == {child.pid}
        assert not members.signal("web.0@g1.1", 1, signal.SIGTERM), "only those that are held"
        assert members.signal("web.0@g1.1", child.pid, signal.SIGKILL)
        await eventually(lambda: unreaped or ended, what="its end is seen")
        if not ended:  # a kernel that tells at the reap
            assert unreaped == ["web.0@g1.1"]
            assert members.pids("web.0@g1.1") == frozenset()
            assert not members.follow("web.0@g1.1", os.getpid(), child.pid)
            child.wait()
            await eventually(lambda: ended == [child.pid], what="its end is told")
    finally:
        child.kill()
        child.wait()
        members.close()


@pytest.mark.parametrize("tells_of_the_reap", [True, False])
async def test_where_the_kernel_keeps_no_exit_an_end_is_told_once(
    monkeypatch: pytest.MonkeyPatch, parent: subprocess.Popen[str], tells_of_the_reap: bool
) -> None:
    """As before Linux 6.15, and before 6.9: a zombie that was told is not taken for a new worker."""

    def unknown(_: int) -> int | None:
        raise pidfd.ExitUnknownError

    monkeypatch.setattr(pidfd, "exit_status", unknown)
    if not tells_of_the_reap:
        monkeypatch.setattr("select.EPOLLHUP", 0)
    first, second = pids_of(parent)
    told: list[tuple[int, Exit]] = []
    before = open_fds()
    members = Members(lambda _, *end: told.append(end))
    assert members.follow("web.0@g1.1", parent.pid, first)
    assert members.follow("web.0@g1.1", parent.pid, second)
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: told == [(first, Exit(signal=9))], what="its end")
    assert not members.follow("web.0@g1.1", parent.pid, first)
    assert members.pids("web.0@g1.1") == {second}
    held = open_fds()
    reap(parent, first)
    wait_for(lambda: not stat_fields(first), what="reaped")
    os.kill(second, signal.SIGKILL)
    await eventually(lambda: len(told) == 2, what="the end of the other")
    assert not members.follow("web.0@g1.1", parent.pid, first)
    assert open_fds() == held - 1, "the first is held no more"
    assert told == [(first, Exit(signal=9)), (second, Exit(signal=9))]
    members.close()
    assert open_fds() == before
