"""The gunicorn driver on the real gunicorn: ready by heartbeats, scaled in place, every lost worker told at once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from supervisor_d.core.events import Ailing, WorkersReported
from supervisor_d.core.process import Exit, Process, State
from supervisor_d.core.spec import Listener, PoolSpec
from supervisor_d.programs.gunicorn import CONTROL_SOCKET, GunicornKeys
from supervisor_d.runtime.drivers.gunicorn import GunicornDriver, heartbeats
from supervisor_d.runtime.drivers.gunicorn_control import ControlError, ask, ask_workers
from supervisor_d.runtime.proc import children_of
from tests.drivers.support import Running, Told, process_of, running
from tests.drivers.test_members import tells_exits
from tests.support.waiting import eventually, throughout

pytestmark = pytest.mark.real

APP = """
import os, time
while os.path.exists(os.environ["HOLD"]):
    time.sleep(0.01)

def app(environ, start_response):
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""

HELD = """
import os, pathlib, time

def app(environ, start_response):
    pathlib.Path(f"held-{os.getpid()}").touch()
    while not os.path.exists("release"):
        time.sleep(0.01)
    start_response("204 No Content", [])
    return []
"""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=128) as bound:
        yield bound


def web(tmp_path: Path, **values: object) -> PoolSpec:
    (tmp_path / "shop.py").write_text(APP)
    keys = {"app": "shop:app", "worker_class": "gthread", "threads": 2, **values}
    workers = keys.pop("workers", 2)
    assert isinstance(workers, int)
    return PoolSpec(
        name="web",
        program="gunicorn",
        workers=workers,
        keys=GunicornKeys(**keys),  # type: ignore[arg-type]
        listeners=(Listener("127.0.0.1:0"),),
        cwd=str(tmp_path),
        env={"HOLD": str(tmp_path / "hold")},
    )


