"""The connection on which we wait for messages, lent to somebody who survives us.

Redis forgets a message when it hands it out.  If we are killed while BRPOP is open, it may hand one to a connection
that nobody reads any more, and that message is gone.  So each new connection is lent to the shim: the kernel keeps it,
and what came on it, until the daemon has looked (module popped).

A connection that we end ourselves is shut down by redis-py, for all who hold it.  TLS cannot be lent: only we can read
what comes on it.

What is lent stays open when we close it, and the kernel takes out of an epoll only what nobody holds any more: our
event loop would be woken by its end for ever, by a number that we have closed and can take out no more.  redis-py
closes first and tells kombu then.  So what is lent leaves the poller before redis-py closes it.
"""

from __future__ import annotations

import contextlib
import os
import ssl
from typing import Any

from .wire import Wire

OURS = "supervisor_d_lending"
"""Marks a `disconnect` that is ours."""


class Lender:
    """Lends each connection once."""

    def __init__(self, channel: Wire) -> None:
        self._wire = channel
        self._lent: Any = None

    def lend(self, channel: Any) -> None:
        """Lend the connection that a channel waits on, unless it is the one that is lent.

        Raises TypeError for one that cannot be, and AttributeError where redis-py or kombu has things elsewhere.
        """
        connection = channel.client.connection
        current = connection._sock
        if current is None or current is self._lent:
            return
        if isinstance(current, ssl.SSLSocket):
            raise TypeError("what comes over TLS can be read by nobody else")
        self._watch(type(connection), channel.connection.cycle)
        if self._wire.lend(current.fileno()):
            self._lent = current

    def _watch(self, kind: Any, cycle: Any) -> None:
        """Be asked before a connection of this class is closed; kombu makes a class for each channel.

        `cycle.poller` is the event loop's, and another one after each reconnect.
        """
        original = kind.disconnect
        if getattr(original, OURS, False):
            return
        _ = cycle.poller.unregister  # where there is none, nothing can be lent

        def disconnect(connection: Any, *args: Any, **kwargs: Any) -> Any:
            with contextlib.suppress(Exception):
                self._leave(connection._sock, cycle.poller)
            return original(connection, *args, **kwargs)

        setattr(disconnect, OURS, True)
        kind.disconnect = disconnect

    def _leave(self, sock: Any, poller: Any) -> None:
        """Take what is lent out of our poller; a pool process shares it with us, and must not."""
        if sock is not None and sock is self._lent and os.getpid() == self._wire.main:
            self._lent = None
            poller.unregister(sock.fileno())
