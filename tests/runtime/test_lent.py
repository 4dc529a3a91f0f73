"""What a shim holds of a dead worker's connections: nothing, not yet, or what came last."""

from __future__ import annotations

import random
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

import pytest

from supervisor_d.core.spec import Launch
from supervisor_d.runtime import lent, recovery
from supervisor_d.runtime.records import Record, Records, make_spec
from supervisor_d.shim import wire
from tests.support.waiting import wait_for

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


class Broker:
    """Answers a worker once, over TCP, as Redis does: as much as fits, the rest when there is room for it; and forgets
    the rest when it sees an end of file.
    """

    def __init__(self, answer: bytes) -> None:
        self._rest = memoryview(answer)
        listener = socket.create_server(("127.0.0.1", 0))
        with listener:
            self.worker = socket.create_connection(listener.getsockname())
            self._connection, _ = listener.accept()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with self._connection as connection:
            connection.setblocking(False)
            while True:
                readable, writable, _ = select.select([connection], [connection] if self._rest else [], [], 10)
                if readable or not writable:
                    return
                self._rest = self._rest[connection.send(self._rest) :]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.worker.close()
        self._thread.join()


def may_have_all_room() -> bool:
    """Whether we have CAP_NET_ADMIN."""
    with socket.socket() as connection, suppress(PermissionError):
        connection.setsockopt(socket.SOL_SOCKET, lent.SO_RCVBUFFORCE, lent.ROOM_BYTES)
        return True
    return False


NO_OPTION = 0x7FFF
BUFFER_BYTES = 60_000
"""At least."""
privileged = pytest.mark.skipif(not may_have_all_room(), reason="only CAP_NET_ADMIN gives so much room")


@pytest.mark.parametrize(
    ("size", "force"),
    [
        (1000, lent.SO_RCVBUFFORCE),
        (200_000, lent.SO_RCVBUFFORCE),
        pytest.param(30_000_000, lent.SO_RCVBUFFORCE, marks=privileged),
        pytest.param(1_000_000, NO_OPTION, id="unprivileged"),
    ],
)
def test_an_answer_that_the_buffer_had_no_room_for_comes_whole(
    record: Record, shim: socket.socket, monkeypatch: pytest.MonkeyPatch, size: int, force: int
) -> None:
    monkeypatch.setattr(lent, "SO_RCVBUFFORCE", force)
    answer = random.Random(size).randbytes(size)
    with Broker(answer) as broker:
        wait_for(lambda: lent.waiting_bytes(broker.worker) >= min(size, BUFFER_BYTES), what="the answer's beginning")
        answering = gives(shim, [broker.worker.fileno()], wire.encode({"event": "lent", "count": 1}))
        (unread,) = lent.unread(record)
        answering.join()
        with unread:
            for _ in range(2):
                assert unread.recv(2 * size, socket.MSG_PEEK) == answer, "nothing is taken"


def test_one_that_goes_on_talking_is_asked_again(
    record: Record, shim: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lent, "COMING_SECONDS", 0.0)
    with Broker(b"popped") as broker:
        wait_for(lambda: lent.waiting_bytes(broker.worker), what="the answer")
        answering = gives(shim, [broker.worker.fileno()], wire.encode({"event": "lent", "count": 1}))
        with pytest.raises(lent.NotYetError, match="still coming"):
            lent.unread(record)
        answering.join()
