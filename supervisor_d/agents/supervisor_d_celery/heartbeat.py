"""The heartbeat: a file in the private directory that says how the worker is, once a second.

    offset 0   4 bytes  b"SDH1"
    offset 4   u32      sequence: odd while it is being written, so that a reader knows to look again
    offset 8   u32      length of the JSON
    offset 12  u32      0
    offset 16           the JSON, in ASCII

Numbers are little-endian.  The file is mapped: writing it costs no system call, and no reader can hold it up.  The
consumer's own loop writes it, so that an old `at` means that the loop hangs, however alive the process looks.  While
the broker is away Celery waits inside a loop of its own, which looks in here once a second as well.

    at                  CLOCK_MONOTONIC of this writing
    pid                 of the main process
    connected, consuming, draining, can_consume (prefetch credit is left)
    take_at             CLOCK_MONOTONIC of the last BRPOP sent, null before the first; of this writing where there is
                        nothing to pop: messages come by subscriptions alone (Broadcast), or there is no queue
    take_waits          seconds that a BRPOP waits for its answer, 3600 at most; 0: for ever, or for longer
    processes, target   pool processes there are and there should be (a process on its way out still counts as there)
    busy, idle          pool processes with a task; those that could be given one, which one that still starts cannot
    active, reserved    tasks that run; messages that wait in here
    waiting             of those, the ones that the pool could begin at once
    unsafe              of those that run, the tasks already acknowledged: to interrupt one is to lose it
    oldest_started_at   CLOCK_MONOTONIC, null when none runs
    *_total             running totals since the start (tally); runtime_buckets counts each run once, in the first
                        bucket of 0.01 0.05 0.1 0.5 1 5 10 30 60 300 +Inf seconds that holds it
    ledger_overflow     messages that found no place in the ledger
    tasks               at most 20 that run, oldest first: {"id", "name", "started_at", "late", "pid"}
"""

from __future__ import annotations

import json
import mmap
import os
import struct
from collections.abc import Mapping
from typing import Any

NAME = "heartbeat"
SIZE_BYTES = 64 * 1024
MAGIC = b"SDH1"
HEADER = struct.Struct("<4sIII")
INTERVAL_SECONDS = 1.0


class Heartbeat:
    """Writes the file.  Raises OSError when it cannot be made."""

    def __init__(self, directory: str) -> None:
        self._map = open_map(os.path.join(directory, NAME), SIZE_BYTES)
        self._sequence = 0

    def write(self, facts: Mapping[str, Any]) -> None:
        """Replace what the file says; tasks are left out where the rest would not fit."""
        body = json.dumps(facts, separators=(",", ":")).encode("ascii")
        if len(body) > SIZE_BYTES - HEADER.size:
            body = json.dumps(dict(facts, tasks=[]), separators=(",", ":")).encode("ascii")
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF | 1
        self._map[: HEADER.size] = HEADER.pack(MAGIC, self._sequence, len(body), 0)
        self._map[HEADER.size : HEADER.size + len(body)] = body
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        self._map[: HEADER.size] = HEADER.pack(MAGIC, self._sequence, len(body), 0)


def open_map(path: str, size_bytes: int) -> mmap.mmap:
    """A new file of this size, for its user alone, mapped shared; what was there under the name is replaced."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, size_bytes)  # where a sparse file meets a full disk, writing to it is a SIGBUS
        return mmap.mmap(fd, size_bytes)
    finally:
        os.close(fd)
