"""Two hosts and a Redis between them, as network namespaces, and a cable to each that can be pulled.

    hub  10.77.1.1 -- 10.77.1.2  a
         10.77.2.1 -- 10.77.2.2  b

The Redis runs in the hub and listens on both cables, and on a unix socket, by which the test looks into it from
outside.  A namespace lives as long as a process in it, which ends with the test.  Needs root, and `ip`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

from tests.support.daemon import ROOT
from tests.support.waiting import wait_for

PORT = 6379
HOSTS = ("a", "b")
_BECOME_SERVER = """
import os, sys
sys.path.insert(0, sys.argv[1])
from redis_server import find_server
server = find_server()
os.execv(server, [str(server), *sys.argv[2:]])
"""


class Namespace:
    """A network of its own, held by a process that does nothing."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(["unshare", "--net", "sleep", "3000"])
        own = os.readlink("/proc/self/ns/net")
        wait_for(lambda: os.readlink(f"/proc/{self.pid}/ns/net") != own, 10, "a network namespace")

    @property
    def pid(self) -> int:
        """Of the process that holds it."""
        return self._holder.pid

    @property
    def entering(self) -> list[str]:
        """What runs a command in it, by exec."""
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", "--"]

    def ip(self, *words: str) -> None:
        """Run `ip` in it."""
        subprocess.run([*self.entering, "ip", *words], check=True, capture_output=True)

    def end(self) -> None:
        """End its holder."""
        self._holder.kill()
        self._holder.wait()


class Network:
    """The hub, the two hosts, the cables and the Redis."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._hub = self._namespace(stack)
            self.hosts = {name: self._namespace(stack) for name in HOSTS}
            for number, host in enumerate(self.hosts.values(), 1):
                self._hub.ip(
                    "link", "add", f"to{number}", "type", "veth", "peer", "name", "eth0", "netns", str(host.pid)
                )
                self._hub.ip("address", "add", f"10.77.{number}.1/24", "dev", f"to{number}")
                self._hub.ip("link", "set", f"to{number}", "up")
                host.ip("address", "add", f"10.77.{number}.2/24", "dev", "eth0")
                host.ip("link", "set", "eth0", "up")
            self._serve(stack)
            self._stack = stack.pop_all()
        return self

    def _namespace(self, stack: ExitStack) -> Namespace:
        found = Namespace()
        stack.callback(found.end)
        found.ip("link", "set", "lo", "up")
        return found

    def _serve(self, stack: ExitStack) -> None:
        path = self._directory / "redis.sock"
        words = ["--port", str(PORT), "--bind", "0.0.0.0", "--protected-mode", "no", "--save", ""]
        words += ["--unixsocket", str(path), "--dir", str(self._directory)]
        become = [sys.executable, "-c", _BECOME_SERVER, str(ROOT / "sample_app" / "bin")]
        null = subprocess.DEVNULL
        server = subprocess.Popen([*self._hub.entering, *become, *words], stdin=null, stdout=null, stderr=null)
        stack.callback(server.wait)
        stack.callback(server.kill)
        self.redis = stack.enter_context(redis.Redis(unix_socket_path=str(path), decode_responses=True))
        wait_for(self._answers, 20, "the Redis of the hub")

    def _answers(self) -> bool:
        try:
            return bool(self.redis.ping())
        except redis.RedisError:
            return False

    def address(self, host: str) -> str:
        """Where that host finds the Redis."""
        return f"10.77.{HOSTS.index(host) + 1}.1"

    def cut(self, host: str) -> None:
        """Pull its cable."""
        self._hub.ip("link", "set", f"to{HOSTS.index(host) + 1}", "down")

    def mend(self, host: str) -> None:
        """Put it back."""
        self._hub.ip("link", "set", f"to{HOSTS.index(host) + 1}", "up")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
