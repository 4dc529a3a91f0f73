"""What a running daemon shows: its own log on standard error, and, in a terminal, the workers' merged logs on standard
output.

The daemon's log is its journal, a line for each entry, as text or JSON.  Writing it must never hold up the loop or end
the daemon: a terminal that is gone, or a pipe that nobody reads, loses lines, not processes.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime

import msgspec

from supervisor_d.core.snapshot import Entry
from supervisor_d.logs.follower import Follower, selection_of
from supervisor_d.logs.line import prefixed
from supervisor_d.run_options import RunOptions

_COLOURS = {"event": "36", "action": "33", "operator": "35", "daemon": "1"}


class Console:
    """Shows entries as they are recorded; `follow_logs` shows the workers' lines until it is cancelled."""

    def __init__(self, options: RunOptions) -> None:
        self._options = options

    def show(self, entry: Entry) -> None:
        """One entry of the journal, as a line on standard error."""
        if self._options.log_format == "json":
            line = msgspec.json.encode(entry).decode()
        else:
            line = entry_line(entry, colour=self._options.colour)
        _write(2, line + "\n")

    async def follow_logs(self, directories: Callable[[], Mapping[str, str]]) -> None:
        """Every pool's lines from now on, with the slot in front."""
        with Follower(selection_of(directories, ())) as follower:
            await asyncio.to_thread(follower.history, 0, None)
            width = 12
            async for batch in follower.added():
                width = max(width, *(len(line.source) for line in batch))
                text = "".join(prefixed(line, width, colour=self._options.colour) + "\n" for line in batch)
                _write(1, text)


def entry_line(entry: Entry, *, colour: bool) -> str:
    """`12:00:01.123 action spawn web.0@g1.1: web wants 2 workers`; under systemd's journal, without the time."""
    moment = datetime.fromtimestamp(entry.at).astimezone()
    clock = "" if "JOURNAL_STREAM" in os.environ else f"{moment:%H:%M:%S.%f}"[:-3] + " "
    head = f"{entry.kind} {entry.name}"
    if colour:
        head = f"\x1b[{_COLOURS.get(entry.kind, '0')}m{head}\x1b[0m"
    return f"{clock}{head} {entry.subject}: {entry.reason}"


def _write(fd: int, text: str) -> None:
    stream = sys.stdout if fd == 1 else sys.stderr
    with suppress(OSError, ValueError):
        stream.write(text)
        stream.flush()
