"""What became of every task, told by records that nobody of those under test keeps.

Each task notes that it started and finished in a Redis of its own that is never restarted; the sender knows what the
broker has confirmed; and the broker's keys are read here, as kombu writes them (kombu/transport/redis.py): a list for
each queue and priority, and the hash `unacked` of what is delivered and not acknowledged.

    lost      confirmed, never finished, and in no key of the broker
    doubled   finished more than once
    again     started more than once
    wait      from the sending to the first start

The daemon is asked nothing.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

from tests.lossless.task_load import Told
from tests.support import net
from tests.support.daemon import ROOT
from tests.support.waiting import wait_for

SERVER = ROOT / "sample_app" / "bin" / "redis_server.py"
SEPARATOR, STEPS = "\x06\x16", ("3", "6", "9")
"""Between the name of a queue and a priority; the priorities that are kept apart."""
NOTES = "notes"


@dataclass(frozen=True, slots=True)
class Note:
    """One line of a task: what it did, which process it was in, and when by CLOCK_MONOTONIC."""

    word: str
    task: str
    pid: int
    at: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of what was sent."""

    sent: int
    finished: int
    lost: list[str] = field(default_factory=list)
    stranded: list[str] = field(default_factory=list)
    """Not finished, and delivered to somebody who has not acknowledged it."""
    waiting: list[str] = field(default_factory=list)
    """Not finished, and in its queue."""
    doubled: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)
    slowest_wait_seconds: float = 0.0
    median_wait_seconds: float = 0.0

    def in_numbers(self) -> dict[str, int]:
        """What goes into a table."""
        return {
            "tasks": self.sent,
            "lost": len(self.lost),
            "stranded": len(self.stranded),
            "doubled": len(self.doubled),
            "begun_again": len(self.again),
            "longest_wait_ms": round(self.slowest_wait_seconds * 1000),
            "median_wait_ms": round(self.median_wait_seconds * 1000),
        }


@dataclass(frozen=True, slots=True)
class Held:
    """The ids that a broker holds."""

    queued: Counter[str]
    unacked: Counter[str]


class Broker:
    """A look into the keys of a broker."""

    def __init__(self, port: int, queues: tuple[str, ...] = ("celery",)) -> None:
        self._redis = redis.Redis(port=port, socket_timeout=5.0)
        self._queues = [key for queue in queues for key in (queue, *(f"{queue}{SEPARATOR}{step}" for step in STEPS))]

    def held(self) -> Held:
        """Every message in it, at one instant."""
        pipeline = self._redis.pipeline(transaction=True)
        for key in self._queues:
            pipeline.lrange(key, 0, -1)
        pipeline.hvals("unacked")
        *queues, unacked = pipeline.execute()
        return Held(
            Counter(_id_of(json.loads(message)) for queue in queues for message in queue),
            Counter(_id_of(json.loads(entry)[0]) for entry in unacked),
        )

    def lengths(self) -> tuple[int, int]:
        """How many messages are queued, and how many delivered and not acknowledged."""
        pipeline = self._redis.pipeline(transaction=True)
        for key in self._queues:
            pipeline.llen(key)
        pipeline.hlen("unacked")
        *queues, unacked = pipeline.execute()
        return sum(queues), int(unacked)

    def clear(self) -> None:
        """Throw every message of the queues away."""
        self._redis.delete(*self._queues)


def _id_of(message: Mapping[str, Any]) -> str:
    return str(message["headers"]["id"])


class Records:
    """The second Redis, which only the tasks write to."""

    def __init__(self, directory: Path) -> None:
        (self.port,) = net.free_ports(1)
        self._argv = [sys.executable, str(SERVER), "--port", str(self.port), "--dir", str(directory)]

    def __enter__(self) -> Self:
        null = subprocess.DEVNULL
        self._server = subprocess.Popen(self._argv, stdin=null, stdout=null, stderr=null)
        self.redis = redis.Redis(port=self.port, decode_responses=True)
        wait_for(self._answers, 20, "the Redis of the records")
        return self

    def _answers(self) -> bool:
        try:
            return bool(self.redis.ping())
        except redis.RedisError:
            return False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.redis.close()
        self._server.kill()
        self._server.wait()

    def length(self) -> int:
        """How many notes there are."""
        return int(self.redis.llen(NOTES))

    def notes(self, since: int = 0) -> list[Note]:
        """All notes, in their order, but for the first `since`."""
        found = [str(line).split() for line in self.redis.lrange(NOTES, since, -1)]
        return [Note(word, task, int(pid), float(at)) for word, task, pid, at in found]

    def count(self, word: str) -> int:
        """How many tasks have noted the word at least once."""
        return len({note.task for note in self.notes() if note.word == word})

    def wait(self, word: str, count: int, seconds: float) -> None:
        """Wait until so many tasks have noted it."""
        wait_for(lambda: self.count(word) >= count, seconds, f"{count} tasks to be {word}")

    def wait_length(self, length: int, seconds: float) -> None:
        """Wait until there are so many notes: cheaper than to read them, where there are thousands."""
        wait_for(lambda: self.length() >= length, seconds, f"{length} notes")


def judge(told: Told, notes: list[Note], held: Held) -> Verdict:
    """The verdict on what the broker has confirmed."""
    started, finished = Counter[str](), Counter[str]()
    first: dict[str, float] = {}
    for note in notes:
        (started if note.word == "started" else finished)[note.task] += 1
        first.setdefault(note.task, note.at)
    open_ = [task for task in told.sent if not finished[task]]
    waits = [first[task] - at for task, at in told.sent.items() if task in first] or [0.0]
    return Verdict(
        sent=len(told.sent),
        finished=sum(finished[task] > 0 for task in told.sent),
        lost=[task for task in open_ if not held.queued[task] and not held.unacked[task]],
        stranded=[task for task in open_ if held.unacked[task] and not held.queued[task]],
        waiting=[task for task in open_ if held.queued[task]],
        doubled=[task for task in told.sent if finished[task] > 1],
        again=[task for task in told.sent if started[task] > 1],
        slowest_wait_seconds=max(waits),
        median_wait_seconds=statistics.median(waits),
    )
