"""Hosts for a test: network namespaces around a switch, each with one cable, which can be pulled (veth(4)).

    10.77.0.1 ── lo of the switch: where a server for all listens, `0.0.0.0` in the switch's namespace
    10.77.N.2 ── host N ── cable ── 10.77.N.1

A namespace lives as long as the process that was started in it.  Nothing of the machine's own network is touched.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from functools import cache
from types import TracebackType
from typing import Self

SERVER_ADDRESS = "10.77.0.1"
_HOLD = (
    "import ctypes, signal, sys\n"
    "if ctypes.CDLL(None, use_errno=True).unshare(0x40000000): sys.exit(1)\n"
    "print('here', flush=True)\n"
    "signal.pause()\n"
)
"""unshare(CLONE_NEWNET); Python has os.unshare from 3.12 on."""


@cache
def can_be_had() -> bool:
    """Whether this machine lets us make network namespaces and cables."""
    if shutil.which("ip") is None or shutil.which("nsenter") is None:
        return False
    with NetHost() as host:
        return host.made and host.run("ip", "link", "set", "lo", "up", check=False) == 0


class NetHost:
    """A network namespace of its own."""

    def __enter__(self) -> Self:
        self._holder = subprocess.Popen([sys.executable, "-c", _HOLD], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        assert self._holder.stdout is not None
        self.made = self._holder.stdout.readline() == b"here\n"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._holder.kill()
        self._holder.communicate()

    @property
    def pid(self) -> int:
        """A process in it."""
        return self._holder.pid

    @property
    def prefix(self) -> list[str]:
        """What execs a command in it."""
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", "--"]

    def run(self, *command: str, check: bool = True) -> int:
        """Run a command in it, to its end."""
        return subprocess.run([*self.prefix, *command], check=check, capture_output=True, timeout=30).returncode


class Cable:
    """The one connection between the switch and host number `number`."""

    def __init__(self, switch: NetHost, host: NetHost, number: int) -> None:
        self._switch, self._end = switch, f"host{number}"
        other = f"up{number}"
        switch.run("ip", "link", "add", self._end, "type", "veth", "peer", "name", other, "netns", str(host.pid))
        switch.run("ip", "address", "add", f"10.77.{number}.1/24", "dev", self._end)
        switch.run("ip", "link", "set", self._end, "up")
        host.run("ip", "address", "add", f"10.77.{number}.2/24", "dev", other)
        host.run("ip", "link", "set", other, "up")
        host.run("ip", "link", "set", "lo", "up")
        host.run("ip", "route", "add", "default", "via", f"10.77.{number}.1")

    def pull(self) -> None:
        """Nothing passes any more, and nobody is told."""
        self._switch.run("ip", "link", "set", self._end, "down")

    def plug_in(self) -> None:
        """As before."""
        self._switch.run("ip", "link", "set", self._end, "up")
