"""The queue of a listening socket, as the kernel tells it."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor_d.runtime.backlog import waiting_connections


@pytest.fixture(params=["tcp", "tcp6", "unix"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[socket.socket]:
    if request.param == "unix":
        bound = socket.socket(socket.AF_UNIX)
        bound.bind(str(tmp_path / "web.sock"))
        bound.listen(10)
    else:
        family, host = {"tcp": (socket.AF_INET, "127.0.0.1"), "tcp6": (socket.AF_INET6, "::1")}[request.param]
        bound = socket.create_server((host, 0), family=family, backlog=10)
    with bound:
        yield bound


def test_connections_that_nobody_accepted(listener: socket.socket) -> None:
    assert waiting_connections(listener.fileno()) == 0
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            client = stack.enter_context(socket.socket(listener.family))
            client.connect(listener.getsockname())
        assert waiting_connections(listener.fileno()) == 3
        stack.enter_context(listener.accept()[0])
        assert waiting_connections(listener.fileno()) == 2
    assert listener.fileno() >= 0, "it is only looked at"


def test_what_is_no_listener() -> None:
    read, write = os.pipe()
    try:
        assert waiting_connections(read) is None
    finally:
        os.close(read)
        os.close(write)
    assert waiting_connections(read) is None
