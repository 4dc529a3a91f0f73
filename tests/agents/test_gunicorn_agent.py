"""Our agent inside real gunicorn workers of every class: what it counts, and that nobody notices it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from supervisor_d.runtime.drivers.gunicorn import GunicornDriver
from supervisor_d.runtime.proc import children_of
from tests.agents.gunicorn import CLASSES, board, listening, serving, web
from tests.drivers.support import Running, running
from tests.support.waiting import eventually

pytestmark = pytest.mark.real


async def ask(listener: socket.socket, path: str = "/") -> bytes:
    reader, writer = await asyncio.open_connection(*listener.getsockname()[:2])
    writer.write(f"GET {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n".encode())
    try:
        return await asyncio.wait_for(reader.read(), 20)
    finally:
        writer.close()


def classes(web_0: Running) -> tuple[int, ...]:
    return board(web_0).totals.by_class


@pytest.mark.parametrize("worker_class", CLASSES)
async def test_requests_are_counted_by_their_answers(tmp_path: Path, worker_class: str) -> None:
    with listening() as listener:
        async with serving(web(tmp_path, worker_class), tmp_path, listener) as web_0:
            for path in ("/", "/", "/missing", "/broken", "/boom", "/sleep/0.3"):
                await ask(listener, path)
            await eventually(lambda: sum(classes(web_0)) == 6, what="six requests")
            assert classes(web_0) == (0, 0, 3, 0, 1, 2)
            totals = board(web_0).totals
            assert sum(totals.durations) == 6
            assert sum(totals.durations[:6]) == 5, "0.3 s is in the bucket above 0.25 s"
            assert 0.3 <= totals.seconds < 10
            (worker,) = board(web_0).workers
            assert (worker.pid, worker.ready, worker.in_flight, worker.oldest_began_at) == (
                min(children_of(web_0.pid)), True, 0, None,
            )  # fmt: skip


@pytest.mark.parametrize("worker_class", CLASSES)
async def test_what_runs_is_seen_with_its_age(tmp_path: Path, worker_class: str) -> None:
    with listening() as listener:
        async with serving(web(tmp_path, worker_class), tmp_path, listener) as web_0:
            before = time.monotonic()
            asked = asyncio.create_task(ask(listener, "/held"))
            await eventually(lambda: board(web_0).workers[0].in_flight == 1, what="a request in flight")
            began_at = board(web_0).workers[0].oldest_began_at
            assert began_at is not None
            assert before <= began_at <= time.monotonic()
            (tmp_path / "release").touch()
            assert b"200 OK" in await asked
            await eventually(lambda: board(web_0).workers[0].in_flight == 0, what="nothing in flight")
            assert board(web_0).workers[0].oldest_began_at is None


async def test_the_oldest_of_several_threads(tmp_path: Path) -> None:
    with listening() as listener:
        async with serving(web(tmp_path), tmp_path, listener) as web_0:
            held = asyncio.create_task(ask(listener, "/held"))
            await eventually(lambda: board(web_0).workers[0].in_flight == 1, what="a request in flight")
            oldest = board(web_0).workers[0].oldest_began_at
            for _ in range(20):
                await ask(listener)
            await eventually(lambda: board(web_0).totals.total == 20, what="the others are through")
            assert board(web_0).workers[0].oldest_began_at == oldest
            assert board(web_0).workers[0].in_flight == 1
            (tmp_path / "release").touch()
            await held


@pytest.mark.parametrize("worker_class", CLASSES)
async def test_a_client_that_goes_away_leaves_nothing_in_flight(tmp_path: Path, worker_class: str) -> None:
    with listening() as listener:
        async with serving(web(tmp_path, worker_class), tmp_path, listener) as web_0:
            _, writer = await asyncio.open_connection(*listener.getsockname()[:2])
            writer.write(b"GET /held HTTP/1.1\r\nHost: shop\r\n\r\n")
            await eventually(lambda: board(web_0).workers[0].in_flight == 1, what="a request in flight")
            writer.transport.abort()
            (tmp_path / "release").touch()
            await eventually(lambda: board(web_0).workers[0].in_flight == 0, what="nothing in flight")
            assert board(web_0).totals.total == 1


async def test_totals_outlive_workers(tmp_path: Path) -> None:
    with listening() as listener:
        async with serving(web(tmp_path, workers=2), tmp_path, listener) as web_0:
            for done in range(1, 4):
                await ask(listener)
                await eventually(lambda: board(web_0).totals.total == done, what="one more")  # noqa: B023
                before = children_of(web_0.pid)
                for victim in before:
                    os.kill(victim, signal.SIGKILL)
                await eventually(
                    lambda: not children_of(web_0.pid) & before and len(children_of(web_0.pid)) == 2,  # noqa: B023
                    what="other workers",
                )
                await eventually(
                    lambda: {w.pid for w in board(web_0).workers if w.ready} == children_of(web_0.pid),
                    what="they are on the board",
                )
            assert board(web_0).totals.total == 3


HOOKS = """
def note(text):
    with open("notes", "a") as notes:
        notes.write(text + "\\n")

