"""What a shim holds of a dead worker's connections: nothing, not yet, or what came last."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor_d.core.spec import Launch
from supervisor_d.runtime import lent, recovery
from supervisor_d.runtime.records import Record, Records, make_spec
from supervisor_d.shim import wire

pytestmark = pytest.mark.real

ID = "tasks.0@g1.1"


@pytest.fixture
def record(tmp_path: Path) -> Record:
    records = Records(tmp_path)
    records.prepare()
    record = records.of(ID)
    launch = Launch(("/bin/true",), {}, "/", log_name="tasks.0", agent=True)
    return records.create(make_spec(record, launch, "{}", None, 0, tmp_path, ""))


@pytest.fixture
def shim(record: Record) -> Iterator[socket.socket]:
    """Where a shim would listen."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(record.path / wire.SOCKET))
        listener.listen()
        listener.settimeout(10)
        yield listener


def gives(shim: socket.socket, descriptors: list[int], text: bytes) -> threading.Thread:
    """Answer one question, beside the test."""

    def answer() -> None:
        connection, _ = shim.accept()
        with connection:
            assert connection.recv(100) == wire.encode({"ask": "lent"})
            socket.send_fds(connection, [text], descriptors)

    thread = threading.Thread(target=answer)
    thread.start()
    return thread


def test_a_dead_shim_took_it_along(record: Record, shim: socket.socket) -> None:
    shim.close()
    assert lent.unread(record) == []
    (record.path / wire.SOCKET).unlink()
    assert lent.unread(record) == []


def test_what_came_last_is_given_out(record: Record, shim: socket.socket) -> None:
    broker, worker = socket.socketpair()
    silent, other = socket.socketpair()
    with broker, worker, silent, other:
        broker.send(b"popped")
        for end in (broker, silent):
            end.shutdown(socket.SHUT_WR)
        answering = gives(shim, [worker.fileno(), other.fileno()], wire.encode({"event": "lent", "count": 2}))
        (unread,) = lent.unread(record)
        answering.join()
        with unread:
            assert unread.recv(100) == b"popped"


@pytest.mark.parametrize("answer", [b"", b"nonsense\n"])
def test_one_that_answers_no_sense_is_asked_again(record: Record, shim: socket.socket, answer: bytes) -> None:
    answering = gives(shim, [], answer)
    with pytest.raises(lent.NotYetError, match="does not answer"):
        lent.unread(record)
    answering.join()


def test_one_that_is_silent_is_asked_again(
    record: Record, shim: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "ANSWER_SECONDS", 0.05)
    assert shim.fileno() >= 0
    with pytest.raises(lent.NotYetError, match="does not answer"):
        lent.unread(record)


def test_a_broker_that_has_not_closed_its_side_is_asked_again(
    record: Record, shim: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lent, "END_SECONDS", 0.05)
    broker, worker = socket.socketpair()
    with broker, worker:
        answering = gives(shim, [worker.fileno()], wire.encode({"event": "lent", "count": 1}))
        with pytest.raises(lent.NotYetError, match="has not closed"):
            lent.unread(record)
        answering.join()
