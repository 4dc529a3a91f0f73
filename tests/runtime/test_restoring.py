"""The helper that gives back what an ended worker held: run from the record, bounded, and what it says is data."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import pytest

from supervisor_d.core.events import Event, Restored, RestoreFailed
from supervisor_d.core.spec import Launch
from supervisor_d.runtime import lent, restoring
from supervisor_d.runtime.contexts import AGENTS_DIR
from supervisor_d.runtime.records import Records, make_spec
from supervisor_d.runtime.restoring import Report, Restorer, holds_nothing
from supervisor_d.shim import wire
from tests.support.waiting import eventually

ID = "tasks.0@g1.1"
Put = Callable[..., Path]


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Put a process on record whose "Python" is a shell script."""
    records = Records(tmp_path)
    records.prepare()

    def put(script: str, *, agent: bool = True, ledger: bool = True, process_id: str = ID) -> Path:
        python = tmp_path / "python"
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
        record = records.of(process_id)
        env = {"PATH": os.environ["PATH"], "BROKER": "here"}
        launch = Launch((str(python), "-m", "celery"), env, str(tmp_path), log_name="tasks.0", agent=agent)
        records.create(make_spec(record, launch, "{}", None, 0, tmp_path, ""))
        if ledger:
            (record.private_dir / "ledger").touch()
        return record.private_dir

    return put


async def restored(tmp_path: Path, process_id: str = ID) -> Event:
    events: list[Event] = []
    restorer = Restorer(events.append, tmp_path)
    restorer.restore(process_id)
    await eventually(lambda: events, what="the helper's end")
    restorer.close()
    return events[0]


async def test_what_it_did_is_told(tmp_path: Path, put: Put) -> None:
    private_dir = put('echo "$BROKER $PWD $*" > asked; echo \'{"held": 3, "restored": 2, "acked": 1, "new": []}\'')
    told = await restored(tmp_path)
    assert told == Restored(ID, "3 messages held: 2 back in their queues, 1 acknowledged", 2)
    asked = (tmp_path / "asked").read_text().strip()
    assert asked == f"here {tmp_path} -m supervisor_d_celery_agent --restore {private_dir}"


@pytest.mark.parametrize("how", [{"agent": False}, {"ledger": False}])
async def test_without_a_ledger_nothing_was_held(tmp_path: Path, put: Put, how: dict[str, bool]) -> None:
    put("touch ran", **how)
    assert await restored(tmp_path) == Restored(ID, "")
    assert not (tmp_path / "ran").exists()


def test_an_empty_ledger_is_seen_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(AGENTS_DIR)
    theirs = import_module("supervisor_d_celery.ledger")
    assert (restoring.LEDGER, restoring.LEDGER_MAGIC) == (theirs.NAME, theirs.MAGIC)
    assert (restoring.LEDGER_BYTES, restoring.SLOTS_AT) == (theirs.SIZE_BYTES, theirs.SLOTS_AT)
    assert (theirs.SLOTS, theirs.SLOT.size) == (restoring.SLOTS, restoring.SLOT_BYTES)
    path = tmp_path / "ledger"
    assert holds_nothing(path)
    path.touch()
    assert not holds_nothing(path)
    data = bytearray(restoring.LEDGER_BYTES)
    path.write_bytes(data)
    assert not holds_nothing(path), "no ledger of the known kind"
    data[:4] = restoring.LEDGER_MAGIC
    path.write_bytes(data)
    assert holds_nothing(path)
    for slot in (0, restoring.SLOTS - 1):
        data[restoring.SLOTS_AT + slot * restoring.SLOT_BYTES] = 2
        path.write_bytes(data)
        assert not holds_nothing(path)
        data[restoring.SLOTS_AT + slot * restoring.SLOT_BYTES] = 0
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert not holds_nothing(path)


@pytest.mark.parametrize(
    ("script", "reason", "away"),
    [
        ("echo trouble >&2; echo 'Connection refused' >&2; exit 75", "Connection refused", True),
        ("exit 75", "the broker cannot be reached", True),
        ("echo 'No module named x' >&2; exit 1", "No module named x", False),
        ("exit 3", "the helper ended with 3", False),
        ("kill -9 $$", "the helper ended with -9", False),
        ("printf 'a\\033b' >&2; exit 1", "a?b", False),
        ("head -c 100000 /dev/zero | tr '\\0' x >&2; echo >&2; echo last >&2; exit 1", "last", False),
        ("echo nonsense", "the helper did not say what it did", False),
        ("echo '{\"held\": -1}'", "the helper did not say what it did", False),
        ("head -c 100000 /dev/zero", "the helper did not say what it did", False),
    ],
)
async def test_failures(tmp_path: Path, put: Put, script: str, reason: str, away: bool) -> None:
    put(script)
    assert await restored(tmp_path) == RestoreFailed(ID, reason, away)


