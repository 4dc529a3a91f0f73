"""Datagrams of the program, on their way to the daemon: its notify socket and its agent's end of a pair.  And, over
the pair, the daemon's words to the agent.

What a program says is data: bounded in size and number, never understood here, never waited for.  A program that does
not read what it is told loses it.

An agent may also *lend* us connections: descriptors that come along with a datagram.  They are held, and nothing is
done with them.  So what the other side of such a connection still says to a program that was killed stays in the
kernel's buffer, for a daemon to ask for.  The next loan takes the place of the last.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable

from supervisor_d.shim import kernel, wire
from supervisor_d.shim.kernel import AF_UNIX, SOCK_DGRAM, SOCK_SEQPACKET, Socket, socketpair
from supervisor_d.shim.loop import Loop

BATCH = 64
"""Datagrams taken in one go, before anything else has its turn."""
LENT_MAX = 4


class Told:
    """Hears the sockets, and keeps the last TOLD_KEPT datagrams for daemons that come later."""

    def __init__(self, loop: Loop, heard: Callable[[bytes], None]) -> None:
        self._loop = loop
        self._heard = heard
        self.kept: deque[bytes] = deque(maxlen=wire.TOLD_KEPT)
        self.lent: list[int] = []
        self._agent: Socket | None = None

    def listen_for_notify(self, private_dir: str) -> None:
        """Bind the socket for sd_notify(3).  Only the program's user can reach it: the directory is 0700."""
        notify = Socket(AF_UNIX, SOCK_DGRAM)
        directory = os.open(private_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        umask = os.umask(0)
        try:
            notify.bind(f"/proc/self/fd/{directory}/{wire.NOTIFY}")
        finally:
            os.umask(umask)
            os.close(directory)
        self._watch(notify)

    def pair_for_agent(self) -> Socket:
        """The program's end of a new pair, for the caller to pass on and close.

        SOCK_SEQPACKET keeps datagrams apart like SOCK_DGRAM, and tells each end when the other is gone (unix(7)).
        """
        self._agent, theirs = socketpair(AF_UNIX, SOCK_SEQPACKET)
        self._watch(self._agent)
        return theirs

    def tell(self, text: str) -> None:
        """Send one datagram to the agent, now or never: it is dropped where nobody listens, or the socket is full."""
        datagram = text.encode(errors="replace")
        if self._agent is None or not 0 < len(datagram) <= wire.TOLD_MAX_BYTES:
            return
        try:
            self._agent.send(datagram)
        except OSError:
            pass

    def _watch(self, source: Socket) -> None:
        source.setblocking(False)
        self._loop.watch(source.fileno(), lambda: self._hear(source))

    def _hear(self, source: Socket) -> None:
        for _ in range(BATCH):
            try:
                datagram, rights = kernel.receive(source, wire.TOLD_MAX_BYTES)
            except BlockingIOError:
                return
            except OSError:
                self._close(source)
                return
            if not datagram and source is self._agent:  # the other end is closed everywhere
                self._close(source)
                return
            if rights:
                self._hold(rights if source is self._agent else [], rights)
                continue
            line = wire.encode({"event": "told", "text": datagram.decode(errors="replace")})
            self.kept.append(line)
            self._heard(line)

    def _hold(self, wanted: list[int], rights: list[int]) -> None:
        """Keep what is lent in place of what was lent before; close the rest."""
        kept = wanted[:LENT_MAX]
        for fd in rights[len(kept) :]:
            os.close(fd)
        if wanted:
            for fd in self.lent:
                os.close(fd)
            self.lent = kept

    def _close(self, source: Socket) -> None:
        self._loop.unwatch(source.fileno())
        source.close()
        if source is self._agent:
            self._agent = None
