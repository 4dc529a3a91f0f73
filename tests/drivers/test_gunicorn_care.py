"""Workers that are not fit are replaced, one at a time, and never fewer serve than are wanted."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from supervisor_d.core.events import Ailing, Remarked, WorkersReported
from supervisor_d.core.process import Exit
from supervisor_d.core.spec import Fitness, Launch, PoolSpec
from supervisor_d.runtime.drivers import gunicorn_care
from supervisor_d.runtime.drivers.counting import Counted
from supervisor_d.runtime.drivers.gunicorn_care import Carer, Ward
from supervisor_d.runtime.drivers.members import Members
from supervisor_d.runtime.proc import children_of
from tests.agents.gunicorn import board, listening, serving, web
from tests.agents.test_gunicorn_agent import ask
from tests.drivers.support import Running
from tests.drivers.test_members import tells_exits
from tests.support.waiting import eventually

pytestmark = pytest.mark.real

_LAUNCH = Launch(argv=("gunicorn",), env={}, cwd="/")


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CHECK_SECONDS", "REQUEST_CHECK_SECONDS", "MEMORY_SECONDS"):
        monkeypatch.setattr(gunicorn_care, name, 0.1)


def remarks(web_0: Running) -> list[str]:
    return [event.remark for event in web_0.told.events if isinstance(event, Remarked)]


def ailing(web_0: Running) -> list[str]:
    return [event.why for event in web_0.told.events if isinstance(event, Ailing)]


def fewest_ready(web_0: Running) -> int:
    """Since it was ready first."""
    counts = [event for event in web_0.told.events if isinstance(event, WorkersReported)]
    first = next(place for place, event in enumerate(counts) if event.ready == event.live == 2)
    return min(event.ready for event in counts[first:])


@pytest.mark.parametrize("youngest", [False, True])
async def test_a_stuck_thread(tmp_path: Path, youngest: bool) -> None:
    spec = web(tmp_path, workers=2, request_timeout=1.0, graceful_timeout=1.0)
    with listening() as listener:
        async with serving(spec, tmp_path, listener) as web_0:
            stuck = await _hold(web_0, listener, youngest=youngest)
            await eventually(lambda: stuck not in children_of(web_0.pid), 30, "the stuck worker's end")
            await eventually(lambda: remarks(web_0)[-1:] == [""], 20, "the cure's end")
            await web_0.counted(2)
            assert remarks(web_0)[0].startswith(f"its worker {stuck} is replaced: a request runs for ")
            assert remarks(web_0)[0].endswith(" s, its limit is 1s") or "its limit is 1s" in remarks(web_0)[0]
            assert f"its worker {stuck} is killed, 2 s after it was told to end" in remarks(web_0)[1]
            assert "in app" in (tmp_path / "log").read_text(), "its stacks"
            assert fewest_ready(web_0) >= 2
            assert ailing(web_0) == []


async def _hold(web_0: Running, listener: object, *, youngest: bool) -> int:
    """Give the younger or the older worker a request that never ends; every other one is let go."""
    by_age = sorted(board(web_0).workers, key=lambda worker: worker.age)
    wanted, other = (by_age[1], by_age[0]) if youngest else by_age[:2]
    os.kill(other.pid, signal.SIGSTOP)
    try:
        task = asyncio.create_task(ask(listener, "/held"))  # type: ignore[arg-type]
        task.add_done_callback(lambda done: done.exception())
        await eventually(lambda: any(w.in_flight for w in board(web_0).workers if w.pid == wanted.pid), what="held")
    finally:
        os.kill(other.pid, signal.SIGCONT)
    return wanted.pid


async def test_a_request_that_ends_in_time_is_left_alone(tmp_path: Path) -> None:
    spec = web(tmp_path, workers=2, request_timeout=5.0)
    with listening() as listener:
        async with serving(spec, tmp_path, listener) as web_0:
            before = children_of(web_0.pid)
            assert b"200 OK" in await ask(listener, "/sleep/1")
            assert children_of(web_0.pid) == before
            assert remarks(web_0) == []


@pytest.mark.parametrize("agent", [True, False])
async def test_old_workers_go_one_at_a_time(tmp_path: Path, agent: bool) -> None:
    spec = web(tmp_path, workers=2, max_worker_age=3.0, agent=agent)
    with listening() as listener:
        async with serving(spec, tmp_path, listener) as web_0:
            first = children_of(web_0.pid)
            await eventually(lambda: not first & children_of(web_0.pid), 40, "other workers")
            assert fewest_ready(web_0) >= 2
            told = [remark for remark in remarks(web_0) if remark]
            assert all("old, its limit is 3s" in remark for remark in told)
            # Where it is not sure which one is the oldest, gunicorn ends that one as well when it is to have one less.
            assert told


async def test_a_worker_that_ended_and_is_not_reaped_yet_is_not_the_one_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The master would end another one when it is to have one less while it still counts that one."""
    with _forked() as fork:
        members, counted = Members(lambda *_: None), Counted("web.0@g1.1", os.getpid(), 2, _LAUNCH, str(tmp_path))
        for _ in range(3):
            assert members.follow(counted.id, counted.pid, fork())
        counted.ready = 3
        wanted: list[tuple[int, int]] = []
        monkeypatch.setattr(Carer, "_want", lambda _, extra: wanted.append((extra, len(members.pids(counted.id)))))
        ward = Ward(counted, Fitness(age_seconds=0.001), 30.0, lambda: "")
        care = asyncio.create_task(Carer(ward, members, lambda _: None).care())
        try:
            await eventually(lambda: len(wanted) > 1, what="the end of the one that is too old")
            assert members.follow(counted.id, counted.pid, fork())
            await eventually(lambda: len(wanted) > 2, what="back to the number")
            assert wanted[:3] == [(1, 3), (1, 2), (0, 3)]
        finally:
            care.cancel()
            members.close()