def pre_fork(server, worker): note("pre_fork")
def post_fork(server, worker): note("post_fork")
def post_worker_init(worker): note("post_worker_init")
def pre_request(worker, req): note("pre_request " + req.path)
def post_request(worker, req): note("post_request " + req.path)
def child_exit(server, worker): note("child_exit")
"""


async def test_the_users_own_configuration_and_hooks_stay_in_force(tmp_path: Path) -> None:
    (tmp_path / "gunicorn.conf.py").write_text(HOOKS + "proc_name = 'ignored'\nlimit_request_line = 100\n")
    with listening() as listener:
        async with serving(web(tmp_path), tmp_path, listener) as web_0:
            await ask(listener, "/sleep/0")
            assert b"414" in await ask(listener, "/" + "x" * 200) or b"400" in await ask(listener, "/" + "x" * 200)
            os.kill(min(children_of(web_0.pid)), signal.SIGTERM)
            notes = tmp_path / "notes"
            await eventually(lambda: "child_exit" in notes.read_text(), what="the user's child_exit")
            assert notes.read_text().split("\n")[:5] == [
                "pre_fork", "post_fork", "post_worker_init", "pre_request /sleep/0", "post_request /sleep/0",
            ]  # fmt: skip


async def test_a_hook_of_the_users_that_raises_still_counts(tmp_path: Path) -> None:
    (tmp_path / "gunicorn.conf.py").write_text("def pre_request(worker, req): raise RuntimeError('theirs')\n")
    with listening() as listener:
        async with serving(web(tmp_path), tmp_path, listener) as web_0:
            assert b" 500 " in await ask(listener)
            await eventually(lambda: classes(web_0) == (0, 0, 0, 0, 0, 1), what="a 500")
            assert board(web_0).workers[0].in_flight == 0


async def test_the_stacks_of_a_worker_can_be_had(tmp_path: Path) -> None:
    with listening() as listener:
        async with serving(web(tmp_path), tmp_path, listener) as web_0:
            held = asyncio.create_task(ask(listener, "/held"))
            await eventually(lambda: board(web_0).workers[0].in_flight == 1, what="a request in flight")
            os.kill(min(children_of(web_0.pid)), signal.SIGRTMIN + 6)
            log = tmp_path / "log"
            await eventually(lambda: re.search(r'shop.py", line 1[0-3] in app', log.read_text()), what="its stacks")
            (tmp_path / "release").touch()
            assert b"200 OK" in await held, "it was only looked at"


async def test_no_directory_no_board_and_still_gunicorn(tmp_path: Path) -> None:
    spec = web(tmp_path)
    with listening() as listener:
        async with serving(spec, tmp_path, listener) as web_0:
            scoreboard = web_0.private_dir / "scoreboard"
            assert scoreboard.stat().st_mode & 0o777 == 0o600
    quiet = tmp_path / "quiet"
    quiet.mkdir()
    (quiet / "private").mkdir()
    (quiet / "private/scoreboard").mkdir()  # it cannot be made
    code = (
        "import sys; sys.argv[1:] = ['--check-config', 'shop:app']; "
        "import supervisor_d_gunicorn_agent as agent; agent.run()"
    )
    agents = str(Path(__file__).parents[2] / "supervisor_d/agents")
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}:{agents}", "SUPERVISOR_D_AGENT_DIR": str(quiet / "private")}
    done = await asyncio.create_subprocess_exec(sys.executable, "-c", code, env=env, cwd=tmp_path)
    assert await asyncio.wait_for(done.wait(), 20) == 0


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["--check-config", "shop:app"], 0, ""),
        (["--check-config", "shop:nothing"], 1, "nothing"),
        (["--no-such-option"], 2, "gunicorn: error"),
        (["--version"], 0, "gunicorn (version"),
        ([], 1, "No application module specified"),
        (["-k", "no.such.Class", "-b", "127.0.0.1:0", "shop:app"], 1, "class uri 'no.such.Class' invalid"),
    ],
)
async def test_the_command_line_is_gunicorns(tmp_path: Path, args: list[str], code: int, words: str) -> None:
    web(tmp_path)
    answers = []
    for module in ("gunicorn", "supervisor_d_gunicorn_agent"):
        agents = str(Path(__file__).parents[2] / "supervisor_d/agents")
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, *args, env={**os.environ, "PYTHONPATH": agents}, cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said, _ = await asyncio.wait_for(child.communicate(), 30)
        assert child.returncode == code
        answers.append(said.decode())
    assert words in answers[1]
    if code != 1:
        assert answers[0] == answers[1]


@pytest.mark.parametrize("worker_class", ["sync", "gthread", "asgi"])
async def test_broken_code_on_disk_costs_a_worker_and_not_the_service(tmp_path: Path, worker_class: str) -> None:
    with listening() as listener:
        async with serving(web(tmp_path, worker_class, workers=2), tmp_path, listener) as web_0:
            good = (tmp_path / "shop.py").read_text()
            (tmp_path / "shop.py").write_text("raise RuntimeError('half a deploy')")
            os.kill(min(children_of(web_0.pid)), signal.SIGKILL)
            log = tmp_path / "log"
            await eventually(lambda: log.read_text().count("half a deploy") >= 2, 20, "two tries in vain")
            assert b"200 OK" in await ask(listener)
            assert web_0.child.returncode is None
            (tmp_path / "shop.py").write_text(good)
            await web_0.counted(2, seconds=30)
            assert web_0.child.returncode is None


async def test_a_master_that_never_served_ends_as_ever(tmp_path: Path) -> None:
    spec = web(tmp_path)
    (tmp_path / "shop.py").write_text("raise RuntimeError('broken from the start')")
    with listening() as listener:
        async with running(GunicornDriver, spec, tmp_path, (listener,)) as web_0:
            assert await asyncio.wait_for(web_0.child.wait(), 20) == 3
