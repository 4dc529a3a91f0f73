"""The two programs that are measured, behind one face: the floor and supervisor-d, both keeping tiny workers.

A worker announces itself by writing its pid into a FIFO that the benchmark reads: what is timed is seen from outside,
never told by the program that is measured.
"""

from __future__ import annotations

import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DEADLINE_SECONDS = 60.0
MEMORY = "/dev/shm"
FLOOR = Path(__file__).with_name("floor.py")


STUBBORN = """
import os, signal, sys
fifo = os.open(sys.argv[1], os.O_WRONLY)
def say(*_):
    os.write(fifo, b"%d\\n" % os.getpid())
signal.signal(signal.SIGTERM, say)
say()
while True:
    signal.pause()
"""


class Announcements:
    """The pids that workers write as they start, with the instant of each."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "announce"
        os.mkfifo(self.path)
        self._fd = os.open(self.path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._rest = b""

    def argv(self) -> list[str]:
        """A shell that says its pid and becomes a sleeper."""
        return ["/bin/sh", "-c", f"echo $$ > {self.path}; exec sleep 86400"]

    def stubborn_argv(self) -> list[str]:
        """A program that says its pid at its start and once more at each TERM, and goes on."""
        return [sys.executable, "-I", "-S", "-c", STUBBORN, str(self.path)]

    def take(self, count: int) -> list[int]:
        """The next `count` pids.  Raises TimeoutError after DEADLINE_SECONDS."""
        pids: list[int] = []
        deadline = time.monotonic() + DEADLINE_SECONDS
        while len(pids) < count:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._fd], [], [], left)[0]:
                raise TimeoutError(f"{len(pids)} of {count} workers announced themselves")
            *lines, self._rest = (self._rest + os.read(self._fd, 65536)).split(b"\n")
            pids += [int(line) for line in lines]
        return pids

    def close(self) -> None:
        os.close(self._fd)


def wait_gone(pidfds: list[int]) -> float:
    """The instant (perf_counter) at which the last of these processes was dead."""
    poller = select.poll()
    for fd in pidfds:
        poller.register(fd, select.POLLIN)
    left = set(pidfds)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while left:
        for fd, _ in poller.poll(1000):
            poller.unregister(fd)
            left.discard(fd)
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(left)} processes are still there")
    return time.perf_counter()


class Floor:
    """The floor program with `count` workers."""

    def __init__(self, count: int, argv: list[str]) -> None:
        command = [sys.executable, "-I", "-S", str(FLOOR), str(count), *argv]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)

    def _order(self, letter: bytes) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(letter)
        self.process.stdout.readline()

    def start(self) -> None:
        self._order(b"u")

    def stop(self) -> None:
        self._order(b"d")

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"q")
        self.process.wait(DEADLINE_SECONDS)


class UnixConnection(http.client.HTTPConnection):
    """http.client over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=DEADLINE_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(DEADLINE_SECONDS)
        self.sock.connect(str(self._path))


class Daemon:
    """supervisor-d with pools of tiny workers, in directories of its own."""

    def __init__(self, directory: Path, pools: dict[str, Any]) -> None:
        self.directory = directory
        self.config = directory / "supervisor-d.yaml"
        self.places = {name: str(directory / name) for name in ("state_dir", "log_dir")}
        # In memory, as /run is: on a disk, removing a record alone takes milliseconds.
        self._memory = tempfile.TemporaryDirectory(prefix="sdb-", dir=MEMORY if Path(MEMORY).is_dir() else directory)
        self.places["runtime_dir"] = self._memory.name
        self.write(pools)
        self._log = (directory / "daemon.log").open("wb")
        command = [sys.executable, "-m", "supervisor_d", "run", "--config", str(self.config)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, start_new_session=True
        )
        self.socket = Path(self.places["runtime_dir"]) / "control" / "control.sock"
        self._connection: UnixConnection | None = None
        self._await_answer()

    def write(self, pools: dict[str, Any]) -> None:
        """Write the config; JSON is YAML."""
        defaults = {"user": "root"} if os.geteuid() == 0 else {}
        daemon = {**self.places, "starts_at_once": 100, "metrics": {"listen": "127.0.0.1:0"}}
        document = {"version": 1, "daemon": daemon, "defaults": defaults, "pools": pools}
        self.config.write_text(json.dumps(document), encoding="utf-8")

    def _await_answer(self) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline:
            try:
                self.call("GET", "/v1/status")
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.02)
            else:
                return
        raise RuntimeError((self.directory / "daemon.log").read_text(encoding="utf-8"))

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """One API call on a connection that stays open."""
        if self._connection is None:
            self._connection = UnixConnection(self.socket)
        headers = {"Content-Type": "application/json"}
        try:
            self._connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = self._connection.getresponse()
            data = answer.read()
        except OSError:
            self._connection.close()
            self._connection = None
            raise
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status} {data.decode()}")
        return json.loads(data)

    def operate(self, what: str, pools: list[str], **more: Any) -> Any:
        return self.call("POST", f"/v1/{what}", {"pools": pools, "wait_seconds": DEADLINE_SECONDS, **more})

    def command(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        """A supervisor-d command as an operator types it."""
        command = [sys.executable, "-m", "supervisor_d", "--socket", str(self.socket), *words]
        return subprocess.run(command, check=True, capture_output=True, timeout=DEADLINE_SECONDS)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(DEADLINE_SECONDS)
        self._log.close()
        self._memory.cleanup()
        if code != 0:
            raise RuntimeError(f"the daemon ended with {code}")


@contextmanager
def workplace() -> Iterator[Path]:
    """A directory below the system's temporary one, with a name short enough for unix sockets."""
    with tempfile.TemporaryDirectory(prefix="sdb-") as name:
        yield Path(name)
