"""What gunicorn's workers are about, in a file that they share: the layout, and the worker's hand in it.

The master makes the file, `scoreboard` in its process's private directory, and gives each worker a slot before it
forks it.  A worker writes its own slot only, without a lock that another process could hold; whoever reads the file
takes no part.  All is 64-bit words of this machine, times are nanoseconds of CLOCK_MONOTONIC, 0 is never.

    header  MAGIC VERSION slots-ever-used proven failed-boots 0 ...
    slot 0  pid age state taken-at in-flight oldest-start last-end requests x 6 duration-sum durations x 14 0 ...
    slot 1  ...

Totals only grow: a slot outlives its worker, and the next one in it goes on where the last one stopped.

Written for every Python that gunicorn runs on, which need not be the daemon's; depends on nothing.
"""

from __future__ import annotations

import _thread
import mmap
import os
import time
from bisect import bisect_left

NAME = "scoreboard"
MAGIC = 0x73_75_70_2D_67_75_6E_69
VERSION = 1
SLOTS = 512
WORDS = 32
"""Of the header, and of each slot."""
WORD_BYTES = 8
SIZE_BYTES = (1 + SLOTS) * WORDS * WORD_BYTES

PID, AGE, STATE, TAKEN_AT, IN_FLIGHT, OLDEST, LAST_END, REQUESTS = range(8)
CLASSES = 6
"""Requests by the first digit of the answer's status; 0: there was no answer."""
DURATION_SUM = REQUESTS + CLASSES
DURATIONS = DURATION_SUM + 1
BOUNDS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the durations counted from DURATIONS on; one more counts the longer ones."""

FREE, BOOTING, READY = range(3)

_BOUNDS = tuple(int(seconds * 1e9) for seconds in BOUNDS_SECONDS)
_USED, _PROVEN, _FAILED = 2, 3, 4


class Scoreboard:
    """The master's side: which worker has which slot."""

    def __init__(self, directory: str) -> None:
        """Make the file.  Raises OSError; a full disk says so here and not by a signal at the first write."""
        path = os.path.join(directory, NAME)
        if os.path.lexists(path):  # a former master's: its workers may still write there, so never cut it short
            os.unlink(path)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, SIZE_BYTES)
            self._words = memoryview(mmap.mmap(fd, SIZE_BYTES)).cast("Q")
        finally:
            os.close(fd)
        self._words[1] = VERSION
        self._words[0] = MAGIC

    def take(self, taken: set[int]) -> int:
        """The lowest slot that is not `taken`, for a worker that is about to be forked; -1 when there is none."""
        for slot in range(SLOTS):
            if slot not in taken:
                words = self._slot(slot)
                for word in (PID, AGE, STATE, IN_FLIGHT, OLDEST):
                    words[word] = 0
                self._words[_USED] = max(self._words[_USED], slot + 1)
                return slot
        return -1

    def release(self, slot: int) -> None:
        """Its worker has ended; what it counted stays."""
        words = self._slot(slot)
        for word in (PID, STATE, IN_FLIGHT, OLDEST):
            words[word] = 0

    @property
    def proven(self) -> bool:
        """Whether a worker of this master ever loaded the application."""
        return bool(self._words[_PROVEN])

    @property
    def failed_boots(self) -> int:
        """How many workers in a row could not load it."""
        return self._words[_FAILED]

    def booted(self, *, well: bool) -> None:
        """A worker has loaded the application, or could not."""
        if well:
            self._words[_PROVEN] = 1
        self._words[_FAILED] = 0 if well else self._words[_FAILED] + 1

    def desk(self, slot: int) -> Desk:
        """The worker's side of a slot."""
        return Desk(self._slot(slot))

    def _slot(self, slot: int) -> memoryview:
        first = (1 + slot) * WORDS
        return self._words[first : first + WORDS]


class Desk:
    """A worker's own slot.  Requests begin and end in any of its threads or greenlets."""

    def __init__(self, words: memoryview) -> None:
        self._words = words
        # A dict keeps the order of its keys: the first one is the oldest.
        self._open: dict[int, int] = {}
        # Not threading's: gevent replaces that one, and nothing here ever waits.
        self._lock = _thread.allocate_lock()

    def taken(self, pid: int, age: int) -> None:
        """The worker was forked; it boots."""
        words = self._words
        words[TAKEN_AT] = time.monotonic_ns()
        words[AGE] = age
        words[STATE] = BOOTING
        words[PID] = pid

    def ready(self) -> None:
        """The application is loaded."""
        self._words[STATE] = READY

    def began(self, key: int) -> None:
        """A request begins; `key` is its own until it ends."""
        now = time.monotonic_ns()
        words = self._words
        with self._lock:
            self._open[key] = now
            words[IN_FLIGHT] = count = len(self._open)
            if count == 1:
                words[OLDEST] = now

    def ended(self, key: int, status_class: int) -> None:
        """A request is over.  One that never began is nothing."""
        now = time.monotonic_ns()
        words = self._words
        with self._lock:
            began = self._open.pop(key, None)
            if began is None:
                return
            words[IN_FLIGHT] = len(self._open)
            words[OLDEST] = next(iter(self._open.values()), 0)
            words[LAST_END] = now
            words[REQUESTS + (status_class if 0 < status_class < CLASSES else 0)] += 1
            words[DURATION_SUM] += now - began
            words[DURATIONS + bisect_left(_BOUNDS, now - began)] += 1
