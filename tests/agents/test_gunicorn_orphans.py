"""A master that is killed takes no request with it: its workers finish what they serve, then they end."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from supervisor_d.runtime.drivers.gunicorn import GunicornDriver
from supervisor_d.runtime.drivers.gunicorn_scoreboard import read_board
from supervisor_d.runtime.proc import children_of, stat_fields
from tests.agents.gunicorn import CLASSES, board, listening, serving, web
from tests.agents.test_gunicorn_agent import ask
from tests.drivers.support import running
from tests.support.waiting import eventually

pytestmark = pytest.mark.real


def alive(pid: int) -> bool:
    return stat_fields(pid)[:1] not in ([], ["Z"])


@pytest.mark.parametrize("worker_class", CLASSES)
async def test_requests_in_flight_are_finished(tmp_path: Path, worker_class: str) -> None:
    with listening() as listener:
        async with serving(web(tmp_path, worker_class, keep_alive=1.0), tmp_path, listener) as web_0:
            (worker,) = children_of(web_0.pid)
            asked = asyncio.create_task(ask(listener, "/sleep/2.5"))
            await eventually(lambda: board(web_0).workers[0].in_flight == 1, what="a request in flight")
            os.kill(web_0.pid, signal.SIGKILL)
            answer = await asked
            assert b"200 OK" in answer
            assert answer.endswith(str(worker).encode())
            await eventually(lambda: not alive(worker), what="the orphan's end")


@pytest.mark.parametrize("worker_class", CLASSES)
async def test_idle_orphans_are_gone_at_once(tmp_path: Path, worker_class: str) -> None:
    with listening() as listener:
        async with serving(web(tmp_path, worker_class, workers=2), tmp_path, listener) as web_0:
            workers = children_of(web_0.pid)
            os.kill(web_0.pid, signal.SIGKILL)
            # Without the agent a sync worker lives on for half its timeout: 15 s.
            await eventually(lambda: not any(map(alive, workers)), 6, "the orphans' end")


HANDLER = """
import signal

def mine(number, frame):
    with open("notes", "a") as notes:
        notes.write("mine ")
    {then}

before = signal.signal(signal.SIGTERM, mine)
"""


@pytest.mark.parametrize("then", ["before(number, frame)", "raise SystemExit"])
@pytest.mark.parametrize("worker_class", CLASSES)
async def test_the_applications_own_handler_runs_too(tmp_path: Path, worker_class: str, then: str) -> None:
    spec = web(tmp_path, worker_class, keep_alive=1.0)
    with (tmp_path / "shop.py").open("a") as app:
        app.write(HANDLER.format(then=then))
    with listening() as listener:
        async with serving(spec, tmp_path, listener) as web_0:
            (worker,) = children_of(web_0.pid)
            asked = asyncio.create_task(ask(listener, "/sleep/1.5"))
            await eventually(lambda: board(web_0).workers[0].in_flight == 1, what="a request in flight")
            os.kill(worker, signal.SIGTERM)
            assert (await asked).endswith(str(worker).encode())
            await eventually(lambda: not alive(worker), what="the worker's end")
            assert (tmp_path / "notes").read_text() == "mine "
            assert "Traceback" not in (tmp_path / "log").read_text()


async def test_a_worker_that_hangs_while_it_boots_can_be_stopped(tmp_path: Path) -> None:
    spec = web(tmp_path, "sync", graceful_timeout=60.0)
    (tmp_path / "shop.py").write_text("import time\ntime.sleep(600)\n")
    with listening() as listener:
        async with running(GunicornDriver, spec, tmp_path, (listener,)) as web_0:
            await eventually(lambda: (made := read_board(str(web_0.private_dir))) and made.workers, what="it boots")
            os.kill(web_0.pid, signal.SIGTERM)
            assert await asyncio.wait_for(web_0.child.wait(), 10) == 0


async def test_a_master_that_dies_while_its_worker_boots(tmp_path: Path) -> None:
    spec = web(tmp_path, "sync")
    (tmp_path / "shop.py").write_text(
        "import os, time\nwhile not os.path.exists('release'): time.sleep(0.01)\n\ndef app(e, s): pass\n"
    )
    with listening() as listener:
        async with running(GunicornDriver, spec, tmp_path, (listener,)) as web_0:
            await eventually(lambda: children_of(web_0.pid), what="a worker")
            (worker,) = children_of(web_0.pid)
            await eventually(lambda: board(web_0).workers, what="it has its slot")
            os.kill(web_0.pid, signal.SIGKILL)
            await eventually(lambda: not alive(worker), 6, "the orphan's end")
