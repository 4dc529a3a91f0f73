"""The connection on which we wait for messages, lent to somebody who survives us.

Redis forgets a message when it hands it out.  If we are killed while BRPOP is open, it may hand one to a connection
that nobody reads any more, and that message is gone.  So each new connection is lent to the shim: the kernel keeps it,
and what came on it, until the daemon has looked (module popped).

A connection that we end ourselves is shut down by redis-py, for all who hold it.  TLS cannot be lent: only we can read
what comes on it.
"""

from __future__ import annotations

import ssl
from typing import Any

from .wire import Wire


class Lender:
    """Lends each connection once."""

    def __init__(self, channel: Wire) -> None:
        self._wire = channel
        self._lent: Any = None

    def lend(self, channel: Any) -> None:
        """Lend the connection that a channel waits on, unless it is the one that is lent.

        Raises TypeError for one that cannot be, and AttributeError where redis-py has it elsewhere.
        """
        current = channel.client.connection._sock
        if current is None or current is self._lent:
            return
        if isinstance(current, ssl.SSLSocket):
            raise TypeError("what comes over TLS can be read by nobody else")
        if self._wire.lend(current.fileno()):
            self._lent = current
