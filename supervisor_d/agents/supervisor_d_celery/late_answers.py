"""The answer to a BRPOP that comes after its connection was given up.

Redis forgets a message when it answers a BRPOP.  When a connection is given up while one is under way, because the
network is silent or because another connection failed, that answer may be on its way, or here already and not yet read:
with the socket the message would be closed.  So the socket is put aside instead, kombu closes a stand-in, and once a
second it is looked at: a message goes back to the head of the queue that it was taken from.

A network that heals delivers what it held back (TCP sends it again for about a quarter of an hour); one that does not,
or a broker that died, has lost it: that is Redis's promise, not ours.

`overdue` notices the silence: a broker answers a BRPOP within its one second.  kombu 5.6 never does.  kombu 5.7 does
(MultiChannelPoller.maybe_check_brpop_health), as late as we do or earlier, and shuts the socket down: the answer that
is on its way is lost.  So the channel that we look after is kept from its eyes, for as long as we do look
(`unseen_by_kombu`).
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from typing import Any

PATIENCE_SECONDS = 5.0
"""Beyond the second that a BRPOP waits by itself; a shorter `health_check_interval` of the application's is kept."""
KEPT_SECONDS = 900.0
KEPT_MOST = 8
ANSWER_MAX_BYTES = 16 * 1024 * 1024


class LateAnswers:
    """Sockets put aside, and what came out of them."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Any, bytearray, float]] = []
        self._found: list[tuple[bytes, bytes]] = []

    def put_aside(self, channel: Any) -> None:
        """Keep the socket of a BRPOP that is under way from being closed with its channel."""
        connection: Any = getattr(channel, "_in_poll", None)
        sock = getattr(connection, "_sock", None)
        if sock is None or sock.fileno() < 0:
            return
        connection._sock = socket.socket(socket.AF_UNIX)  # something that can be closed in its place
        channel._in_poll = None
        sock.setblocking(False)
        self._waiting.append((sock, bytearray(), time.monotonic()))
        for old, _, _ in self._waiting[:-KEPT_MOST]:
            old.close()
        del self._waiting[:-KEPT_MOST]

    def give_back(self, channel: Any) -> None:
        """Read what has come, and put messages back over this channel.  Raises its connection errors."""
        self._waiting = [each for each in self._waiting if self._read(*each)]
        while self._found:
            key, message = self._found[0]
            with channel.conn_or_acquire() as client:
                # The key is the one that the broker named, with whatever prefix it has.
                plain(client).rpush(key, message)
            self._found.pop(0)

    def _read(self, sock: Any, received: bytearray, since: float) -> bool:
        """Whether to go on waiting for this one."""
        try:
            while part := sock.recv(65536):
                received += part
        except (BlockingIOError, InterruptedError):
            part = b"more may come"
        except OSError as exc:  # of TLS, "want read" is one
            part = b"more may come" if type(exc).__name__ == "SSLWantReadError" else b""
        answer = parse(bytes(received))
        if answer:
            self._found.append(answer)
        if answer is None and part and len(received) < ANSWER_MAX_BYTES and time.monotonic() - since < KEPT_SECONDS:
            return True
        sock.close()
        return False


def parse(answer: bytes) -> tuple[bytes, bytes] | tuple[()] | None:
    """(key, message) of a BRPOP's answer; () for one without; None while it is incomplete."""
    if not answer.startswith(b"*2\r\n"):
        return () if answer.endswith(b"\r\n") else None
    parts = []
    at = 4
    for _ in range(2):
        end = answer.find(b"\r\n", at)
        if end < 0:
            return None
        if answer[at : at + 1] != b"$" or not answer[at + 1 : end].isdigit():
            return ()
        length = int(answer[at + 1 : end])
        at = end + 2 + length + 2
        if len(answer) < at:
            return None
        parts.append(answer[end + 2 : end + 2 + length])
    return parts[0], parts[1]


def overdue(channel: Any, sent_at: float | None, now: float) -> bool:
    """Whether a BRPOP is under way and its answer should have come."""
    sock = getattr(getattr(channel, "_in_poll", None), "_sock", None)
    waits = getattr(channel, "brpop_timeout", 0)
    patience = min(PATIENCE_SECONDS, getattr(channel, "health_check_interval", None) or PATIENCE_SECONDS)
    if sock is None or sent_at is None or not waits or now - sent_at < waits + patience:
        return False
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    return not poller.poll(0)


def unseen_by_kombu(looked_after: Callable[[], Any]) -> None:
    """Let kombu find the BRPOP of one channel never overdue: `looked_after()`, None when nobody looks after any."""
    from kombu.transport import redis

    poller: Any = redis.MultiChannelPoller
    original = getattr(poller, "maybe_check_brpop_health", None)
    if original is None:
        return

    def maybe_check_brpop_health(cycle: Any) -> Any:
        channel = looked_after()
        if channel is None:
            return original(cycle)
        sent_at, channel._brpop_sent_at = channel._brpop_sent_at, None
        try:
            return original(cycle)
        finally:
            channel._brpop_sent_at = sent_at

    poller.maybe_check_brpop_health = maybe_check_brpop_health


def plain(client: Any) -> Any:
    """The same connections, without kombu's prefix."""
    from kombu.transport import redis

    module: Any = redis
    return module.redis.Redis(connection_pool=client.connection_pool)


def is_broadcast(channel: Any, exchange: Any) -> bool:
    """Whether its messages go to all that listen at that moment (PUBLISH).  kombu has them in `unacked` too, but nobody
    can get one again: put back, it would lie in the lists of queues that are never popped, for ever.
    """
    known: Any = channel.state.exchanges.get(exchange) if isinstance(exchange, str) else None
    return known is not None and known["type"] == "fanout"
