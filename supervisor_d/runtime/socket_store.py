"""The daemon's side of the store that keeps listening sockets where systemd keeps none (shim/store.py).

It is an fd store as systemd's is, and FdStore brings either to what the listeners are.  Two things differ.  A name that
is given up is awaited: once `unstore` returns, nobody listens at that address any more, and it can be bound anew.  And
the store is a process, which can die, be stopped or be killed: one that dies is replaced; one that does not answer is
continued and asked once more, then its sockets are copied out of it (pidfd_getfd(2)), and it is killed.

    first listener   begin: the zygote forks a store, which is told of each socket
    kill -9 of us    find: the next daemon asks it for them, and goes on with it
    clean end        end: it closes them all and is gone before we are
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from supervisor_d.runtime import pidfd as pidfds
from supervisor_d.runtime.inherited import Socket
from supervisor_d.runtime.proc import listener_pid
from supervisor_d.runtime.recovery import held_by
from supervisor_d.shim import wire

ANSWER_SECONDS = 1.0
"""For a store to answer: it is idle, or it is stopped."""
RETRY_SECONDS = 30.0
"""Between one store and the next, where one does not live long or cannot be had."""
_DESCRIPTORS_MAX = 253
"""In one message: SCM_MAX_FD, unix(7)."""


class SocketStore:
    """One store, or none yet.

    `lost` is called, from the loop, once another one may take the place of one that ended: with the reason, or "" for
    one that could not be had.
    """

    def __init__(self, runtime_dir: Path, lost: Callable[[str], None]) -> None:
        self._runtime_dir = runtime_dir
        self._lost = lost
        self._begin: Callable[[socket.socket], None] | None = None
        self._link: socket.socket | None = None
        self._process: wire.Identity | None = None
        self._begun_at = float("-inf")
        self._untold = ""
        """Why a store was given up before another one could be had."""

    @property
    def address(self) -> str:
        """Empty where there is no store."""
        return str(self._runtime_dir / wire.STORE) if self._link else ""

    def find(self) -> dict[str, Socket]:
        """The sockets that a former daemon's store holds, by name, for the caller to close; that store is ours now.

        One that does not answer is killed, once its sockets are copied; their names are not known then.
        """
        connection = self._connect()
        if connection is None:
            return {}
        self._use(connection)
        found: dict[str, Socket] = {}
        asked = False
        for _ in range(2):
            try:
                if not asked:
                    self._await("began")
                    asked = self._send({"ask": "sockets"})
                while self._given(found):
                    pass
            except TimeoutError:
                self._process = _woken(connection)
            except (OSError, ValueError):
                break
            else:
                return found
        return found | self._copied({os.fstat(given.fd).st_ino for given in found.values()})

    def begin_with(self, begin: Callable[[socket.socket], None]) -> None:
        """From now on a store can be had: `begin` asks for one, with its end of the link.  It raises OSError."""
        self._begin = begin
        if self._untold:
            self._replace_later(self._untold)

    def ensure(self) -> bool:
        """Have a store, if one can be had; else it is tried again later.  Whether it is a new one, which holds nothing
        yet."""
        if self._link or self._begin is None:
            return False
        self._begun_at = asyncio.get_running_loop().time()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                self._begin(theirs)
        except OSError:
            ours.close()
            self._replace_later("")
            return False
        self._use(ours)
        return True

    def store(self, name: str, fd: int) -> bool:
        """Have a socket kept under a name; False when that cannot be."""
        return self._send({"ask": "keep", "name": name}, (fd,))

    def unstore(self, name: str) -> bool:
        """Give a name up: when this returns, the store has closed the socket, or is dead."""
        if not self._send({"ask": "drop", "name": name}):
            return False
        try:
            self._await("done")
        except (OSError, ValueError):
            self._give_up("it did not answer")
            return False
        return True

    def end(self) -> None:
        """Let it end: when this returns, it has closed all it held."""
        self._begin = None
        if self._send({"ask": "end"}):
            with suppress(OSError, ValueError):
                self._await("")  # which never comes: its end of file does
            self._give_up("it is not needed")

    # -- the link

    def _connect(self) -> socket.socket | None:
        try:
            directory = os.open(self._runtime_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return None
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.settimeout(ANSWER_SECONDS)
            connection.connect(f"/proc/self/fd/{directory}/{wire.STORE}")
        except OSError:
            connection.close()
            return None
        finally:
            os.close(directory)
        return connection

    def _use(self, connection: socket.socket) -> None:
        connection.settimeout(ANSWER_SECONDS)
        self._link = connection
        asyncio.get_running_loop().add_reader(connection.fileno(), self._ready)

    def _ready(self) -> None:
        """It has something to say that nobody waits for: who it is, or that it ended."""
        if self._link is None:
            return
        self._link.setblocking(False)  # somebody who waited for an answer may have read this meanwhile
        try:
            _, surplus = self._receive()
        except BlockingIOError:
            surplus = []
        except (OSError, ValueError):
            self._give_up("it ended")
            return
        self._link.settimeout(ANSWER_SECONDS)
        _close(surplus)

    def _send(self, message: wire.Message, fds: tuple[int, ...] = ()) -> bool:
        if self._link is None:
            return False
        try:
            socket.send_fds(self._link, [wire.encode(message)], fds)
        except OSError:
            self._give_up("it takes nothing more")
            return False
        return True

    def _await(self, event: str) -> tuple[wire.Message, list[int]]:
        """The next message of that kind, with the descriptors that come along.

        Raises OSError when none comes in time, and ValueError for what is no message.
        """
        while True:
            message, fds = self._receive()
            if message.get("event") == event:
                return message, fds
            _close(fds)

    def _receive(self) -> tuple[wire.Message, list[int]]:
        if self._link is None:
            raise ConnectionResetError("there is no store")
        size, flags = wire.MESSAGE_MAX_BYTES, socket.MSG_CMSG_CLOEXEC
        data, fds, _, _ = socket.recv_fds(self._link, size, _DESCRIPTORS_MAX, flags)
        if not data:
            raise ConnectionResetError("the store ended")
        try:
            message = wire.decode(data)
            if message.get("event") == "began":
                self._process = wire.identity_of(message)
        except ValueError:
            _close(fds)
            raise
        return message, fds

    def _given(self, found: dict[str, Socket]) -> list[str]:
        """Some more sockets, added to `found`; no names: that was all.  Raises OSError and ValueError."""
        message, fds = self._await("sockets")
        names = message.get("names")
        if not isinstance(names, list) or len(names) != len(fds):
            _close(fds)
            raise ValueError("not as many names as sockets")
        found.update({str(name): Socket(fd, str(name).rpartition("@")[0]) for name, fd in zip(names, fds, strict=True)})
        return names

    # -- the store's end

    def _copied(self, known: set[int]) -> dict[str, Socket]:
        """What a store that does not answer holds beside the sockets whose inodes are known; and its end."""
        copies = {os.fstat(fd).st_ino: fd for fd in held_by(self._process)} if self._process else {}
        for inode in copies.keys() & known:
            os.close(copies.pop(inode))
        self._give_up("it did not answer")
        return {f"@{inode}": Socket(fd) for inode, fd in copies.items()}

    def _give_up(self, why: str) -> None:
        """No more of this one: it is killed if it is not dead."""
        link, process = self._link, self._process
        self._link = self._process = None
        if link is None:
            return
        asyncio.get_running_loop().remove_reader(link.fileno())
        link.close()
        if process and (pidfd := pidfds.open_pidfd(process)) is not None:
            pidfds.send(pidfd, signal.SIGKILL)
            ended = select.poll()
            ended.register(pidfd, select.POLLIN)
            ended.poll(ANSWER_SECONDS * 1000)
            os.close(pidfd)
        self._replace_later(why if process else "")

    def _replace_later(self, why: str) -> None:
        if self._begin is None:
            self._untold = why
        else:
            loop = asyncio.get_running_loop()
            loop.call_at(max(loop.time(), self._begun_at + RETRY_SECONDS), self._lost, why)


def _woken(connection: socket.socket) -> wire.Identity | None:
    """Who listens at the other end: the store itself, continued if it was stopped; None when it is dead."""
    pid = listener_pid(connection)
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    link = select.poll()
    link.register(connection, 0)
    try:
        # The pidfd first, the question after it: while the link is open, the pid is no other one's.
        found = wire.identify(pid, pidfd)
        if link.poll(0):
            return None
        pidfds.send(pidfd, signal.SIGCONT)
    except OSError:
        return None
    else:
        return found
    finally:
        os.close(pidfd)


def _close(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)
