"""The API's client: HTTP over the control socket, with as little to import as can be.

A command has about 100 ms from the shell's prompt to its answer, and http.client with what it imports takes a fifth of
that.  So this speaks HTTP/1.0 itself: one request for each connection, an answer that ends with the connection or after
Content-Length, and nothing else, since the server at the other end is ours.  An Exchange has a `fileno`, so that a
command can wait for an answer and follow the journal at the same time.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Self

from supervisor_d.api.unix import with_short_path
from supervisor_d.errors import NotPermittedError, Problem, SupervisorError, UnavailableError

if TYPE_CHECKING:
    from supervisor_d.api.wire import OperateRequest, UpgradeRequest

MAX_HEAD_BYTES = 64 * 1024
MAX_ANSWER_BYTES = 64 * 1024 * 1024
CHUNK_BYTES = 64 * 1024
ANSWER_SECONDS = 10.0
"""How long the daemon may take for what it answers at once."""

Query = Sequence[tuple[str, str]]


class RefusedError(SupervisorError):
    """The daemon refused; its words, its exit code, and the config's problems where that is what was wrong."""

    def __init__(self, message: str, *, hint: str, exit_code: int, problems: tuple[Problem, ...]) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code
        self.problems = problems


class Client:
    """Asks the daemon whose control socket is at `path`."""

    def __init__(self, path: str) -> None:
        self.path = path

    def get(self, route: str, query: Query = ()) -> bytes:
        """The body of an answer.  Raises UnavailableError, NotPermittedError, RefusedError."""
        with self.begin("GET", route, query=query) as exchange:
            return exchange.body(ANSWER_SECONDS)

    def post(self, route: str, request: OperateRequest) -> bytes:
        """The body of the answer to an operation, which may take as long as the request says."""
        with self.begin_post(route, request) as exchange:
            return exchange.body(request.wait_seconds + ANSWER_SECONDS)

    def begin_post(self, route: str, request: OperateRequest | UpgradeRequest) -> Exchange:
        """Ask for an operation; its answer comes when it is over."""
        import msgspec

        return self.begin("POST", route, body=msgspec.json.encode(request))

    def begin(self, method: str, route: str, *, query: Query = (), body: bytes = b"") -> Exchange:
        """Send a request, and return what will hold its answer."""
        target = route + _encoded(query)
        head = f"{method} {target} HTTP/1.0\r\nHost: supervisor-d\r\nContent-Length: {len(body)}\r\n\r\n"
        connection = self._connected()
        try:
            connection.sendall(head.encode("ascii") + body)
        except OSError as error:
            connection.close()
            raise UnavailableError(f"cannot ask the daemon at {self.path}: {error.strerror or error}") from error
        return Exchange(connection)

    def _connected(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # A full backlog is EAGAIN to a connect that does not block; this one waits for its turn, in the kernel.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(ANSWER_SECONDS), 0))
        try:
            with_short_path(self.path, connection.connect)
        except OSError as error:
            connection.close()
            raise self._unreachable(error) from error
        connection.settimeout(ANSWER_SECONDS)
        return connection

    def _unreachable(self, error: OSError) -> SupervisorError:
        if isinstance(error, PermissionError):
            hint = "run this as root or as the daemon's user, or see `control:` under `daemon:` in the config"
            return NotPermittedError(f"cannot reach the daemon at {self.path}: permission denied", hint=hint)
        why = {
            FileNotFoundError: "there is no such socket",
            ConnectionRefusedError: "nobody answers there",
            BlockingIOError: "it is too busy",
        }
        reason = why.get(type(error), error.strerror or str(error))
        hint = "start it with `supervisor-d run`; name another with --config or --socket"
        return UnavailableError(f"cannot reach the daemon at {self.path}: {reason}", hint=hint)


class Exchange:
    """One request's answer, as it arrives."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = b""
        self._status = 0
        self._length: int | None = None
        self._ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connection back."""
        self._connection.close()

    def fileno(self) -> int:
        return self._connection.fileno()

    def receive(self) -> bool:
        """Take what has arrived, waiting for it if nothing has; False once the answer is whole.

        Raises UnavailableError when the daemon goes away in its midst, RefusedError when it refused.
        """
        if self._ended:
            return False
        try:
            data = self._connection.recv(CHUNK_BYTES)
        except OSError as error:
            raise UnavailableError(f"cannot read the daemon's answer: {error.strerror or error}") from error
        self._buffer += data
        if len(self._buffer) > MAX_ANSWER_BYTES:
            raise UnavailableError(f"cannot read the daemon's answer: it is larger than {MAX_ANSWER_BYTES} bytes")
        if not self._status:
            self._take_head()
        self._ended = not data or (self._length is not None and len(self._buffer) >= self._length)
        if self._ended:
            self._check()
        return not self._ended

    def body(self, timeout_seconds: float) -> bytes:
        """The whole answer, waited for at most so long."""
        deadline = time.monotonic() + timeout_seconds
        waiting = select.poll()
        waiting.register(self, select.POLLIN)
        while not self._ended:
            left = deadline - time.monotonic()
            if left <= 0 or not waiting.poll(left * 1000):
                raise UnavailableError(f"cannot read the daemon's answer: none came within {timeout_seconds:g} s")
            self.receive()
        return self._buffer

    def lines(self) -> list[bytes]:
        """The whole lines of a stream that have arrived and were not yet taken."""
        if self._status != 200:
            return []
        whole, newline, rest = self._buffer.rpartition(b"\n")
        self._buffer = rest
        return whole.split(b"\n") if newline else []

    def __iter__(self) -> Iterator[bytes]:
        """Every line of a stream, for as long as it goes on."""
        self._connection.settimeout(None)
        more = True
        while more:
            more = self.receive()
            yield from self.lines()

    def _take_head(self) -> None:
        head, blank, rest = self._buffer.partition(b"\r\n\r\n")
        if not blank:
            if len(self._buffer) > MAX_HEAD_BYTES:
                raise UnavailableError("cannot read the daemon's answer: its head has no end")
            return
        lines = head.decode("latin-1").split("\r\n")
        fields = lines[0].split(" ", 2)
        if len(fields) < 2 or not fields[0].startswith("HTTP/1.") or not fields[1].isdigit():
            raise UnavailableError("cannot read the daemon's answer: whatever listens there is no supervisor-d")
        self._status = int(fields[1])
        pairs = (line.partition(":") for line in lines[1:])
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        length = headers.get("content-length", "")
        self._length = int(length) if length.isdigit() else None
        self._buffer = rest

    def _check(self) -> None:
        """The answer is over: was it whole, and was it a yes?"""
        if not self._status or (self._length is not None and len(self._buffer) < self._length):
            raise UnavailableError(
                "cannot read the daemon's answer: the connection ended in its midst",
                hint="see whether the daemon runs with `supervisor-d status`",
            )
        if self._status != 200:
            raise refused(self._status, self._buffer)


def refused(status: int, body: bytes) -> SupervisorError:
    """The error that an answer tells."""
    import msgspec

    from supervisor_d.api.wire import ErrorBody

    try:
        told = msgspec.json.decode(body, type=ErrorBody)
    except msgspec.DecodeError:
        return UnavailableError(f"cannot do that: the daemon answered with HTTP status {status}")
    return RefusedError(told.message, hint=told.hint, exit_code=told.exit_code, problems=told.problems)


_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def _encoded(query: Query) -> str:
    """`?a=1&b=2`, percent-encoded (RFC 3986); urllib.parse takes 2 ms to import."""
    text = "&".join(f"{_quoted(name)}={_quoted(value)}" for name, value in query)
    return f"?{text}" if text else ""


def _quoted(text: str) -> str:
    return "".join(chr(b) if b in _PLAIN else f"%{b:02X}" for b in os.fsencode(text))
