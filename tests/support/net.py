"""Loopback for tests: free ports, and one request."""

from __future__ import annotations

import http.client
import socket


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on.  All are held until all are found, so that they differ."""
    held = [socket.socket() for _ in range(count)]
    try:
        for listener in held:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in held]
    finally:
        for listener in held:
            listener.close()


def get(port: int, path: str = "/", *, seconds: float = 10.0) -> tuple[int, str]:
    """Status and body of one GET from 127.0.0.1.  Raises OSError when nobody answers."""
    return request(port, "GET", path, seconds=seconds)


def request(port: int, method: str, path: str, body: str | None = None, *, seconds: float = 10.0) -> tuple[int, str]:
    """Status and body of one request to 127.0.0.1."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    try:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    finally:
        connection.close()
