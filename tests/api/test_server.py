from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from supervisor_d.api import streams
from supervisor_d.api.client import Client, Exchange, RefusedError
from supervisor_d.api.guard import ConnectionLimits
from supervisor_d.api.routes import ROUTES
from supervisor_d.api.wire import MAX_BODY_BYTES, OperateRequest, Outcome
from supervisor_d.core.snapshot import Entry, Snapshot
from supervisor_d.errors import (
    ConfigError,
    PrepareError,
    Problem,
    UnavailableError,
    UnknownNameError,
)
from tests.support.fake_service import Served, entry, served
from tests.support.waiting import wait_for


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path) as running:
        yield running


def raw(server: Served, data: bytes, *, seconds: float = 10.0) -> bytes:
    """Everything that comes back for these bytes."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(seconds)
        connection.connect(str(server.path))
        connection.sendall(data)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
        return answer


def post(server: Served, route: str, body: bytes) -> tuple[int, dict[str, Any]]:
    head = f"POST {route} HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    answer = raw(server, head + body)
    top, _, rest = answer.partition(b"\r\n\r\n")
    return int(top.split()[1]), json.loads(rest)


def get(server: Served, target: str) -> tuple[int, bytes]:
    top, _, rest = raw(server, f"GET {target} HTTP/1.0\r\n\r\n".encode()).partition(b"\r\n\r\n")
    return int(top.split()[1]), rest


def test_status_is_the_snapshot(server: Served) -> None:
    assert msgspec.json.decode(server.client.get("/v1/status"), type=Snapshot) == server.service.picture


@pytest.mark.parametrize("name", ["scale", "start", "stop", "restart", "deploy", "rollback"])
def test_operations_reach_the_service_with_who_asked(server: Served, name: str) -> None:
    request = OperateRequest(("web",), 3 if name == "scale" else None, 1.5)
    told = msgspec.json.decode(server.client.post(f"/v1/{name}", request), type=Outcome)
    assert told == server.service.outcome
    ((asked, who, passed),) = server.service.asked
    assert (asked, passed) == (name, request)
    assert "(uid " in who
    assert ", pid " in who


def test_reload_diff_and_shutdown(server: Served) -> None:
    server.client.post("/v1/reload", OperateRequest(wait_seconds=2.5))
    server.client.post("/v1/shutdown", OperateRequest())
    diff = msgspec.json.decode(server.client.get("/v1/diff"), type=Outcome)
    assert [change.change for change in diff.changes] == ["roll", "keep"]
    assert [(name, request) for name, _, request in server.service.asked] == [("reload", 2.5), ("shutdown", None)]


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ConfigError((Problem("a.yaml", 3, 5, "pools.web", "bad"),)), 422, 78),
        (PrepareError("cannot bind", hint="free it"), 409, 73),
        (UnknownNameError("cannot find"), 404, 66),
    ],
)
def test_refusals_carry_words_and_exit_code(server: Served, error: Exception, status: int, code: int) -> None:
    server.service.refuses = error
    told_status, body = post(server, "/v1/reload", b"{}")
    assert (told_status, body["exit_code"]) == (status, code)
    with pytest.raises(RefusedError) as caught:
        server.client.post("/v1/reload", OperateRequest())
    assert caught.value.exit_code == code
    assert caught.value.message == getattr(error, "message", None)
    assert caught.value.problems == getattr(error, "problems", ())


def test_a_bug_is_told_as_one_and_leaves_the_server_alive(server: Served) -> None:
    server.service.refuses = ZeroDivisionError("secret")
    status, body = get(server, "/v1/status")
    assert status == 500
    assert b"secret" not in body
    assert json.loads(body)["exit_code"] == 70
    server.service.refuses = None
    assert get(server, "/v1/status")[0] == 200


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"pool": ["web"]}', "did you mean pools?"),
        (b'{"pools": "web"}', "Expected `array`"),
        (b'{"pools": [1]}', "Expected `str`"),
        (b'{"pools": [], "workers": "3"}', "Expected `int | null`"),
        (b'{"workers": 1.5}', "Expected `int | null`"),
        (b'{"wait_seconds": -1}', "cannot wait"),
        (b'{"wait_seconds": 1e9}', "cannot wait"),
        (b'{"wait_seconds": NaN}', "malformed"),
        (b'{"wait_seconds": "1"}', "Expected `float`"),
        (b"[]", "Expected `object`"),
        (b"null", "Expected `object`"),
        (b"{", "truncated"),
        (b"\xff\xfe", "malformed"),
        (b"[" * 60_000, "cannot read"),
        (b'{"__class__": 1}', "unknown key"),
        (b'{"workers": 3}', "belongs to scale alone"),
    ],
)
def test_bad_bodies_are_refused_with_a_reason(server: Served, body: bytes, told: str) -> None:
    status, answer = post(server, "/v1/stop", body)
    assert status == 400
    assert told.lower() in f"{answer['message']} {answer['hint']}".lower()
    assert answer["exit_code"] == 64
    assert server.service.asked == []


def test_what_belongs_to_one_operation_alone(server: Served) -> None:
    assert post(server, "/v1/scale", b"{}")[0] == 400
    assert post(server, "/v1/scale", b'{"pools": ["a", "b"], "workers": 1}')[0] == 400
    assert post(server, "/v1/reload", b'{"pools": ["a"]}')[0] == 400
    assert post(server, "/v1/reload", b'{"workers": 1}')[0] == 400
    assert server.service.asked == []


def test_a_body_over_the_limit_is_refused(server: Served) -> None:
    status, answer = post(server, "/v1/stop", b" " * (MAX_BODY_BYTES + 1))
    assert (status, server.service.asked) == (413, [])
    assert str(MAX_BODY_BYTES) in answer["message"]


@pytest.mark.parametrize(
    "target",
    [
        "/", "/v1", "/v1/", "/v1/nothing", "/v2/status", "/v1/__class__", "/v1/status/../stop", "/v1/a.b",
        "/v1/STATUS", "//v1/status", "/v1/status/",
    ],
)  # fmt: skip
def test_only_the_table_has_routes(server: Served, target: str) -> None:
    status, body = get(server, target)
    assert status == 404
    assert json.loads(body)["exit_code"] == 66


def test_every_route_has_one_method(server: Served) -> None:
    for route in ROUTES:
        other = "GET" if route.method == "POST" else "DELETE"
        answer = raw(server, f"{other} {route.path} HTTP/1.0\r\n\r\n".encode())
        assert answer.split()[1] == b"405", route
    assert server.service.asked == []


@pytest.mark.parametrize(
    "query",
    ["?x=1", "?lines=-1", "?lines=1e3", "?lines=99999", "?follow=2", "?after=x", "?lines=%D9%A3", "?pol=web"],
)
def test_bad_queries_are_refused(server: Served, query: str) -> None:
    status, body = get(server, f"/v1/events{query}")
    assert (status, json.loads(body)["exit_code"]) == (400, 64)


@pytest.mark.parametrize(
    "query", ["?since=x", "?since=-1", "?since=inf", "?since=nan", "?name=" + "&name=".join(["web"] * 101)]
)
def test_bad_log_queries_are_refused(server: Served, query: str) -> None:
    assert get(server, f"/v1/logs{query}")[0] == 400


@pytest.mark.parametrize("name", ["shop", "web.x", ".0", "../../etc/passwd", "web.0.log"])
def test_logs_of_nobody_are_refused(server: Served, name: str) -> None:
    with pytest.raises(RefusedError) as caught:
        server.client.get("/v1/logs", (("name", name),))
    assert caught.value.exit_code == 66


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.binary(max_size=300),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
            lambda inner: (
                st.lists(inner, max_size=4)
                | st.dictionaries(
                    st.sampled_from(["pools", "workers", "wait_seconds", "x", "__class__"]), inner, max_size=4
                )
            ),
            max_leaves=12,
        ).map(lambda value: json.dumps(value).encode()),
    )
)
def test_no_body_makes_a_bug(server: Served, body: bytes) -> None:
    status, answer = post(server, "/v1/restart", body)
    assert status in (200, 400)
    assert status == 200 or answer["exit_code"] == 64


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_no_bytes_stop_the_server(server: Served, data: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(server.path))
        connection.settimeout(10)
        try:
            connection.sendall(data + b"\r\n\r\n")
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass
        except (ConnectionResetError, BrokenPipeError):
            pass
    assert server.client.get("/v1/status")


def test_an_operation_goes_on_when_its_asker_leaves(server: Served) -> None:
    gate = server.run(asyncio.Event)
    server.service.gate = gate
    exchange = server.client.begin_post("/v1/stop", OperateRequest(("web",), None, 60.0))
    wait_for(lambda: server.service.asked, what="the request to arrive")
    exchange.close()
    server.loop.call_soon_threadsafe(gate.set)
    wait_for(lambda: server.service.finished == ["stop"], what="the operation to end")


def lines_of(exchange: Exchange, count: int) -> list[bytes]:
    lines: list[bytes] = []
    exchange._connection.settimeout(10)
    while len(lines) < count:
        assert exchange.receive(), "the stream ended"
        lines += exchange.lines()
    return lines


def test_events_of_the_past(server: Served) -> None:
    server.service.journal = [entry(n, "web" if n % 2 else "worker") for n in range(1, 21)]

    def serials(**query: str) -> list[int]:
        data = server.client.get("/v1/events", tuple(query.items()))
        return [msgspec.json.decode(line, type=Entry).serial for line in data.splitlines()]

    assert serials(lines="3") == [18, 19, 20]
    assert serials(pool="web", lines="2") == [17, 19]
    assert serials(after="15", subject="worker.0") == [16, 18, 20]
    assert serials(lines="0") == []


def test_events_are_followed_without_gap_or_repetition(server: Served) -> None:
    server.service.journal = [entry(1), entry(2)]
    with server.client.begin("GET", "/v1/events", query=(("follow", "1"), ("lines", "1"))) as stream:
        assert [msgspec.json.decode(line)["serial"] for line in lines_of(stream, 1)] == [2]
        server.run(lambda: server.service.tell(entry(3), entry(4, "worker")))
        server.run(lambda: server.service.tell(entry(5)))
        assert [msgspec.json.decode(line)["serial"] for line in lines_of(stream, 3)] == [3, 4, 5]
    wait_for(lambda: not server.service.followers, what="the follower to be gone")


def test_followed_events_are_filtered(server: Served) -> None:
    query = (("follow", "1"), ("lines", "0"), ("pool", "web"), ("subject", "web.1"))
    with server.client.begin("GET", "/v1/events", query=query) as stream:
        wait_for(lambda: server.service.followers, what="the follower")
        tell = [
            entry(1),
            entry(2, "worker", "worker.1@g1.1"),
            entry(3, "web", "web.1@g1.1"),
            entry(4, "web", "web.10@g1.1"),
        ]
        server.run(lambda: server.service.tell(*tell, entry(5, "web", "web.1")))
        assert [msgspec.json.decode(line)["serial"] for line in lines_of(stream, 2)] == [3, 5]


def test_a_slow_reader_is_told_what_it_missed(server: Served) -> None:
    with server.client.begin("GET", "/v1/events", query=(("follow", "1"), ("lines", "0"))) as stream:
        wait_for(lambda: server.service.followers, what="the follower")
        server.run(lambda: server.service.tell(*(entry(n) for n in range(1, 131))))
        lines = lines_of(stream, 101)
    assert msgspec.json.decode(lines[0]) == {"dropped": 30}
    assert msgspec.json.decode(lines[1])["serial"] == 31


def test_a_reader_who_takes_nothing_is_cut_off(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "WRITE_SECONDS", 0.1)
    fat = [replace(entry(n), reason="x" * 200_000) for n in range(1, 60)]
    with server.client.begin("GET", "/v1/events", query=(("follow", "1"), ("lines", "0"))):
        wait_for(lambda: server.service.followers, what="the follower")
        server.run(lambda: server.service.tell(*fat))
        wait_for(lambda: not server.service.followers, what="the slow reader to be dropped")


def test_logs_are_read_and_followed(server: Served, tmp_path: Path) -> None:
    log = tmp_path / "web.0.log"
    log.write_text("one\ntwo\n")
    (tmp_path / "worker.0.log").write_text("other\n")
    data = server.client.get("/v1/logs", (("name", "web"), ("lines", "1")))
    assert msgspec.json.decode(data)["text"] == "two"
    with server.client.begin("GET", "/v1/logs", query=(("follow", "1"), ("name", "web.0"))) as stream:
        assert [msgspec.json.decode(line)["text"] for line in lines_of(stream, 2)] == ["one", "two"]
        with log.open("a") as file:
            file.write("three\n")
        assert [msgspec.json.decode(line)["text"] for line in lines_of(stream, 1)] == ["three"]


def test_streams_end_with_the_server(tmp_path: Path) -> None:
    with served(tmp_path) as server:
        stream = server.client.begin("GET", "/v1/events", query=(("follow", "1"), ("lines", "0")))
        wait_for(lambda: server.service.followers, what="the follower")
        began = time.monotonic()
    assert time.monotonic() - began < 1.5
    with stream:
        assert list(stream) == []
    assert not server.path.exists()


def test_a_head_that_never_ends_is_cut_off(tmp_path: Path) -> None:
    limits = ConnectionLimits(head_seconds=0.2)
    with served(tmp_path, limits=limits) as server, socket.socket(socket.AF_UNIX) as slow:
        slow.connect(str(server.path))
        slow.sendall(b"GET /v1/status HTTP/1.1\r\nX: ")
        slow.settimeout(5)
        assert slow.recv(100) == b""


def test_a_head_that_is_too_large_is_refused(server: Served) -> None:
    answer = raw(server, b"GET /v1/status HTTP/1.0\r\nX: " + b"x" * 100_000 + b"\r\n\r\n")
    assert answer == b"" or answer.split()[1] == b"400"
    assert server.client.get("/v1/status")


def test_a_thousand_idle_connections_shut_nobody_out(server: Served) -> None:
    idle = [socket.socket(socket.AF_UNIX) for _ in range(1000)]
    try:
        for connection in idle:
            connection.connect(str(server.path))
        began = time.monotonic()
        assert server.client.get("/v1/status")
        assert time.monotonic() - began < 2.0
    finally:
        for connection in idle:
            connection.close()


def test_requests_that_are_served_are_never_pushed_out(tmp_path: Path) -> None:
    with served(tmp_path, limits=ConnectionLimits(connections=3, per_owner=3)) as server:
        streams_open = [
            server.client.begin("GET", "/v1/events", query=(("follow", "1"), ("lines", "0"))) for _ in range(3)
        ]
        wait_for(lambda: len(server.service.followers) == 3, what="three followers")
        with pytest.raises(UnavailableError):
            server.client.get("/v1/status")
        server.run(lambda: server.service.tell(entry(1)))
        for stream in streams_open:
            assert len(lines_of(stream, 1)) == 1
            stream.close()
        wait_for(lambda: not server.service.followers, what="the followers to be gone")
        assert server.client.get("/v1/status")


def test_answers_tell_nothing_of_the_server(server: Served) -> None:
    head = raw(server, b"GET /v1/status HTTP/1.0\r\n\r\n").partition(b"\r\n\r\n")[0].lower()
    assert b"\r\nserver:" not in head
    assert b"cache-control: no-store" in head
    assert b"access-control" not in head


# the client


def answering(path: Path, data: bytes) -> threading.Thread:
    """A stranger at the socket who answers one request with these bytes."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def answer() -> None:
        connection, _ = listener.accept()
        connection.recv(65536)
        connection.sendall(data)
        connection.close()
        listener.close()

    thread = threading.Thread(target=answer)
    thread.start()
    return thread


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        b"HTTP/1.0 200",
        b"HTTP/1.0 500 Oops\r\n\r\n<html>",
        b"HTTP/1.0 abc\r\n\r\n",
    ],
)
def test_strange_answers_are_one_designed_error(tmp_path: Path, data: bytes) -> None:
    thread = answering(tmp_path / "s", data)
    with pytest.raises(UnavailableError) as caught:
        Client(str(tmp_path / "s")).get("/v1/status")
    assert caught.value.message.startswith("cannot ")
    thread.join()


def test_no_daemon_is_a_designed_error(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="no such socket"):
        Client(str(tmp_path / "none")).get("/v1/status")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead"))
    with pytest.raises(UnavailableError, match="nobody answers"):
        Client(str(tmp_path / "dead")).get("/v1/status")


@pytest.mark.parametrize("text", ["a b", "ä/&=?#%", "x\r\nHost: evil", ""])
def test_queries_are_quoted(server: Served, text: str) -> None:
    server.service.journal = [entry(1, text or "web")]
    data = server.client.get("/v1/events", (("pool", text),))
    assert len(data.splitlines()) == 1
