"""The checkers themselves: what they are there to find, they find; and where nothing is wrong, they find nothing."""

from __future__ import annotations

import json
import re
import socketserver
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from tests.lossless.http_load import HttpLoad, body_of
from tests.lossless.judge import NOTES, Broker, Held, Note, Records, Verdict, judge
from tests.lossless.task_load import TaskLoad, Told
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.real]

EVERY = 25
"""One of so many requests is spoilt."""


class _Handler(socketserver.BaseRequestHandler):
    """One request on one connection, answered right, or spoilt."""

    server: _Server

    def handle(self) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            received = self.request.recv(4096)
            if not received:
                return
            head += received
        found = re.search(rb"token=([^&]*)&", head)
        assert found is not None
        threading.Event().wait(max(0.0, self.server.still_until - time.monotonic()))
        spoilt = next(self.server.counter) % EVERY == 0
        self.request.sendall(answer(found[1].decode(), self.server.fault if spoilt else ""))


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 512

    def __init__(self, fault: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.port = int(self.server_address[1])
        self.fault = fault
        self.still_until = 0.0
        self.counter = iter(range(1, 1_000_000))


def answer(token: str, fault: str) -> bytes:
    """What goes over the wire."""
    body = body_of("another" if fault == "wrong" else token)
    status = "500 Internal Server Error" if fault == "status" else "200 OK"
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\nX-Pid: 7\r\n\r\n".encode()
    return {"dropped": b"", "head": head[:30], "truncated": head + body[:-1]}.get(fault, head + body)


@contextmanager
def serving(fault: str) -> Iterator[_Server]:
    with _Server(fault) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("dropped", "ended after 0 bytes of the head"),
        ("head", "ended after 30 bytes of the head"),
        ("truncated", "ended after 2047 bytes of the body of 2048 bytes"),
        ("wrong", "a wrong body of 2048 bytes"),
        ("status", "500 Internal Server Error"),
    ],
)
def test_a_spoilt_answer_is_a_failure_of_its_kind(fault: str, told: str) -> None:
    with serving(fault) as server, HttpLoad(server.port, rate=400) as load:
        wait_for(lambda: load.done() >= 200, 30, "200 answers")
    assert load.told.failures == (load.told.done + load.told.failures) // EVERY
    assert [failed.kind for failed in load.told.failed if told not in failed.kind] == []


def test_right_answers_are_no_failures() -> None:
    with serving("") as server, HttpLoad(server.port, rate=400) as load:
        wait_for(lambda: load.done() >= 200, 30, "200 answers")
    assert load.told.failed == []
    assert load.told.pids == {"7": load.told.done}


def test_a_port_that_nobody_listens_on_fails_every_request() -> None:
    with serving("") as server:
        pass
    with HttpLoad(server.port, rate=400) as load:
        wait_for(lambda: load.counts()[1] >= 20, 30, "20 failures")
    assert load.told.done == 0
    assert {failed.kind for failed in load.told.failed} == {"refused"}


def test_arrivals_do_not_wait_for_answers() -> None:
    """The server stands still for a second: what arrives meanwhile is sent, and the slowest answer tells of it."""
    with serving("") as server, HttpLoad(server.port, rate=200) as load:
        wait_for(lambda: load.done() >= 50, 30, "the first answers")
        server.still_until = time.monotonic() + 1.0
        wait_for(lambda: load.done() >= 400, 30, "400 answers")
    assert load.told.failed == []
    assert load.told.slowest_ms > 900


# tasks

SENT = {"a": 1.0, "b": 2.0, "c": 3.0}


def _notes(*lines: str) -> list[Note]:
    return [Note(word, task, 1, float(at)) for word, task, at in (line.split() for line in lines)]


def _held(queued: str = "", unacked: str = "") -> Held:
    return Held(Counter(queued.split()), Counter(unacked.split()))


def test_the_verdict_on_tasks_that_all_ran_once() -> None:
    notes = _notes("started a 1.1", "finished a 2", "started b 2.5", "finished b 3", "started c 3.2", "finished c 4")
    verdict = judge(Told(sent=SENT), notes, _held())
    assert verdict.lost == verdict.doubled == verdict.again == verdict.stranded == verdict.waiting == []
    assert verdict.finished == verdict.sent == 3
    assert verdict.slowest_wait_seconds == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("held", "name"),
    [(_held(), "lost"), (_held(queued="c"), "waiting"), (_held(unacked="c"), "stranded")],
)
def test_a_task_that_never_finished_is_found_where_it_is(held: Held, name: str) -> None:
    notes = _notes("started a 1", "finished a 2", "started b 2", "finished b 3", "started c 3")
    verdict = judge(Told(sent=SENT), notes, held)
    found = {"lost": verdict.lost, "waiting": verdict.waiting, "stranded": verdict.stranded}
    assert found == {"lost": [], "waiting": [], "stranded": [], name: ["c"]}


def test_a_task_that_ran_twice_is_doubled_and_one_that_began_twice_began_again() -> None:
    notes = _notes("started a 1", "finished a 2", "started a 3", "finished a 4", "started b 2", "started b 3")
    verdict = judge(Told(sent=SENT), [*notes, *_notes("finished b 4", "started c 3", "finished c 4")], _held())
    assert verdict.doubled == ["a"]
    assert verdict.again == ["a", "b"]


def test_what_was_sent_is_seen_in_the_broker_and_missed_when_it_is_gone(tmp_path: Path) -> None:
    """Celery's own client sends, and what it wrote is read; a message moved to `unacked`, and one deleted."""
    with Records(tmp_path) as records:
        broker = Broker(records.port)
        with TaskLoad(records.port, rate=200, most=20) as load:
            wait_for(lambda: load.sent() == 20, 30, "20 messages")
        assert broker.held().queued == Counter(list(load.told.sent))
        assert judge(load.told, [], broker.held()).waiting == list(load.told.sent)
        first, second, *rest = load.told.sent
        _deliver(records.redis)
        records.redis.rpop("celery")
        records.redis.rpush(NOTES, *(f"{word} {task} 1 {time.monotonic()}" for task in rest for word in WORDS))
        verdict = judge(load.told, records.notes(), broker.held())
        assert (verdict.stranded, verdict.lost, verdict.finished) == ([first], [second], 18)


WORDS = ("started", "finished")


def _deliver(server: redis.Redis) -> None:
    """What kombu does with a message that it hands out."""
    message = json.loads(server.rpop("celery"))  # type: ignore[arg-type]
    server.hset("unacked", message["properties"]["delivery_tag"], json.dumps([message, "", "celery"]))


def test_an_unsure_sending_is_no_promise(tmp_path: Path) -> None:
    with Records(tmp_path) as records:
        with TaskLoad(records.port, rate=50) as load:
            wait_for(lambda: load.sent() >= 5, 30, "5 messages")
            records.redis.config_set("maxmemory", "1")
            wait_for(lambda: load.counts()[1] >= 3, 30, "refused messages")
        assert len(load.told.sent) >= 5
        assert set(load.told.unsure).isdisjoint(load.told.sent)
        assert Broker(records.port).held().queued == Counter(list(load.told.sent))
        assert isinstance(judge(load.told, [], _held()), Verdict)
