"""What this process was born with: sockets from systemd, and what a daemon hands to its successor across execve(2).

Descriptors reach a daemon in two ways, and both are taken before anything else may inherit them:

    systemd      $LISTEN_FDS (sd_listen_fds(3)), from a socket unit or out of the fd store, each with its name
    hand-over    $SUPERVISOR_D_HANDOVER, from the daemon that was this process before its upgrade (runtime/upgrade.py)

Both variables leave the environment at once, and every descriptor becomes close-on-exec: what we start shall neither
believe that it was activated nor hold a socket that nobody knows of.

Names in the fd store are ours: `<pool>@<inode>`, with no pool for a socket that is known by its address.  Any other
name is a socket unit's; such a socket is used, but its file is systemd's to remove.
"""

from __future__ import annotations

import os
import stat
from collections.abc import MutableMapping
from dataclasses import dataclass, field

import msgspec

HANDOVER_ENV = "SUPERVISOR_D_HANDOVER"
HANDOVER_VERSION = 1
_FIRST_FD = 3
"""SD_LISTEN_FDS_START"""


@dataclass(frozen=True, slots=True)
class Socket:
    """A listening socket that came along; `pool` is "" for one that is known by its address."""

    fd: int
    pool: str = ""
    foreign: bool = False
    """Bound by systemd: its file, if it has one, is not ours."""


@dataclass(frozen=True, slots=True)
class Predecessor:
    """Who handed over: the daemon that was this process, and the way back to it."""

    version: str
    argv: tuple[str, ...]
    began_at: float
    """CLOCK_MONOTONIC of the hand-over."""
    failed: str = ""
    """Set on the way back: why the new daemon could not rule."""


@dataclass(frozen=True, slots=True)
class Inherited:
    """All that came along.  `stored` are the names that systemd's fd store holds for us."""

    sockets: tuple[Socket, ...] = ()
    stored: frozenset[str] = frozenset()
    lock: int | None = None
    predecessor: Predecessor | None = None


@dataclass(frozen=True, slots=True)
class HandOver:
    """The value of $SUPERVISOR_D_HANDOVER, as JSON.

    Fields are only ever added; where that cannot hold, HANDOVER_VERSION grows, and a daemon that does not know the
    version starts as after a crash: it adopts.
    """

    version: int
    predecessor: Predecessor
    lock: int
    sockets: tuple[Socket, ...] = ()
    stored: tuple[str, ...] = ()
    environ: dict[str, str] = field(default_factory=dict)
    """What the predecessor had taken out of its environment and the successor must find there (sd_notify(3))."""


def take(environ: MutableMapping[str, str]) -> Inherited:
    """Take what came along out of the environment.  What cannot be understood is left out, never an error."""
    handover = _handed_over(environ)
    activated, names = _activated(environ)
    if handover is None:
        return Inherited(activated, names)
    environ.update(handover.environ)
    sockets = tuple(each for each in handover.sockets if _keep(each.fd))
    lock = handover.lock if _keep(handover.lock, socket=False) else None
    return Inherited((*sockets, *activated), names | frozenset(handover.stored), lock, handover.predecessor)


def fd_name(pool: str, fd: int) -> str:
    """The name of a socket in the fd store.  Inodes of sockets are unique as long as they are open."""
    return f"{pool}@{os.fstat(fd).st_ino}"


def _handed_over(environ: MutableMapping[str, str]) -> HandOver | None:
    text = environ.pop(HANDOVER_ENV, "")
    if not text:
        return None
    try:
        found = msgspec.json.decode(text, type=HandOver)
    except msgspec.DecodeError:
        return None
    return found if found.version == HANDOVER_VERSION else None


def _activated(environ: MutableMapping[str, str]) -> tuple[tuple[Socket, ...], frozenset[str]]:
    meant = environ.pop("LISTEN_PID", "")
    count = environ.pop("LISTEN_FDS", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if meant != str(os.getpid()) or not count.isdecimal():
        return (), frozenset()
    sockets: list[Socket] = []
    stored: set[str] = set()
    for index in range(int(count)):
        name = names[index] if index < len(names) else ""
        fd = _FIRST_FD + index
        if not _keep(fd):
            continue
        ours = _is_ours(name, fd)
        sockets.append(Socket(fd, name.partition("@")[0] if ours else "", foreign=not ours))
        if ours:
            stored.add(name)
    return tuple(sockets), frozenset(stored)


def _is_ours(name: str, fd: int) -> bool:
    return name.rpartition("@")[2] == str(os.fstat(fd).st_ino)


def _keep(fd: int, *, socket: bool = True) -> bool:
    """Make it ours alone; False when there is no such descriptor, or it is no socket where one was told."""
    try:
        found = os.fstat(fd)
        os.set_inheritable(fd, False)
    except OSError:
        return False
    return stat.S_ISSOCK(found.st_mode) == socket
