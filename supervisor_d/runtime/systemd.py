"""What the daemon tells systemd, by the datagrams of sd_notify(3); silent when nobody listens.

The address comes from $NOTIFY_SOCKET and is taken out of the environment at once, with $WATCHDOG_USEC and
$WATCHDOG_PID: what we start shall neither speak in our name nor believe that it is watched.

A datagram is sent without waiting.  systemd reads its socket whenever it lives; should the queue be full all the same,
the message is lost and `send` says so: a daemon must not hang because its supervisor does.  The watchdog is fed from
the event loop itself, twice per period, so that a loop that hangs is a daemon that systemd restarts.

    READY=1                             adopted or accepted, and the doors are open
    RELOADING=1 MONOTONIC_USEC=...      a reload begins (the time is what Type=notify-reload wants); READY=1 ends it
    STOPPING=1                          all pools are asked to stop
    EXTEND_TIMEOUT_USEC=...             draining takes this much longer; sent again and again while it does
    STATUS=...                          one line for `systemctl status`
    WATCHDOG=1                          the loop runs
    FDSTORE=1 FDNAME=...                keep this descriptor (FDSTOREREMOVE=1: no more), see runtime/fdstore.py
"""

from __future__ import annotations

import array
import asyncio
import functools
import os
import socket
import time
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field

STATUS_LIMIT_CHARACTERS = 500
MICROSECONDS = 1_000_000
_NAMES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


@dataclass(frozen=True, slots=True)
class Notifier:
    """A way to the service manager; `address` is empty when there is none."""

    address: str = ""
    watchdog_seconds: float = 0.0
    """How long the manager waits for a WATCHDOG=1 before it acts; 0 means that it does not."""
    environ: Mapping[str, str] = field(default_factory=dict, compare=False)
    """What was taken out of the environment: for the daemon that this process becomes by an upgrade."""

    @classmethod
    def take(cls, environ: MutableMapping[str, str]) -> Notifier:
        """Read what systemd set for this process, and remove it from `environ`."""
        taken = {name: environ[name] for name in _NAMES if name in environ}
        address = environ.pop("NOTIFY_SOCKET", "")
        period = environ.pop("WATCHDOG_USEC", "")
        watched = environ.pop("WATCHDOG_PID", "") or str(os.getpid())
        if not period.isdecimal() or watched != str(os.getpid()):
            period = "0"
        return cls(address, int(period) / MICROSECONDS, taken)

    def send(self, *lines: str, fds: Sequence[int] = ()) -> bool:
        """Send `KEY=value` lines as one message; False when nobody got it.  Never raises, never waits."""
        if not self.address.startswith(("/", "@")):
            return False
        # A leading @ stands for the zero byte of an abstract address (unix(7)).
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as out:
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
                out.sendmsg(["\n".join(lines).encode()], rights, 0, address)
        except OSError:
            return False
        return True

    def ready(self, status: str = "") -> bool:
        """The daemon serves; also the end of a reload."""
        return self.send("READY=1", *_status(status))

    def reloading(self, status: str = "") -> bool:
        """A reload begins; `ready` must follow, whatever comes of it."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        return self.send("RELOADING=1", f"MONOTONIC_USEC={now}", *_status(status))

    def stopping(self, status: str = "") -> bool:
        """The daemon is about to end."""
        return self.send("STOPPING=1", *_status(status))

    def status(self, text: str) -> bool:
        """One line for people."""
        return self.send(*_status(text or " "))

    def extend_timeout(self, seconds: float) -> bool:
        """Starting, reloading or stopping takes up to `seconds` more, counted from now."""
        return self.send(f"EXTEND_TIMEOUT_USEC={round(seconds * MICROSECONDS)}")

    def store(self, name: str, fd: int) -> bool:
        """Let the manager keep a descriptor under a name, for the daemon that comes after this one's death."""
        return self.send("FDSTORE=1", f"FDNAME={name}", fds=(fd,))

    def unstore(self, name: str) -> bool:
        """Let the manager close what it keeps under a name."""
        return self.send("FDSTOREREMOVE=1", f"FDNAME={name}")

    async def feed_watchdog(self) -> None:
        """Feed the watchdog twice per period, for ever; returns at once when nobody watches."""
        while self.address and self.watchdog_seconds:
            self.send("WATCHDOG=1")
            await asyncio.sleep(self.watchdog_seconds / 2)


def _status(text: str) -> tuple[str, ...]:
    """A STATUS line: one line of bounded length, whatever the text holds."""
    line = " ".join(text.split())[:STATUS_LIMIT_CHARACTERS]
    return (f"STATUS={line}",) if text else ()


@functools.cache
def notifier() -> Notifier:
    """The process's notifier, taken from its environment when first asked for."""
    return Notifier.take(os.environ)


def notify(*lines: str) -> bool:
    """`notifier().send`, for callers with one word to say."""
    return notifier().send(*lines)
