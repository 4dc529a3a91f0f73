"""The scoreboard as the daemon reads it: data of a stranger, believed as far as it can be."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from supervisor_d.agents import supervisor_d_gunicorn_scoreboard as layout
from supervisor_d.core.requests import BOUNDS_SECONDS, CLASSES, Requests
from supervisor_d.runtime.drivers.gunicorn_scoreboard import read_board


@pytest.fixture
def made(tmp_path: Path) -> Any:
    return layout.Scoreboard(str(tmp_path))


def path(tmp_path: Path) -> Path:
    return tmp_path / layout.NAME


def test_agent_and_core_mean_the_same() -> None:
    assert layout.BOUNDS_SECONDS == BOUNDS_SECONDS
    assert len(CLASSES) == layout.CLASSES
    assert layout.DURATIONS + len(BOUNDS_SECONDS) + 1 <= layout.WORDS


def test_slots_are_taken_lowest_first_and_totals_stay(tmp_path: Path, made: Any) -> None:
    assert made.take(set()) == 0
    assert made.take({0, -1}) == 1
    desk = made.desk(1)
    desk.taken(4711, 7)
    desk.began(1)
    desk.began(2)
    desk.ended(1, 2)
    desk.ended(1, 2)
    found = read_board(str(tmp_path))
    assert found is not None
    (worker,) = found.workers
    assert (worker.pid, worker.age, worker.ready, worker.in_flight) == (4711, 7, False, 1)
    assert worker.oldest_began_at is not None
    assert found.totals.total == 1
    made.release(1)
    found = read_board(str(tmp_path))
    assert found is not None
    assert found.workers == ()
    assert made.take({0}) == 1
    desk = made.desk(1)
    desk.taken(4712, 8)
    desk.ready()
    desk.began(9)
    desk.ended(9, 5)
    found = read_board(str(tmp_path))
    assert found is not None
    assert [(w.pid, w.ready, w.in_flight) for w in found.workers] == [(4712, True, 0)]
    assert found.totals.by_class == (0, 0, 1, 0, 0, 1)


def test_every_slot_taken_is_no_slot(made: Any) -> None:
    assert made.take(set(range(layout.SLOTS))) == -1
    assert made.take(set(range(layout.SLOTS - 1))) == layout.SLOTS - 1


def test_another_master_of_the_same_directory_cuts_nothing_short(tmp_path: Path, made: Any) -> None:
    desk = made.desk(made.take(set()))
    layout.Scoreboard(str(tmp_path))
    desk.taken(1, 1)  # a write behind the end of the file would be the end of us: SIGBUS
    found = read_board(str(tmp_path))
    assert found is not None
    assert found.workers == ()


def test_what_is_no_scoreboard(tmp_path: Path, made: Any) -> None:
    whole = path(tmp_path).read_bytes()
    assert read_board(str(tmp_path)) is not None
    assert read_board(str(tmp_path / "nowhere")) is None
    for spoilt in (b"", whole[:-1], whole + b"x", b"x" + whole[1:], bytes(len(whole))):
        path(tmp_path).write_bytes(spoilt)
        assert read_board(str(tmp_path)) is None
    too_many = struct.pack("3Q", layout.MAGIC, layout.VERSION, layout.SLOTS + 1)
    path(tmp_path).write_bytes(too_many + whole[24:])
    assert read_board(str(tmp_path)) is None
    path(tmp_path).write_bytes(struct.pack("3Q", layout.MAGIC, 2, 1) + whole[24:])
    assert read_board(str(tmp_path)) is None


def test_neither_links_nor_pipes_are_followed(tmp_path: Path, made: Any) -> None:
    moved = path(tmp_path).rename(tmp_path / "elsewhere")
    path(tmp_path).symlink_to(moved)
    assert read_board(str(tmp_path)) is None
    path(tmp_path).unlink()
    os.mkfifo(path(tmp_path))
    assert read_board(str(tmp_path)) is None
    path(tmp_path).unlink()
    path(tmp_path).mkdir()
    assert read_board(str(tmp_path)) is None


def test_noise_is_read_without_harm(tmp_path: Path, made: Any) -> None:
    rng = random.Random(7)  # seeded
    head = struct.pack("3Q", layout.MAGIC, layout.VERSION, layout.SLOTS)
    for _ in range(20):
        path(tmp_path).write_bytes(head + rng.randbytes(layout.SIZE_BYTES - len(head)))
        found = read_board(str(tmp_path))
        assert found is None or isinstance(found.totals, Requests)


def test_no_room_is_said_when_it_is_made(tmp_path: Path) -> None:
    code = (
        "import resource, sys\n"
        "sys.path.insert(0, sys.argv[2])\n"
        "import supervisor_d_gunicorn_scoreboard as layout\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n    layout.Scoreboard(sys.argv[1])\nexcept OSError:\n    sys.exit(5)\n"
    )
    agents = str(Path(layout.__file__).parent)
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path), agents], check=False, timeout=20).returncode == 5