@contextlib.contextmanager
def _forked() -> Iterator[Callable[[], int]]:
    """Start children that nobody reaps before the end."""
    with contextlib.ExitStack() as ends:

        def fork() -> int:
            child = ends.enter_context(subprocess.Popen(["sleep", "600"]))
            ends.callback(child.kill)
            return child.pid

        yield fork


async def test_a_worker_that_uses_too_much_memory(tmp_path: Path) -> None:
    spec = web(tmp_path, workers=2, max_worker_memory=90 * 2**20)
    eats = "kept = []\n\ndef app(environ, start_response):\n    kept.append(bytearray(os.urandom(1)) * 120 * 2**20)\n"
    (tmp_path / "shop.py").write_text(
        "import os\n" + eats + "    start_response('204 No Content', [])\n    return []\n"
    )
    with listening() as listener:
        async with serving(spec, tmp_path, listener) as web_0:
            await ask(listener)
            await eventually(lambda: web_0.told.exits, 30, "the big worker's end")
            await eventually(lambda: remarks(web_0)[-1:] == [""], 20, "the cure's end")
            assert "MiB (PSS), its limit is 90MiB" in remarks(web_0)[0]
            assert fewest_ready(web_0) >= 2


async def test_no_worker_is_added_from_code_that_changed(tmp_path: Path) -> None:
    spec = web(tmp_path, workers=2, max_worker_age=2.0)
    with listening() as listener:
        async with serving(spec, tmp_path, listener) as web_0:
            before = children_of(web_0.pid)
            (tmp_path / "shop.py").write_text("this does not import")
            await eventually(lambda: ailing(web_0), 20, "it is told")
            assert "old, its limit is 2s; and code under" in ailing(web_0)[0]
            assert ailing(web_0)[0].endswith("changed since it started (shop.py)")
            assert children_of(web_0.pid) == before


@tells_exits
async def test_workers_that_keep_crashing(tmp_path: Path) -> None:
    with listening() as listener:
        async with serving(web(tmp_path, workers=2), tmp_path, listener) as web_0:
            while not ailing(web_0):
                await web_0.counted(2)
                count = len(web_0.told.exits)
                os.kill(min(children_of(web_0.pid)), signal.SIGSEGV)
                await eventually(lambda: len(web_0.told.exits) > count, what="an end")  # noqa: B023
                assert count < 40
            assert ailing(web_0) == ["its workers keep crashing: 10 of them within 1m"]


async def test_a_master_whose_main_loop_is_blocked(tmp_path: Path) -> None:
    spec = replace(web(tmp_path, workers=2), start_timeout_seconds=2.0)
    with listening() as listener:
        async with serving(spec, tmp_path, listener) as web_0:
            os.kill(web_0.pid, signal.SIGSTOP)
            try:
                os.kill(min(children_of(web_0.pid)), signal.SIGKILL)
                began = time.monotonic()
                await eventually(lambda: ailing(web_0), 20, "it is told")
                assert time.monotonic() - began >= 2.0
                assert ailing(web_0)[0].endswith("of 2 workers ready, and has not got there within 2s")
            finally:
                os.kill(web_0.pid, signal.SIGCONT)


# ------------------------------------------------------------------------------------ without a control socket


def deaf(tmp_path: Path, **values: object) -> PoolSpec:
    """A pool whose own configuration switches the control socket off."""
    (tmp_path / "gunicorn.conf.py").write_text("control_socket_disable = True\n")
    return web(tmp_path, **values)  # type: ignore[arg-type]


async def test_scaled_by_signals_where_nobody_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supervisor_d.runtime.drivers.gunicorn.SILENT_SECONDS", 0.5)
    with listening() as listener:
        async with serving(deaf(tmp_path, workers=1), tmp_path, listener) as web_0:
            assert not (web_0.private_dir / "gunicorn.ctl").exists()
            web_0.driver.scale("web.0@g1.1", 4)
            await web_0.counted(4, seconds=30)
            assert len(children_of(web_0.pid)) == 4
            web_0.driver.scale("web.0@g1.1", 2)
            await web_0.counted(2, seconds=30)
            os.kill(min(children_of(web_0.pid)), signal.SIGKILL)
            await eventually(lambda: web_0.told.exits[-1:] and web_0.told.exits[-1].exit != Exit(code=0), what="told")
            await web_0.counted(2)
            assert b"200 OK" in await ask(listener)


async def test_cured_by_signals_where_nobody_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supervisor_d.runtime.drivers.gunicorn.SILENT_SECONDS", 0.5)
    spec = deaf(tmp_path, workers=2, max_worker_age=4.0)
    with listening() as listener:
        async with serving(spec, tmp_path, listener) as web_0:
            first = children_of(web_0.pid)
            await eventually(lambda: not first & children_of(web_0.pid), 60, "other workers")
            assert fewest_ready(web_0) >= 2
