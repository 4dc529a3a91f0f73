"""Who is calling, and what may they do: peer credentials and the rules they meet.

The kernel notes a peer's uid, gid and groups at connect(2) (unix(7), SO_PEERCRED and SO_PEERGROUPS); nothing that the
caller sends is asked.  The first rule that fits decides:

    root, or the daemon's own user       admin
    a user named in `control.readers`    read
    a user named in `control.operators`  operate
    a member of `control.group`          operate
    anybody else                         denied

So a reader who is in the group as well stays a reader.
"""

from __future__ import annotations

import grp
import os
import pwd
import socket
import struct
from dataclasses import dataclass
from typing import Protocol

from supervisor_d.api.service import Caller, Level
from supervisor_d.errors import PrepareError

_SO_PEERGROUPS = 59
_PYTHON_OPTION_BYTES = 1024
"""The most that socket.getsockopt can return: 256 groups."""
_CREDENTIALS = struct.Struct("iII")


@dataclass(frozen=True, slots=True)
class Peer:
    """What the kernel says of the other end of a unix socket."""

    pid: int
    uid: int
    gid: int
    groups: frozenset[int]


@dataclass(frozen=True, slots=True)
class AccessRules:
    """Uids and the gid that the config's names stand for; `daemon_uid` is the daemon's own."""

    daemon_uid: int
    operators: frozenset[int] = frozenset()
    readers: frozenset[int] = frozenset()
    group: int | None = None

    def level(self, peer: Peer) -> Level:
        """What the peer may do."""
        if peer.uid in (0, self.daemon_uid):
            return Level.ADMIN
        if peer.uid in self.readers:
            return Level.READ
        if peer.uid in self.operators or (self.group is not None and self.group in peer.groups | {peer.gid}):
            return Level.OPERATE
        return Level.DENIED

    def caller(self, peer: Peer) -> Caller:
        """The peer with its name and level."""
        return Caller(peer.uid, peer.gid, peer.pid, user_name(peer.uid), self.level(peer))


class ControlNames(Protocol):
    """The keys under `daemon: control:`."""

    @property
    def group(self) -> str: ...

    @property
    def operators(self) -> tuple[str, ...]: ...

    @property
    def readers(self) -> tuple[str, ...]: ...


def resolve_rules(control: ControlNames, *, daemon_uid: int | None = None) -> AccessRules:
    """Rules out of the names under `daemon: control:`.

    Raises PrepareError for a user or group that the machine does not know, and for a user who is both operator and
    reader.
    """
    uids = {name: _uid(name, "operators") for name in control.operators}
    reading = {name: _uid(name, "readers") for name in control.readers}
    both = sorted(uids.keys() & reading.keys())
    if both:
        raise PrepareError(f"cannot let {both[0]} in: named under both control.operators and control.readers")
    return AccessRules(
        daemon_uid=os.geteuid() if daemon_uid is None else daemon_uid,
        operators=frozenset(uids.values()),
        readers=frozenset(reading.values()),
        group=_gid(control.group) if control.group else None,
    )


def _uid(name: str, key: str) -> int:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise PrepareError(f"cannot let {name!r} in (control.{key}): no such user on this machine") from None


def _gid(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        hint = f"create it with: groupadd --system {name}"
        raise PrepareError(f"cannot open the control socket to group {name!r}: no such group", hint=hint) from None


def peer_of(connection: socket.socket) -> Peer:
    """The peer's credentials as they were at its connect.  Raises OSError for a connection that is already gone."""
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(data)
    return Peer(pid, uid, gid, _groups(connection, uid, gid))


def _groups(connection: socket.socket, uid: int, gid: int) -> frozenset[int]:
    try:
        data = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _PYTHON_OPTION_BYTES)
        return frozenset(struct.unpack(f"{len(data) // 4}I", data))
    except OSError:  # more groups than fit, or a kernel before 4.13: what the group database says
        try:
            return frozenset(os.getgrouplist(pwd.getpwuid(uid).pw_name, gid))
        except KeyError:
            return frozenset()


def user_name(uid: int) -> str:
    """The name of a user, or `uid 1234` for one without."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