async def test_one_that_does_not_end_is_killed(tmp_path: Path, put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restoring, "HELPER_SECONDS", 0.3)
    put("echo $$ > pid; sleep 1000")
    assert await restored(tmp_path) == RestoreFailed(ID, "the helper took more than 0.3 s", away=False)
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()


async def test_what_cannot_be_run_or_read_is_a_failure(tmp_path: Path, put: Put) -> None:
    put("exit 0")
    (tmp_path / "python").unlink()
    failed = RestoreFailed(ID, "cannot run the helper: No such file or directory", away=False)
    assert await restored(tmp_path) == failed
    assert await restored(tmp_path, "other.0@g1.9") == RestoreFailed("other.0@g1.9", failed.reason, away=False)


@pytest.fixture
def silent_shim(tmp_path: Path, put: Put) -> Iterator[None]:
    """A shim that does not say what it holds, of a process whose helper gives two messages back, once."""
    put('test -e ran && echo "{}" || echo \'{"held": 2, "restored": 2}\'; touch ran')
    with socket.socket(socket.AF_UNIX) as shim:
        shim.bind(str(Records(tmp_path).of(ID).path / wire.SOCKET))
        shim.listen()
        yield


NOT_YET = "its shim, which holds the worker's connection, does not answer"


@pytest.mark.usefixtures("silent_shim")
async def test_a_ledger_does_not_wait_for_what_the_broker_said_last(tmp_path: Path) -> None:
    told = await restored(tmp_path)
    reason = f"{NOT_YET} (2 messages held: 2 back in their queues)"
    assert told == RestoreFailed(ID, reason, away=True, restored=2)
    assert (tmp_path / "ran").exists()
    assert await restored(tmp_path) == RestoreFailed(ID, NOT_YET, away=True), "it is asked for again"


@pytest.mark.usefixtures("silent_shim")
async def test_a_helper_that_fails_is_told_first(tmp_path: Path) -> None:
    (tmp_path / "python").write_text("#!/bin/sh\nexit 3\n")
    assert await restored(tmp_path) == RestoreFailed(ID, "the helper ended with 3", away=False)


@pytest.mark.usefixtures("silent_shim")
async def test_what_is_never_told_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restoring, "LOOK_SECONDS", 0.0)
    (Records(tmp_path).of(ID).private_dir / "ledger").unlink()
    assert await restored(tmp_path) == RestoreFailed(ID, NOT_YET, away=False)
    assert not (tmp_path / "ran").exists(), "without a ledger there is nothing for a helper"


async def test_what_is_told_at_last_is_done(tmp_path: Path, put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    put('echo \'{"held": 1, "restored": 1}\'', ledger=False)
    broker, worker = socket.socketpair()
    answers: list[Callable[[], list[socket.socket]]] = [not_yet, lambda: [worker]]
    monkeypatch.setattr(lent, "unread", lambda _: answers.pop(0)())
    events: list[Event] = []
    restorer = Restorer(events.append, tmp_path)
    with broker, worker:
        for count in (1, 2):
            restorer.restore(ID)
            await eventually(lambda count=count: len(events) == count, what="an answer")  # type: ignore[misc]
    assert events == [
        RestoreFailed(ID, "why", away=True),
        Restored(ID, "1 message held: 1 back in their queues", 1),
    ]


def not_yet() -> list[socket.socket]:
    """A connection that does not tell yet what it holds."""
    raise lent.NotYetError("why")


async def test_a_few_at_a_time(tmp_path: Path, put: Put) -> None:
    ids = [f"tasks.{slot}@g1.{slot + 1}" for slot in range(12)]
    for process_id in ids:
        put("echo + >> count; sleep 0.05; grep -c . count >> most; echo '{}'", process_id=process_id)
    events: list[Event] = []
    restorer = Restorer(events.append, tmp_path)
    for process_id in ids:
        restorer.restore(process_id)
    await eventually((tmp_path / "count").exists, what="the first helper")
    assert len((tmp_path / "count").read_text().split()) <= restoring.AT_ONCE_MAX
    await eventually(lambda: len(events) == len(ids), 20, "all helpers")
    assert all(event == Restored(event.id, "") for event in events if isinstance(event, Restored))
    restorer.close()


async def test_closing_ends_them(tmp_path: Path, put: Put) -> None:
    put("echo $$ > pid; sleep 1000")
    events: list[Event] = []
    restorer = Restorer(events.append, tmp_path)
    restorer.restore(ID)
    await eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip(), what="the helper")
    restorer.close()
    await eventually(lambda: not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists(), what="its end")
    assert events == []


@pytest.mark.parametrize(
    ("report", "text"),
    [
        (Report(), ""),
        (Report(held=1, restored=1), "1 message held: 1 back in their queues"),
        (Report(held=2, skipped=1, gone=1), "2 messages held: 1 in other hands by now, 1 no longer at the broker"),
        (Report(held=2), "2 messages held: nothing was to be done"),
    ],
)
def test_what_was_done_in_words(report: Report, text: str) -> None:
    assert report.summary() == text
