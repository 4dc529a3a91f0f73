"""The journal: every action and fact with its reason, bounded in memory, on disk and towards each reader.

The last `MEMORY_ENTRIES` are kept for `events` and `why`; a file in the state directory holds more, in two halves of
`FILE_BYTES` each, so that the story goes on across daemons.  A reader that follows gets a queue of its own; when it is
slower than the daemon for `QUEUE_ENTRIES` entries, the oldest are dropped and it is told how many.

Entries are numbered; their wall-clock times are for people, and may go back.  When the clock was set, between two
entries, a line says so.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from supervisor_d.core.journal import History, Note
from supervisor_d.core.snapshot import Entry
from supervisor_d.core.units import format_duration

MEMORY_ENTRIES = 5000
QUEUE_ENTRIES = 1000
FILE_BYTES = 8 * 1024 * 1024
TAIL_BYTES = 1024 * 1024
MOVED_SECONDS = 2.0
"""Of the wall clock against the monotonic one: less is a clock that is kept right."""

Sink = Callable[[Entry], None]


class Subscription:
    """What one follower has not read yet.  `wake` is called when something arrives."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._entries: deque[Entry] = deque(maxlen=QUEUE_ENTRIES)
        self._wake = wake
        self.dropped = 0

    def put(self, entry: Entry) -> None:
        if len(self._entries) == QUEUE_ENTRIES:
            self.dropped += 1
        self._entries.append(entry)
        self._wake()

    def take(self) -> list[Entry]:
        """Everything that waits, and forget it."""
        taken = list(self._entries)
        self._entries.clear()
        return taken


class Journal:
    """Records entries and hands them to followers.  A full disk loses history, never the daemon."""

    def __init__(self, path: Path, sink: Sink | None = None) -> None:
        self._path = path
        self._sink = sink
        self._followers: list[Subscription] = []
        self._history = History(MEMORY_ENTRIES, _tail(path))
        self._pending: list[Entry] = []
        self._wall_ahead = time.time() - time.monotonic()
        self.write_errors = 0

    def record(self, note: Note) -> Entry:
        """Add one line; it reaches the file at the next `flush`."""
        at = time.time()
        if moved := self._clock_moved(at):
            self._append(moved, at)
        return self._append(note, at)

    def _clock_moved(self, at: float) -> Note | None:
        """What there is to say of the wall clock, which shows `at`."""
        ahead = at - time.monotonic()
        seconds, self._wall_ahead = ahead - self._wall_ahead, ahead
        if abs(seconds) < MOVED_SECONDS:
            return None
        word = "forward" if seconds > 0 else "back"
        span = format_duration(round(abs(seconds)))  # the two clocks are not read in one instant
        reason = f"the wall clock went {span} {word}: it was set, or the machine slept"
        return Note("daemon", "clock-moved", "", "daemon", f"{reason}; nothing is timed by it")

    def _append(self, note: Note, at: float) -> Entry:
        entry = self._history.append(note, at)
        self._pending.append(entry)
        if self._sink is not None:
            self._sink(entry)
        for follower in self._followers:
            follower.put(entry)
        return entry

    def flush(self) -> None:
        """Append what is new to the file; errors are counted, since telling them here would fail as well."""
        if not self._pending:
            return
        data = b"".join(msgspec.json.encode(entry) + b"\n" for entry in self._pending)
        self._pending.clear()
        try:
            with self._path.open("ab") as file:
                if file.tell() + len(data) > FILE_BYTES:
                    self._path.replace(self._path.with_name(self._path.name + ".1"))
                    with self._path.open("ab") as fresh:
                        fresh.write(data)
                else:
                    file.write(data)
        except OSError:
            self.write_errors += 1

    def entries(
        self, *, after: int = 0, pool: str = "", subject: str = "", limit: int = MEMORY_ENTRIES
    ) -> tuple[Entry, ...]:
        """The newest `limit` entries behind the serial `after`, oldest first; of one pool or one subject if named."""
        found = self._history.entries(after=after, pool=pool, subject=subject)
        return found[-limit:] if limit > 0 else ()

    @contextmanager
    def follow(self, wake: Callable[[], None]) -> Iterator[Subscription]:
        """A subscription for as long as the block runs."""
        subscription = Subscription(wake)
        self._followers.append(subscription)
        try:
            yield subscription
        finally:
            self._followers.remove(subscription)


def _tail(path: Path) -> list[Entry]:
    """The last entries of former daemons; a torn or foreign line is passed over."""
    found: list[Entry] = []
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL_BYTES))
            lines = file.read().splitlines()[-MEMORY_ENTRIES:]
    except OSError:
        return found
    for line in lines:
        with suppress(msgspec.DecodeError):
            found.append(msgspec.json.decode(line, type=Entry))
    return found
