"""Gives back what an ended worker held, by a helper that runs with the worker's own Python, environment and user.

The daemon imports neither Celery nor a broker's client, and could not know how the application reaches its broker.  So
the agent brings the helper along: `PYTHON -m supervisor_d_celery_agent --restore DIR`, with all else out of the
process's record, which outlives the config that it was started from.  It reads the ledger in the private directory,
and says what it did in one line of JSON:

    exit 0     {"held": 3, "restored": 2, "acked": 1, "skipped": 0, "gone": 0}
    exit 75    the broker cannot be reached: to be tried again (EX_TEMPFAIL, sysexits.h)
    else       it failed, and its last line on stderr says why

A helper may be killed at any point and run again: what is back in a queue is no longer held.

What the broker said last to a dead worker (runtime/lent.py) is a second thing, and may not be known yet, or never: the
broker's old host is gone without a word.  The ledger does not wait for it: the helper runs without, and the connection
is looked into again later, for LOOK_SECONDS.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
import time
from pathlib import Path
from typing import Annotated, BinaryIO

import msgspec

from supervisor_d.core.events import Restored, RestoreFailed
from supervisor_d.runtime import lent, tasks
from supervisor_d.runtime.drivers.heartbeat import printable
from supervisor_d.runtime.host import Emit
from supervisor_d.runtime.probing import end_of, start_as
from supervisor_d.runtime.records import Record, Records
from supervisor_d.shim import wire

MODULE = "supervisor_d_celery_agent"
LEDGER = "ledger"
"""In the private directory; without one, nothing was held."""
LEDGER_MAGIC = b"SDL1"
LEDGER_BYTES, SLOTS_AT, SLOTS, SLOT_BYTES = 1_605_696, 32_832, 16_384, 64
"""Of the ledgers that can be told to be empty from outside: each slot begins with its state, 0 for a free one."""
LENT_ENV = "SUPERVISOR_D_LENT"
"""Descriptors of connections that hold what the broker said last (runtime/lent.py)."""
AT_ONCE_MAX = 4
HELPER_SECONDS = 60.0
LOOK_SECONDS = 1200.0
"""For a lent connection to tell what it holds.  TCP itself gives up a host that is gone after about 15 minutes."""
OUTPUT_MAX_BYTES = 4096
EX_TEMPFAIL = 75

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**31)]


class Report(msgspec.Struct, frozen=True):
    """What a helper did with the messages that were held."""

    held: _Count = 0
    restored: _Count = 0
    acked: _Count = 0
    skipped: _Count = 0
    gone: _Count = 0
    broadcast: _Count = 0

    def summary(self) -> str:
        """`3 messages held: 2 back in their queues, 1 acknowledged`; empty when none was held."""
        if not self.held:
            return ""
        counted = (
            (self.restored, "back in their queues"),
            (self.acked, "acknowledged"),
            (self.skipped, "in other hands by now"),
            (self.gone, "no longer at the broker"),
            (self.broadcast, "broadcast, which nobody gets again"),
        )
        parts = ", ".join(f"{count} {what}" for count, what in counted if count)
        return f"{self.held} message{'s' if self.held != 1 else ''} held: {parts or 'nothing was to be done'}"


class Restorer:
    """Runs helpers, a few at a time; each ends in one Restored or RestoreFailed."""

    def __init__(self, emit: Emit, runtime_dir: Path) -> None:
        self._emit = emit
        self._records = Records(runtime_dir)
        self._places = asyncio.Semaphore(AT_ONCE_MAX)
        self._running: set[asyncio.Task[None]] = set()
        self._looking_since: dict[str, float] = {}

    def restore(self, process_id: str) -> None:
        """Give back what a process held whose tree is empty."""
        task = tasks.begin(self._restore(process_id), f"aftercare of {process_id}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def close(self) -> None:
        """End all helpers; the next daemon starts them again."""
        for task in tuple(self._running):
            task.cancel()

    async def _restore(self, process_id: str) -> None:
        record = self._records.of(process_id)
        try:
            spec = record.spec()
            unread, not_yet = await asyncio.to_thread(_unread, record) if spec["agent"] else ([], "")
            if not spec["agent"] or (not unread and holds_nothing(record.private_dir / LEDGER)):
                self._settled(process_id, Report(), not_yet)
                return
            async with self._places:
                code, out, err = await _run(spec, str(record.private_dir), unread)
        except TimeoutError:
            self._fail(process_id, f"the helper took more than {HELPER_SECONDS:g} s")
            return
        except (OSError, ValueError) as error:
            self._fail(process_id, f"cannot run the helper: {getattr(error, 'strerror', '') or error}")
            return
        if code == EX_TEMPFAIL:
            self._emit(RestoreFailed(process_id, _last_line(err) or "the broker cannot be reached", away=True))
        elif code != 0:
            self._fail(process_id, _last_line(err) or f"the helper ended with {code}")
        else:
            self._told(process_id, out, not_yet)

    def _told(self, process_id: str, out: bytes, not_yet: str) -> None:
        try:
            report = msgspec.json.decode(out, type=Report)
        except msgspec.DecodeError:
            self._fail(process_id, "the helper did not say what it did")
            return
        self._settled(process_id, report, not_yet)

    def _settled(self, process_id: str, report: Report, not_yet: str) -> None:
        """The ledger is done; so is all, unless it cannot be told yet what the broker said last, for the reason given.

        That is tried again, so that the record and the connection are kept, until it has gone on for too long.
        """
        summary = report.summary()
        if not not_yet:
            self._looking_since.pop(process_id, None)
            self._emit(Restored(process_id, summary, report.restored))
            return
        now = time.monotonic()
        looking = {known: since for known, since in self._looking_since.items() if now - since < 2 * LOOK_SECONDS}
        self._looking_since = looking  # those that were given up are forgotten
        away = now - looking.setdefault(process_id, now) < LOOK_SECONDS
        reason = f"{not_yet} ({summary})" if summary else not_yet
        self._emit(RestoreFailed(process_id, reason, away, report.restored))

    def _fail(self, process_id: str, reason: str) -> None:
        self._emit(RestoreFailed(process_id, reason, away=False))


def _unread(record: Record) -> tuple[list[socket.socket], str]:
    """What a dead worker has not read, for the caller to close; and why that cannot be told yet, where it cannot."""
    try:
        return lent.unread(record), ""
    except lent.NotYetError as error:
        return [], str(error)


def holds_nothing(path: Path) -> bool:
    """Whether a ledger certainly names no message: there is none, or all its slots are free (supervisor_d/agents/).

    Anything unknown is a reason to ask the helper, which costs half a second of CPU where this costs a millisecond.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return error.errno == errno.ENOENT
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size != LEDGER_BYTES:
            return False
        states = os.pread(fd, SLOTS * SLOT_BYTES, SLOTS_AT)[::SLOT_BYTES]
        return os.pread(fd, len(LEDGER_MAGIC), 0) == LEDGER_MAGIC and states == bytes(SLOTS)
    except OSError:
        return False
    finally:
        os.close(fd)


