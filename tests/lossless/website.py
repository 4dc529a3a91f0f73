"""A site under a daemon: releases in directories of their own, one of them current, and gunicorn that serves it.

A deploy is what it is in real life: a new directory, the link `current` set to it, `supervisor-d reload`.  The
application answers as the load wants it, and takes a note of each request that it begins and ends, so that what was in
a worker's hands is known without asking anybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.support import net, procs
from tests.support.daemon import Daemon
from tests.support.waiting import wait_for

SECONDS = 90.0
"""How long an operation of the daemon may take here, on a busy machine."""

_COMMON = """
import os, threading, time
from urllib.parse import parse_qs

release = os.path.basename(os.path.dirname(os.path.abspath(__file__)))
notes = os.open({notes!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

def note(word, token):
    os.write(notes, f"{{word}} {{token}} {{os.getpid()}} {{time.monotonic()}}\\n".encode())

def asked(query):
    query = parse_qs(query)
    return query["token"][0], int(query["ms"][0]) / 1000

def body_of(token):
    return (token * (2048 // len(token) + 1))[:2048].encode()

def headers_of(body):
    yield from [("Content-Length", str(len(body))), ("X-Pid", str(os.getpid())), ("X-Release", release)]

healthy = True
{fault}
"""
_WSGI = """
def application(environ, start_response):
    if environ["PATH_INFO"] == "/healthz":
        start_response("200 OK" if healthy else "500 Internal Server Error", [("Content-Length", "0")])
        return [b""]
    token, seconds = asked(environ["QUERY_STRING"])
    note("began", token)
    time.sleep(seconds)
    body = body_of(token)
    note("ended", token)
    start_response("200 OK", list(headers_of(body)))
    return [body]
"""
_ASGI = """
import asyncio

async def application(scope, receive, send):
    if scope["type"] != "http":
        return
    if scope["path"] == "/healthz":
        head = {"status": 200 if healthy else 500, "headers": [(b"content-length", b"0")]}
        await send({"type": "http.response.start", **head})
        await send({"type": "http.response.body", "body": b""})
        return
    token, seconds = asked(scope["query_string"].decode())
    note("began", token)
    await asyncio.sleep(seconds)
    body = body_of(token)
    note("ended", token)
    headers = [(name.lower().encode(), value.encode()) for name, value in headers_of(body)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
"""

FAULTS: Mapping[str, str] = {
    "import error": 'raise RuntimeError("this release does not import")',
    "boot hang": "time.sleep(600)",
    "500 on the health check": "healthy = False",
    "crash after 2 s": "threading.Timer(2.0, os._exit, (5,)).start()",
    "bad config file": "",
}
"""What can be wrong with a release: its name, and the code that does it.  The last one breaks gunicorn.conf.py."""

SHAPES: Mapping[str, Mapping[str, Any]] = {
    "sync": {"worker_class": "sync", "workers": 8},
    "gthread": {"worker_class": "gthread", "workers": 3, "threads": 12},
    "asgi": {"worker_class": "asgi", "workers": 2},
}
RATES: Mapping[str, float] = {"sync": 60.0, "gthread": 300.0, "asgi": 300.0}
"""Requests a second that the shape serves well below its limits: sync has one at a time in each worker."""


@dataclass(frozen=True, slots=True)
class Work:
    """What the application noted of one request."""

    pid: int
    began: float
    ended: float | None


class Website(Daemon):
    """The daemon and its one pool, `web`."""

    def __init__(self, shape: str = "gthread", **keys: Any) -> None:
        super().__init__()
        (self.port,) = net.free_ports(1)
        self.shape = shape
        self.rate = RATES[shape]
        self.notes = self.directory / "notes"
        self._releases = 0
        self.release()
        self._keys = keys
        self.configure({"web": self.keys()})

    def keys(self, **more: Any) -> Mapping[str, Any]:
        """The config of the pool."""
        return {
            "program": "gunicorn",
            "app": "site_app",
            "cwd": str(self.work / "current"),
            "bind": f"127.0.0.1:{self.port}",
            "graceful_timeout": "10s",
            **SHAPES[self.shape],
            **self._keys,
            **more,
        }

    def release(self, fault: str = "", *, boot_seconds: float = 0.0) -> str:
        """Make a release and set the link to it; its name."""
        self._releases += 1
        name = f"r{self._releases}"
        directory = self.work / name
        directory.mkdir()
        wrong = FAULTS[fault] if fault else f"time.sleep({boot_seconds})" if boot_seconds else ""
        body = _ASGI if self.shape == "asgi" else _WSGI
        (directory / "site_app.py").write_text(_COMMON.format(notes=str(self.notes), fault=wrong) + body)
        config = "workers = = 2\n" if fault == "bad config file" else "# nothing to say\n"
        (directory / "gunicorn.conf.py").write_text(config)
        self.point_to(name)
        return name

    def point_to(self, name: str) -> None:
        """Set the link to a release that exists."""
        new = self.work / "next"
        new.unlink(missing_ok=True)
        new.symlink_to(name)
        new.rename(self.work / "current")

    def workers(self) -> list[int]:
        """The worker pids below all masters that live."""
        return [worker for master in self.pids("web").values() for worker in procs.children(master)]

    def wait_workers(self, count: int, seconds: float = SECONDS) -> None:
        """Wait until there are so many workers, each of them alive."""
        wait_for(lambda: len(self.workers()) == count, seconds, f"{count} workers")

    def wait_served(self, seconds: float = SECONDS) -> None:
        """Wait until the pool runs with one master."""
        self.wait_running("web", seconds=seconds)
        self.wait_pids("web", 1, seconds)

    def noted(self) -> Mapping[str, Work]:
        """Every request that a worker began, by its token."""
        found: dict[str, Work] = {}
        for line in self.notes.read_text().splitlines():
            word, token, pid, at = line.split()
            began = found[token].began if word == "ended" else float(at)
            found[token] = Work(int(pid), began, float(at) if word == "ended" else None)
        return found


def wait_gone(pids: list[int], seconds: float = SECONDS) -> None:
    """Wait until these processes have ended."""
    wait_for(lambda: not any(procs.alive(pid) for pid in pids), seconds, f"{pids} to be gone")
