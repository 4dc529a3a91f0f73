"""What gunicorn's workers are about, read from the file that our agent in them writes.

The file belongs to the pool's user, so it is data: opened without following a link and without waiting, read only when
it is regular and of the size that we know, and every word of it checked.  A slot counts for a worker that lives, which
the caller knows better; its totals count whoever holds it.  A read costs some 20 us and disturbs nobody.
"""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass

from supervisor_d.agents import supervisor_d_gunicorn_scoreboard as layout
from supervisor_d.core.requests import Requests, WorkerFacts

_WORD_MAX = 2**63
_SLOT = struct.Struct(f"{layout.WORDS}Q")


@dataclass(frozen=True, slots=True)
class Board:
    """One reading: every worker that holds a slot, and what all that ever held one have counted."""

    workers: tuple[WorkerFacts, ...]
    totals: Requests


def open_board(private_dir: str) -> int | None:
    """A descriptor of a master's scoreboard, which lives longer than its directory; None where there is none."""
    try:
        return os.open(f"{private_dir}/{layout.NAME}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None


def read_board(private_dir: str) -> Board | None:
    """The scoreboard of a master; None where there is none, or one that we do not understand."""
    fd = open_board(private_dir)
    if fd is None:
        return None
    try:
        return read_open_board(fd)
    finally:
        os.close(fd)


def read_open_board(fd: int) -> Board | None:
    """What stands in an open scoreboard; None in one that we do not understand."""
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_size != layout.SIZE_BYTES:
            return None
        header = _words(os.pread(fd, _SLOT.size, 0))
        if header is None or header[:2] != (layout.MAGIC, layout.VERSION) or header[2] > layout.SLOTS:
            return None
        body = os.pread(fd, header[2] * _SLOT.size, _SLOT.size)
    except OSError:
        return None
    return _board([words for words in map(_words, _pieces(body)) if words is not None])


def _pieces(body: bytes) -> list[bytes]:
    return [body[start : start + _SLOT.size] for start in range(0, len(body), _SLOT.size)]


def _words(piece: bytes) -> tuple[int, ...] | None:
    """The words of a slot; None for a torn or impossible one."""
    if len(piece) != _SLOT.size:
        return None
    words = _SLOT.unpack(piece)
    return words if max(words) < _WORD_MAX else None


def _board(slots: list[tuple[int, ...]]) -> Board:
    workers = tuple(_worker(words) for words in slots if words[layout.STATE] != layout.FREE)
    totals = Requests()
    for words in slots:
        totals += _requests(words)
    return Board(workers, totals)


def _worker(words: tuple[int, ...]) -> WorkerFacts:
    return WorkerFacts(
        pid=words[layout.PID],
        age=words[layout.AGE],
        ready=words[layout.STATE] == layout.READY,
        began_at=words[layout.TAKEN_AT] / 1e9,
        in_flight=words[layout.IN_FLIGHT],
        oldest_began_at=words[layout.OLDEST] / 1e9 if words[layout.IN_FLIGHT] and words[layout.OLDEST] else None,
    )


def _requests(words: tuple[int, ...]) -> Requests:
    return Requests(
        by_class=words[layout.REQUESTS : layout.DURATION_SUM],
        seconds=words[layout.DURATION_SUM] / 1e9,
        durations=words[layout.DURATIONS : layout.DURATIONS + len(layout.BOUNDS_SECONDS) + 1],
    )
