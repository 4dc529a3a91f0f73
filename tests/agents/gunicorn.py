"""A real gunicorn with our agent in it, behind a listener that the test holds; and the app that it serves."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from supervisor_d.core.spec import Listener, PoolSpec
from supervisor_d.programs.gunicorn import GunicornKeys
from supervisor_d.runtime.drivers.gunicorn import GunicornDriver
from supervisor_d.runtime.drivers.gunicorn_scoreboard import Board, read_board
from tests.drivers.support import Running, running

APP = """
import asyncio, os, time

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/boom":
        raise RuntimeError("boom")
    if path.startswith("/sleep/"):
        time.sleep(float(path[7:]))
    if path == "/held":
        while not os.path.exists("release"):
            time.sleep(0.01)
    status = {"/missing": "404 Not Found", "/broken": "503 Service Unavailable"}.get(path, "200 OK")
    body = str(os.getpid()).encode()
    start_response(status, [("Content-Length", str(len(body)))])
    return [body]

async def asgi(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError("only http")
    path = scope["path"]
    if path == "/boom":
        raise RuntimeError("boom")
    if path.startswith("/sleep/"):
        await asyncio.sleep(float(path[7:]))
    if path == "/held":
        while not os.path.exists("release"):
            await asyncio.sleep(0.01)
    status = {"/missing": 404, "/broken": 503}.get(path, 200)
    body = str(os.getpid()).encode()
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [length]})
    await send({"type": "http.response.body", "body": body})
"""
CLASSES = ("sync", "gthread", "gevent", "asgi")


def web(tmp_path: Path, worker_class: str = "gthread", *, workers: int = 1, **values: object) -> PoolSpec:
    """A pool of that app; with another gunicorn, where `make gunicorn-versions` names its interpreter."""
    (tmp_path / "shop.py").write_text(APP)
    keys: dict[str, object] = {
        "app": "shop:asgi" if worker_class == "asgi" else "shop:app",
        "worker_class": worker_class,
        "threads": 4 if worker_class == "gthread" else None,
        "graceful_timeout": 10.0,
        **values,
    }
    return PoolSpec(
        name="web",
        program="gunicorn",
        workers=workers,
        keys=GunicornKeys(**keys),  # type: ignore[arg-type]
        listeners=(Listener("127.0.0.1:0"),),
        cwd=str(tmp_path),
        python=os.environ.get("SUPERVISOR_D_GUNICORN_PYTHON", ""),
    )


@contextlib.contextmanager
def listening() -> Iterator[socket.socket]:
    """A listener as the daemon holds it."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as bound:
        yield bound


@contextlib.asynccontextmanager
async def serving(spec: PoolSpec, tmp_path: Path, listener: socket.socket) -> AsyncIterator[Running]:
    """The pool's master, ready."""
    async with running(GunicornDriver, spec, tmp_path, (listener,)) as web_0:
        await web_0.ready()
        yield web_0


def board(web_0: Running) -> Board:
    """What its workers wrote."""
    found = read_board(str(web_0.private_dir))
    assert found is not None
    return found
