"""What is left of an answer in a connection that nobody reads any more."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def popped(agent_module: Callable[[str], Any]) -> Any:
    return agent_module("popped")


ANSWER = b'*2\r\n$5\r\nqueue\r\n$12\r\n{"a":"\r\n$3"}\r\n'


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"*-1\r\n", []),
        (b"_\r\n", []),
        (b"$-1\r\n*-1\r\n", []),
        (ANSWER, [(b"queue", b'{"a":"\r\n$3"}')]),
        (b"*-1\r\n" + ANSWER, [(b"queue", b'{"a":"\r\n$3"}')]),
    ],
)
def test_whole_answers(popped, data: bytes, expected: list[tuple[bytes, bytes]]) -> None:  # type: ignore[no-untyped-def]
    assert list(popped.messages(data)) == expected


@pytest.mark.parametrize(
    "data", [ANSWER[:-1], ANSWER[:-2] + b"xx", ANSWER[5:], b"*2\r\n:5\r\n", b"+OK\r\n", b"*2\r\n$x\r\n"]
)
def test_anything_else_is_torn(popped, data: bytes) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(popped.TornError):
        list(popped.messages(data))


def test_looking_takes_nothing(popped) -> None:  # type: ignore[no-untyped-def]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert popped.look(ours) == b""
        whole = b"x" * 150_000
        theirs.setblocking(False)
        sent = theirs.send(whole)
        theirs.close()
        assert popped.look(ours) == popped.look(ours) == whole[:sent]
        popped.take(ours, sent)
        assert popped.look(ours) == b""