async def _run(spec: wire.Spec, private_dir: str, unread: list[socket.socket]) -> tuple[int, bytes, bytes]:
    """Exit code, output and complaints of one helper, which gets the connections with what nobody has read of them.

    Raises OSError when it cannot be run, and TimeoutError, after killing it, when it does not end.
    """
    with _memory_file("out") as out, _memory_file("err") as err:
        argv = [spec["argv"][0], "-m", MODULE, "--restore", private_dir]
        try:
            fds = [connection.fileno() for connection in unread]
            env = {**spec["env"], LENT_ENV: ",".join(map(str, fds))}
            child = start_as(argv, env, spec["cwd"], spec["account"], output=(out, err), pass_fds=fds)
        finally:
            for connection in unread:
                connection.close()
        async with asyncio.timeout(HELPER_SECONDS):
            await end_of(child)
        return child.returncode, _read(out, 0), _read(err, max(0, os.fstat(err.fileno()).st_size - OUTPUT_MAX_BYTES))


def _memory_file(name: str) -> BinaryIO:
    """Where a helper writes: nobody has to read it meanwhile, and it can't be waited for."""
    return open(os.memfd_create(name, os.MFD_CLOEXEC), "w+b")


def _read(file: BinaryIO, offset: int) -> bytes:
    return os.pread(file.fileno(), OUTPUT_MAX_BYTES, offset)


def _last_line(err: bytes) -> str:
    lines = err.decode(errors="replace").strip().splitlines()
    return printable(lines[-1].strip()) if lines else ""
