"""The heartbeat that an agent keeps in a process's private directory, as the daemon reads it: data, never trusted.

The file belongs to the process's user, who may put anything there.  It is opened without following a link and without
waiting, must be a regular file, and is read once, bounded; what is not of the right types is no heartbeat.  The writer
maps it and never waits for a reader, so a reading that was torn (an odd or changed sequence) is done again, at most
TRIES times.  The format stands in supervisor_d/agents/.
"""

from __future__ import annotations

import os
import stat
import struct
from typing import Annotated

import msgspec

from supervisor_d.core.process import TasksLeft

NAME = "heartbeat"
SIZE_MAX_BYTES = 64 * 1024
TRIES = 4
TASKS_MAX = 64
NAME_MAX = 200
BUCKETS_SECONDS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper bounds of the run times' buckets; one more is for all that took longer."""

_HEADER = struct.Struct("<4sIII")
_MAGIC = b"SDH1"
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e12)]
Wait = Annotated[float, msgspec.Meta(ge=0, le=3600)]
Name = Annotated[str, msgspec.Meta(max_length=10_000)]


class Task(msgspec.Struct, frozen=True):
    """A task that runs."""

    id: Name
    name: Name
    started_at: Seconds
    late: bool = False
    """Acknowledged after its end: what is interrupted runs again."""
    pid: int | None = None


class Heartbeat(msgspec.Struct, frozen=True):
    """What a worker says of itself, once a second.  Times are CLOCK_MONOTONIC; totals count from its start."""

    at: Seconds
    pid: int
    consuming: bool = False
    connected: bool = False
    can_consume: bool = False
    take_at: Seconds | None = None
    """When it last asked the broker for a message."""
    take_waits: Wait = 1.0
    """How long a question waits for its answer; 0: for ever.  kombu's own second from an older agent."""
    draining: bool = False
    processes: Count = 0
    target: Count = 0
    busy: Count = 0
    idle: Count | None = None
    """Pool processes that a task could be given to; None from an older agent."""
    active: Count = 0
    reserved: Count = 0
    waiting: Count = 0
    """Of the reserved, those that may run at once: not those of a later time, or held back by a rate limit."""
    unsafe: Count = 0
    oldest_started_at: Seconds | None = None
    started_total: Count = 0
    succeeded_total: Count = 0
    failed_total: Count = 0
    retried_total: Count = 0
    revoked_total: Count = 0
    redelivered_total: Count = 0
    unknown_total: Count = 0
    runtime_seconds_total: Seconds = 0.0
    runtime_buckets: tuple[Count, ...] = ()
    wait_seconds_total: Seconds = 0.0
    ledger_overflow: Count = 0
    tasks: tuple[Task, ...] = ()

    def tasks_left(self) -> TasksLeft:
        """The work in hand, as the core knows it."""
        name = printable(self.tasks[0].name) if self.tasks else ""
        return TasksLeft(self.active, self.reserved, self.unsafe, self.oldest_started_at, name)


_decoder = msgspec.json.Decoder(Heartbeat)


def read(private_dir: str, pid: int) -> Heartbeat | None:
    """The last heartbeat of the main process `pid`; None where there is none that can be believed."""
    try:
        fd = os.open(f"{private_dir}/{NAME}", _FLAGS)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        for _ in range(TRIES):
            body = _whole(fd)
            if body is not None:
                return _parsed(body, pid)
        return None
    except OSError:
        return None
    finally:
        os.close(fd)


def _whole(fd: int) -> bytes | None:
    """The JSON of one writing; None when it was torn."""
    data = os.pread(fd, SIZE_MAX_BYTES, 0)
    if len(data) < _HEADER.size:
        return b""
    magic, sequence, length, _ = _HEADER.unpack_from(data)
    if magic != _MAGIC or length > SIZE_MAX_BYTES - _HEADER.size:
        return b""
    torn = sequence % 2 or os.pread(fd, _HEADER.size, 0) != data[: _HEADER.size]
    return None if torn else data[_HEADER.size : _HEADER.size + length]


def _parsed(body: bytes, pid: int) -> Heartbeat | None:
    try:
        found = _decoder.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return None
    buckets = len(found.runtime_buckets)
    whole = buckets in (0, len(BUCKETS_SECONDS) + 1) and len(found.tasks) <= TASKS_MAX
    return found if whole and found.pid == pid else None


def printable(text: str) -> str:
    """A name that a program chose, fit for one line."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:NAME_MAX])
