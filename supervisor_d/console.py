"""What a running daemon shows: its own log on standard error, and, in a terminal, the workers' merged logs on standard
output.

The daemon's log is its journal, a line for each entry, as text or JSON.  Writing it must never hold up the loop or end
the daemon: a terminal that is gone, or a pipe that nobody reads, loses lines, not processes.  So a thread of its own
writes, and what it cannot keep up with, beyond WAITING_BYTES, is dropped and counted.  (Writing without blocking would
not do: O_NONBLOCK belongs to the open file, and so to the shell that shares it.)
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime

import msgspec

from supervisor_d.core.snapshot import Entry
from supervisor_d.logs.follower import Follower, selection_of
from supervisor_d.logs.line import prefixed
from supervisor_d.run_options import RunOptions
from supervisor_d.runtime.threads import leave_signals_to_the_loop

WAITING_BYTES = 1024 * 1024
CLOSE_SECONDS = 1.0

_COLOURS = {"event": "36", "action": "33", "operator": "35", "daemon": "1"}


class Console:
    """Shows entries as they are recorded; `follow_logs` shows the workers' lines until it is cancelled."""

    def __init__(self, options: RunOptions) -> None:
        self._options = options
        self._writer = _Writer()

    def close(self) -> None:
        """Write what waits, for as long as somebody reads it."""
        self._writer.close()

    def show(self, entry: Entry) -> None:
        """One entry of the journal, as a line on standard error."""
        if self._options.log_format == "json":
            line = msgspec.json.encode(entry).decode()
        else:
            line = entry_line(entry, colour=self._options.colour)
        self._writer.put(2, line + "\n")

    async def follow_logs(self, directories: Callable[[], Mapping[str, str]]) -> None:
        """Every pool's lines from now on, with the slot in front."""
        with Follower(selection_of(directories, ())) as follower:
            await asyncio.to_thread(follower.history, 0, None)
            width = 12
            async for batch in follower.added():
                width = max(width, *(len(line.source) for line in batch))
                text = "".join(prefixed(line, width, colour=self._options.colour) + "\n" for line in batch)
                self._writer.put(1, text)


def entry_line(entry: Entry, *, colour: bool) -> str:
    """`12:00:01.123 action spawn web.0@g1.1: web wants 2 workers`; under systemd's journal, without the time."""
    moment = datetime.fromtimestamp(entry.at).astimezone()
    clock = "" if "JOURNAL_STREAM" in os.environ else f"{moment:%H:%M:%S.%f}"[:-3] + " "
    head = f"{entry.kind} {entry.name}"
    if colour:
        head = f"\x1b[{_COLOURS.get(entry.kind, '0')}m{head}\x1b[0m"
    return f"{clock}{head} {entry.subject}: {entry.reason}"


class _Writer:
    """Writes to descriptors in order, in a thread, and never lets its caller wait."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._bytes = 0
        self._dropped = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = False

    def put(self, fd: int, text: str) -> None:
        """Have `text` written to `fd`, in its turn."""
        data = text.encode(errors="replace")
        with self._changed:
            if self._bytes + len(data) > WAITING_BYTES:
                self._dropped += 1
                return
            self._waiting.append((fd, data))
            self._bytes += len(data)
            self._changed.notify()
        if self._thread is None:
            self._begin()

    def _begin(self) -> None:
        """Start the thread.  Where none can be had now, what waits is written once one can."""
        thread = threading.Thread(target=self._run, name="console", daemon=True)
        with suppress(RuntimeError):
            thread.start()
            self._thread = thread

    def close(self) -> None:
        """Wait until all is written, but not for ever."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        leave_signals_to_the_loop()
        while taken := self._take():
            for fd, data in taken:
                _write_all(fd, data)

    def _take(self) -> list[tuple[int, bytes]]:
        """All that waits, once something does; nothing when there will be nothing more."""
        with self._changed:
            while not self._waiting and not self._closing:
                self._changed.wait()
            taken = list(self._waiting)
            self._waiting.clear()
            self._bytes = 0
            if self._dropped:
                taken.append((2, b"(%d lines were dropped: nobody read them)\n" % self._dropped))
                self._dropped = 0
            return taken


def _write_all(fd: int, data: bytes) -> None:
    with suppress(OSError):
        while data:
            data = data[os.write(fd, data) :]
