"""What stands between the listening socket and HTTP: how many connections there may be, and how long each may dawdle.

A connection that has sent no whole request head within `head_seconds` is closed (slowloris).  When all places are
taken, the one that has been silent for longest gives way, so that a thousand idle connections shut nobody out; one
whose request is being served never does.  Each connection serves one request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

Admit = Callable[[asyncio.Transport], int | None]
"""The key that a connection's owner is counted by, None to refuse it."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Bounds on the connections of one listener."""

    connections: int = 128
    per_owner: int = 64
    head_seconds: float = 5.0


class Guard:
    """Makes protocols, each of them watched; `limits` and `owner_of` decide who gets in."""

    def __init__(self, factory: Callable[[], asyncio.Protocol], owner_of: Admit, limits: ConnectionLimits) -> None:
        self._factory = factory
        self._owner_of = owner_of
        self._limits = limits
        self._open: dict[asyncio.BaseTransport, _Guarded] = {}

    def __call__(self) -> asyncio.Protocol:
        return _Guarded(self, self._factory())

    def __len__(self) -> int:
        return len(self._open)

    def request_began(self, transport: asyncio.BaseTransport | None) -> None:
        """A whole request head arrived on that connection: it is being served."""
        if transport is not None and transport in self._open:
            self._open[transport].serve()

    def admit(self, connection: _Guarded, transport: asyncio.Transport) -> bool:
        """Whether the connection may stay."""
        owner = self._owner_of(transport)
        if owner is None:
            return False
        mine = [other for other in self._open.values() if other.owner == owner]
        if len(mine) >= self._limits.per_owner and not _close_idle(mine):
            return False
        if len(self._open) >= self._limits.connections and not _close_idle(list(self._open.values())):
            return False
        connection.owner = owner
        self._open[transport] = connection
        connection.wait(self._limits.head_seconds)
        return True

    def forget(self, transport: asyncio.BaseTransport) -> None:
        """The connection is over."""
        self._open.pop(transport, None)


def _close_idle(connections: list[_Guarded]) -> bool:
    """Close the first of them (the oldest, as they are kept in order) that is not being served."""
    for connection in connections:
        if not connection.serving:
            connection.close()
            return True
    return False


class _Guarded(asyncio.Protocol):
    """Passes everything on to the real protocol, once it is admitted."""

    def __init__(self, guard: Guard, inner: asyncio.Protocol) -> None:
        self._guard = guard
        self._inner = inner
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.owner = 0
        self.serving = False

    def wait(self, seconds: float) -> None:
        """Close the connection unless a request begins in time."""
        self._timer = asyncio.get_running_loop().call_later(seconds, self.close)

    def serve(self) -> None:
        """A request began: the deadline is met."""
        self.serving = True
        if self._timer is not None:
            self._timer.cancel()

    def close(self) -> None:
        """End the connection at once, and free its place."""
        if self._transport is not None:
            self._guard.forget(self._transport)
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast("asyncio.Transport", transport)
        if not self._guard.admit(self, stream):
            stream.abort()
            return
        self._transport = stream
        self._inner.connection_made(stream)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._guard.forget(self._transport)
        self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._transport is not None:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._transport is not None else None

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()