async def get(listener: socket.socket) -> bytes:
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    writer.write(b"GET / HTTP/1.0\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer


@pytest.mark.parametrize("worker_class", ["sync", "gthread"])
async def test_ready_when_every_worker_serves(tmp_path: Path, listener: socket.socket, worker_class: str) -> None:
    spec = web(tmp_path, worker_class=worker_class, threads=2 if worker_class == "gthread" else None)
    async with running(GunicornDriver, spec, tmp_path, (listener,)) as web_0:
        await web_0.ready()
        assert web_0.told.ready == ["web.0@g1.1"]
        assert web_0.told.counts == (2, 2)
        assert (await get(listener)).startswith(b"HTTP/1.0 200")


async def test_workers_that_still_import_are_not_ready(tmp_path: Path, listener: socket.socket) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    async with running(GunicornDriver, web(tmp_path), tmp_path, (listener,)) as web_0:
        await web_0.counted(2, 0)
        await throughout(lambda: web_0.told.ready == [], 0.3)
        hold.unlink()
        await web_0.ready()
        assert web_0.told.counts == (2, 2)


@tells_exits
async def test_a_killed_worker_is_told_within_milliseconds_and_replaced(
    tmp_path: Path, listener: socket.socket
) -> None:
    async with running(GunicornDriver, web(tmp_path), tmp_path, (listener,)) as web_0:
        await web_0.ready()
        victim = min(children_of(web_0.pid))
        killed_at = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        await eventually(lambda: web_0.told.exits, what="the worker's end")
        late_seconds = time.monotonic() - killed_at
        assert [(end.pid, end.exit) for end in web_0.told.exits] == [(victim, Exit(signal=9))]
        assert late_seconds < 0.5, "generous for a loaded machine; an idle one shows 2 to 10 ms"
        await web_0.counted(2)
        assert heartbeats(web_0.pid) == (2, 2)
        counts = [(e.live, e.ready) for e in web_0.told.events if isinstance(e, WorkersReported)]
        assert (1, 1) in counts


async def test_a_master_that_forks_is_left_alone(tmp_path: Path, listener: socket.socket) -> None:
    async with running(GunicornDriver, web(tmp_path), tmp_path, (listener,)) as web_0:
        await web_0.ready()
        for round_of_kills in range(1, 9):
            os.kill(min(children_of(web_0.pid)), signal.SIGKILL)
            await eventually(lambda: len(web_0.told.exits) == round_of_kills, what="the worker's end")  # noqa: B023
            await web_0.counted(2)
        assert "Traceback" not in (tmp_path / "log").read_text()


async def test_scaled_in_place_up_and_down(tmp_path: Path, listener: socket.socket) -> None:
    async with running(GunicornDriver, web(tmp_path, workers=1), tmp_path, (listener,)) as web_0:
        await web_0.ready()
        first = children_of(web_0.pid)
        web_0.driver.scale("web.0@g1.1", 4)
        await web_0.counted(4)
        assert first < children_of(web_0.pid)
        web_0.driver.scale("web.0@g1.1", 2)
        await web_0.counted(2)
        assert len(children_of(web_0.pid)) == 2
        web_0.driver.scale("web.0@g1.1", 3)
        web_0.driver.scale("web.0@g1.1", 1)
        await web_0.counted(1)


async def test_workers_that_serve_do_not_go_for_those_that_still_import(
    tmp_path: Path, listener: socket.socket
) -> None:
    """gunicorn ends its oldest: two that hang while they import cost none that serves."""
    spec = replace(web(tmp_path), start_timeout_seconds=2.0)
    async with running(GunicornDriver, spec, tmp_path, (listener,)) as web_0:
        await web_0.ready()
        two = children_of(web_0.pid)
        (tmp_path / "hold").touch()
        web_0.driver.scale("web.0@g1.1", 4)
        await web_0.counted(4, 2)
        web_0.driver.scale("web.0@g1.1", 2)
        await eventually(lambda: web_0.told.of(Ailing), what="told that two do not become ready")
        assert two < children_of(web_0.pid)
        assert "it has 2 of 4 workers ready" in str(web_0.told.of(Ailing))
        (tmp_path / "hold").unlink()
        await web_0.counted(2)


async def test_workers_that_finish_what_they_serve_are_no_fault(tmp_path: Path, listener: socket.socket) -> None:
    spec = replace(web(tmp_path), start_timeout_seconds=0.3)
    (tmp_path / "shop.py").write_text(HELD)
    async with running(GunicornDriver, spec, tmp_path, (listener,)) as web_0:
        await web_0.ready()
        asked = [asyncio.create_task(get(listener)) for _ in range(4)]
        await eventually(lambda: len(list(tmp_path.glob("held-*"))) == 2, what="both serve")
        web_0.driver.scale("web.0@g1.1", 1)
        await throughout(lambda: not web_0.told.of(Ailing), 2.0, "well")
        (tmp_path / "release").touch()
        await asyncio.gather(*asked)
        await web_0.counted(1)


@tells_exits
async def test_a_recycled_worker_ends_well_and_is_replaced(tmp_path: Path, listener: socket.socket) -> None:
    spec = web(tmp_path, workers=1, args=("--max-requests", "3"))
    async with running(GunicornDriver, spec, tmp_path, (listener,)) as web_0:
        await web_0.ready()
        before = children_of(web_0.pid)
        for _ in range(4):
            await get(listener)
        await eventually(lambda: web_0.told.exits, what="the recycled worker's end")
        assert web_0.told.exits[0].exit == Exit(code=0)
        await eventually(lambda: web_0.told.counts == (1, 1) and children_of(web_0.pid) != before, what="a new worker")


async def test_a_settled_master_is_not_asked(tmp_path: Path, listener: socket.socket) -> None:
    async with running(GunicornDriver, web(tmp_path), tmp_path, (listener,)) as web_0:
        await web_0.ready()
        events = len(web_0.told.events)
        control = web_0.private_dir / CONTROL_SOCKET
        control.rename(control.with_name("moved"))
        with socket.socket(socket.AF_UNIX) as nobody_may_ask:
            nobody_may_ask.bind(str(control))
            nobody_may_ask.listen()
            nobody_may_ask.settimeout(1.0)
            with pytest.raises(TimeoutError):
                await asyncio.to_thread(nobody_may_ask.accept)
        assert len(web_0.told.events) == events


async def test_a_new_daemon_takes_a_ready_master_over(tmp_path: Path, listener: socket.socket) -> None:
    async with running(GunicornDriver, web(tmp_path), tmp_path, (listener,)) as web_0:
        await web_0.ready()
        web_0.driver.scale("web.0@g1.1", 3)
        await web_0.counted(3)
        web_0.driver.close()
        workers = children_of(web_0.pid)
        told = Told()
        driver = GunicornDriver(told.events.append, told.ready.append)
        adopted = replace(process_of(web(tmp_path), web_0.pid, state=State.READY), adopted=True, workers=0)
        driver.started(adopted, web_0.launch, str(web_0.private_dir))
        await eventually(lambda: told.counts == (3, 3), what="the adopted workers")
        assert children_of(web_0.pid) == workers
        os.kill(min(workers), signal.SIGKILL)
        await eventually(lambda: len(told.exits) == 1 and told.counts == (3, 3), what="the end of an adopted worker")
        driver.close()


async def test_the_size_on_record_is_what_an_adopted_master_is_to_have(tmp_path: Path, listener: socket.socket) -> None:
    """A daemon that dies while a worker is replaced leaves its master with one more."""
    async with running(GunicornDriver, web(tmp_path), tmp_path, (listener,)) as web_0:
        await web_0.ready()
        await ask(str(web_0.private_dir / CONTROL_SOCKET), web_0.pid, "worker add", "1")
        web_0.driver.close()
        await eventually(lambda: heartbeats(web_0.pid) == (3, 3), what="one more")
        adopted = replace(process_of(web(tmp_path), web_0.pid, state=State.READY), adopted=True)
        with adopting(adopted, web_0) as told:
            await eventually(lambda: told.counts == (2, 2), what="the number on record")
            await eventually(lambda: len(children_of(web_0.pid)) == 2, what="two workers")


@pytest.mark.parametrize("on_record", [2, 0])
async def test_an_adopted_master_that_still_imports_is_not_ready(
    tmp_path: Path, listener: socket.socket, monkeypatch: pytest.MonkeyPatch, on_record: int
) -> None:
    """It has no worker, and no control socket yet: nothing shows how many it is to have."""
    monkeypatch.setattr("supervisor_d.runtime.drivers.gunicorn.SILENT_SECONDS", 0.1)
    hold, spec = tmp_path / "hold", web(tmp_path, preload=True)
    hold.touch()
    async with running(GunicornDriver, spec, tmp_path, (listener,)) as web_0:
        web_0.driver.close()
        with adopting(replace(process_of(spec, web_0.pid), adopted=True, workers=on_record), web_0) as told:
            await throughout(lambda: told.ready == [], 1.0, "not ready")
            hold.unlink()
            await eventually(lambda: told.ready, 20, "workers")


@contextlib.contextmanager
def adopting(process: Process, left: Running) -> Iterator[Told]:
    """Another daemon's driver takes over the master that the first one has let go."""
    told = Told()
    driver = GunicornDriver(told.events.append, told.ready.append)
    driver.started(process, left.launch, str(left.private_dir))
    try:
        yield told
    finally:
        driver.close()


async def test_nothing_is_told_after_the_end(tmp_path: Path, listener: socket.socket) -> None:
    async with running(GunicornDriver, web(tmp_path), tmp_path, (listener,)) as web_0:
        await web_0.ready()
        web_0.driver.ended("web.0@g1.1")
        events = len(web_0.told.events)
        os.kill(web_0.pid, signal.SIGTERM)
        await asyncio.wait_for(web_0.child.wait(), 15)
        await asyncio.sleep(0)
        assert len(web_0.told.events) == events
        web_0.driver.scale("web.0@g1.1", 3)
        web_0.driver.ended("web.0@g1.1")


def test_heartbeats_that_cannot_be_seen() -> None:
    assert heartbeats(2**22 + 1) is None
    assert heartbeats(os.getpid()) == (0, 0)


async def test_an_adopted_master_that_was_to_be_scaled_gets_there(tmp_path: Path, listener: socket.socket) -> None:
    async with running(GunicornDriver, web(tmp_path), tmp_path, (listener,)) as web_0:
        await web_0.ready()
        web_0.driver.close()
        told = Told()
        driver = GunicornDriver(told.events.append, told.ready.append)
        asked = replace(process_of(web(tmp_path), web_0.pid, state=State.READY), adopted=True, scale_asked=3)
        driver.started(asked, web_0.launch, str(web_0.private_dir))
        driver.started(asked, web_0.launch, str(web_0.private_dir))
        await eventually(lambda: told.counts == (3, 3), what="three workers")
        driver.close()


# ------------------------------------------------------------------------------------- what listens is not believed


async def fake_master(path: Path, answer: bytes) -> asyncio.Server:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(answer)
        writer.close()

    return await asyncio.start_unix_server(serve, path)


def framed(answer: object) -> bytes:
    body = json.dumps(answer).encode()
    return struct.pack(">I", len(body)) + body


async def test_only_the_master_itself_is_asked(tmp_path: Path) -> None:
    path = tmp_path / "ctl"
    async with await fake_master(path, framed({"status": "ok", "data": {}})):
        assert await ask(str(path), os.getpid(), "show stats") == {}
        with pytest.raises(ControlError, match="another process"):
            await ask(str(path), os.getppid(), "show stats")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\xff\xff\xff\xff",
        framed([]),
        framed({"status": "error"}),
        framed({"status": "ok", "data": 1}),
        framed({"status": "ok", "data": {"workers": 3, "workers_target": "many"}}),
        struct.pack(">I", 200_000) + b"[" * 200_000,
        struct.pack(">I", 3) + b"\xff\xff\xff",
    ],
)
async def test_what_makes_no_sense_is_no_answer(tmp_path: Path, answer: bytes) -> None:
    path = tmp_path / "ctl"
    async with await fake_master(path, answer):
        with pytest.raises(ControlError):
            await ask_workers(str(path), os.getpid())
    with pytest.raises(ControlError):
        await ask_workers(str(tmp_path / "nobody"), os.getpid())


async def test_workers_that_are_none_are_left_out(tmp_path: Path) -> None:
    entries = [{"pid": 1}, {"pid": "7"}, 7, {"pid": 70, "last_heartbeat": None}, {"pid": 71, "last_heartbeat": 0.2}]
    answer = framed({"status": "ok", "data": {"workers": entries, "workers_target": 2}})
    path = tmp_path / "ctl"
    async with await fake_master(path, answer):
        workers = await ask_workers(str(path), os.getpid())
    assert workers.pids == (70, 71)
    assert workers.booted == {71}
    assert workers.target == 2
