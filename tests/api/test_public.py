from __future__ import annotations

import asyncio
import http.client
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from supervisor_d.api.guard import ConnectionLimits
from supervisor_d.api.public import HEADERS, PublicServer, is_local_host, loopback_address
from supervisor_d.errors import PrepareError
from tests.support.fake_service import looping

BODY = b"# HELP up x\nup 1\n"


@contextmanager
def public(listen: str = "127.0.0.1:0", limits: ConnectionLimits | None = None) -> Iterator[PublicServer]:
    async def exposition() -> tuple[bytes, str]:
        return BODY, "text/plain; version=0.0.4; charset=utf-8"

    with looping() as loop:
        server = PublicServer(listen, exposition, limits)
        asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
        try:
            yield server
        finally:
            asyncio.run_coroutine_threadsafe(server.close(), loop).result(10)


def ask(server: PublicServer, path: str = "/metrics", method: str = "GET", **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request(method, path, headers=headers)
    return connection.getresponse()


def test_metrics_and_health() -> None:
    with public() as server:
        response = ask(server)
        assert (response.status, response.read()) == (200, BODY)
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert ask(server, "/healthz").read() == b"ok\n"
        assert server.address == f"127.0.0.1:{server.port}"


def test_every_answer_has_the_headers_and_allows_no_other_origin() -> None:
    with public() as server:
        for response in (ask(server), ask(server, "/nothing"), ask(server, Host="evil.example")):
            for name, value in HEADERS.items():
                assert response.headers[name] == value
            assert "Access-Control-Allow-Origin" not in response.headers


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost:1", "", "[::1]:x", "0.0.0.0"])
def test_other_names_are_refused(host: str) -> None:
    with public() as server:
        assert ask(server, Host=host).status == 421


def test_names_of_loopback_are_served() -> None:
    assert is_local_host("LOCALHOST:80", "127.0.0.1", 80)
    assert is_local_host("[::1]:80", "::1", 80)
    assert is_local_host("127.0.0.2:80", "127.0.0.2", 80)
    assert not is_local_host("127.0.0.2:80", "127.0.0.1", 80)
    with public() as server:
        for host in ("localhost", f"127.0.0.1:{server.port}", f"[::1]:{server.port}"):
            assert ask(server, Host=host).status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_nothing_can_be_changed(method: str) -> None:
    with public() as server:
        assert ask(server, method=method).status == 405
        assert ask(server, "/v1/stop", method=method).status == 404


@pytest.mark.parametrize(
    "listen", ["0.0.0.0:9180", "192.168.1.5:9180", "[::]:9180", "example.com:80", ":9180", "9180", "127.0.0.1:x"]
)
def test_other_addresses_are_refused(listen: str) -> None:
    with pytest.raises(PrepareError) as caught:
        loopback_address(listen)
    assert caught.value.exit_code == 73
    assert caught.value.hint


def test_addresses_of_loopback() -> None:
    assert loopback_address("127.0.0.1:9180") == ("127.0.0.1", 9180)
    assert loopback_address("localhost:0") == ("127.0.0.1", 0)
    assert loopback_address("[::1]:9180") == ("::1", 9180)


def test_a_taken_port_is_a_designed_error() -> None:
    with public() as server, pytest.raises(PrepareError, match="in use"), public(f"127.0.0.1:{server.port}"):
        pass


def test_a_slow_head_is_cut_off() -> None:
    with public(limits=ConnectionLimits(head_seconds=0.2)) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as slow:
            slow.sendall(b"GET /metrics HTTP/1.1\r\nHost: loc")
            assert slow.recv(100) == b""
        assert ask(server).status == 200


def test_a_huge_head_is_refused() -> None:
    with public() as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as huge:
            try:
                huge.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 2**20)
                answer = huge.recv(100)
            except (ConnectionResetError, BrokenPipeError):
                answer = b""
        assert b" 200 " not in answer
        assert ask(server).status == 200


def test_many_scrapes_leave_no_connection_behind() -> None:
    with public() as server:
        for _ in range(300):
            assert ask(server).status == 200
        assert server._guard is not None
        assert len(server._guard) <= 1
