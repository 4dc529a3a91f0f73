"""What a process writes as its heartbeat is data: right, or nothing."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from supervisor_d.core.process import TasksLeft
from supervisor_d.runtime.drivers import heartbeat

PID = 4711
TASK = {"id": "a1", "name": "shop.tasks.export", "started_at": 10.5, "late": True, "pid": 4712}


def facts(**others: Any) -> dict[str, Any]:
    """As an agent writes them, in short."""
    return {"at": 50.0, "pid": PID, "active": 1, "unsafe": 1, "oldest_started_at": 10.5, "tasks": [TASK], **others}


def write(directory: Path, body: bytes | dict[str, Any], *, sequence: int = 2, magic: bytes = b"SDH1") -> None:
    """A heartbeat file."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    header = struct.pack("<4sIII", magic, sequence, len(data), 0)
    (directory / heartbeat.NAME).write_bytes((header + data).ljust(heartbeat.SIZE_MAX_BYTES, b"\0"))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write(tmp_path, facts(take_at=None, connected=True, something_new={"a": [1]}))
    beat = heartbeat.read(str(tmp_path), PID)
    assert beat is not None
    assert (beat.at, beat.connected, beat.take_at, beat.take_waits) == (50.0, True, None, 1.0)
    assert beat.tasks_left() == TasksLeft(1, 0, 1, 10.5, "shop.tasks.export")


@pytest.mark.parametrize(
    "wrong",
    [
        facts(pid=PID + 1),
        facts(at="now"),
        facts(at=-1.0),
        facts(active=-1),
        facts(take_waits=-1.0),
        facts(take_waits=3601),
        facts(active=1.5),
        facts(active=True),
        facts(runtime_buckets=[1, 2]),
        facts(tasks=[TASK] * (heartbeat.TASKS_MAX + 1)),
        facts(tasks=[{**TASK, "name": None}]),
        {"pid": PID},
        b"",
        b"[]",
        b"\xff\xfe",
        b"[" * 50_000,
        b'{"at": NaN, "pid": 4711}',
    ],
    ids=lambda wrong: str(wrong)[:40],
)
def test_what_is_wrong_is_no_heartbeat(tmp_path: Path, wrong: Any) -> None:
    write(tmp_path, wrong)
    assert heartbeat.read(str(tmp_path), PID) is None


@pytest.mark.parametrize(("sequence", "magic"), [(3, b"SDH1"), (2, b"SDH2")])
def test_a_torn_or_foreign_one_is_none(tmp_path: Path, sequence: int, magic: bytes) -> None:
    write(tmp_path, facts(), sequence=sequence, magic=magic)
    assert heartbeat.read(str(tmp_path), PID) is None


def test_a_length_beyond_the_file_is_none(tmp_path: Path) -> None:
    (tmp_path / heartbeat.NAME).write_bytes(struct.pack("<4sIII", b"SDH1", 2, 2**31, 0))
    assert heartbeat.read(str(tmp_path), PID) is None
    (tmp_path / heartbeat.NAME).write_bytes(b"SDH1")
    assert heartbeat.read(str(tmp_path), PID) is None


def test_nothing_but_a_regular_file_is_opened(tmp_path: Path) -> None:
    assert heartbeat.read(str(tmp_path), PID) is None
    os.mkfifo(tmp_path / heartbeat.NAME)
    assert heartbeat.read(str(tmp_path), PID) is None
    (tmp_path / heartbeat.NAME).unlink()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    write(elsewhere, facts())
    (tmp_path / heartbeat.NAME).symlink_to(elsewhere / heartbeat.NAME)
    assert heartbeat.read(str(tmp_path), PID) is None


def test_a_name_is_fit_for_one_line(tmp_path: Path) -> None:
    write(tmp_path, facts(tasks=[{**TASK, "name": "a\n\x1b[31mb" + "x" * 5000}]))
    beat = heartbeat.read(str(tmp_path), PID)
    assert beat is not None
    name = beat.tasks_left().oldest_name
    assert name.startswith("a??[31mbx")
    assert len(name) == heartbeat.NAME_MAX
