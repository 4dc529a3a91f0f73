"""The agent's socket: it never waits for the daemon, whatever Celery has set for sockets in general."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from supervisor_d.agents.supervisor_d_celery.wire import Wire


@pytest.fixture
def default_timeout() -> Iterator[None]:
    """What Celery sets while it shuts down."""
    socket.setdefaulttimeout(5.0)
    yield
    socket.setdefaulttimeout(None)


@pytest.mark.usefixtures("default_timeout")
def test_a_default_timeout_makes_nothing_wait_and_ends_nothing() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        wire = Wire(theirs.fileno())
        began = time.monotonic()
        assert wire.asks() == []
        while wire.tell(beat="x" * 1000):
            pass
        assert time.monotonic() - began < 2
        ours.send(b'{"ask": 1, "do": "hello"}')
        assert wire.asks() == [{"ask": 1, "do": "hello"}]
