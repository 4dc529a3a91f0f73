"""Datagrams of the program, on their way to the daemon: its notify socket and its agent's end of a pair.

What a program says is data: bounded in size and number, never understood here, never waited for.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable

from supervisor_d.shim import wire
from supervisor_d.shim.kernel import AF_UNIX, SOCK_DGRAM, Socket, socketpair
from supervisor_d.shim.loop import Loop

BATCH = 64
"""Datagrams taken in one go, before anything else has its turn."""


class Told:
    """Hears the sockets, and keeps the last TOLD_KEPT datagrams for daemons that come later."""

    def __init__(self, loop: Loop, heard: Callable[[bytes], None]) -> None:
        self._loop = loop
        self._heard = heard
        self.kept: deque[bytes] = deque(maxlen=wire.TOLD_KEPT)

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
        """The program's end of a new pair, for the caller to pass on and close."""
        ours, theirs = socketpair(AF_UNIX, SOCK_DGRAM)
        self._watch(ours)
        return theirs

    def _watch(self, source: Socket) -> None:
        source.setblocking(False)
        self._loop.watch(source.fileno(), lambda: self._hear(source))

    def _hear(self, source: Socket) -> None:
        for _ in range(BATCH):
            try:
                datagram = source.recv(wire.TOLD_MAX_BYTES)
            except BlockingIOError:
                return
            except OSError:  # the other end of the pair is closed everywhere
                self._loop.unwatch(source.fileno())
                source.close()
                return
            line = wire.encode({"event": "told", "text": datagram.decode(errors="replace")})
            self.kept.append(line)
            self._heard(line)
