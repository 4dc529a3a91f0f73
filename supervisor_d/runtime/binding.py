"""One listening socket: bound safely, adopted from a former daemon, changed in place, closed without a trace.

A unix socket is a file in a directory that others may be able to write to, so its name is never trusted twice: the
file is opened once without following a link (O_PATH | O_NOFOLLOW), and owner and mode are changed through that
descriptor.  It is created with its final mode (by the umask) and listens only once its owner is right.  A name that is
taken is unlinked only when it is a socket that refuses connections: nobody listens any more.
"""

from __future__ import annotations

import errno
import grp
import ipaddress
import os
import pwd
import socket
import stat
from contextlib import suppress
from dataclasses import dataclass

from supervisor_d.core.spec import Listener
from supervisor_d.errors import PrepareError
from supervisor_d.programs.addresses import Address, parse_address

_HINTS = {
    errno.EADDRINUSE: "`ss -ltnp` shows who has it; stop that, or choose another address",
    errno.EADDRNOTAVAIL: "no interface of this machine has that address; 0.0.0.0 means all of them",
    errno.ENOENT: "create the directory first, for the user that the daemon runs as",
    errno.ENOTDIR: "create the directory first, for the user that the daemon runs as",
    errno.EROFS: "choose a path below /run",
}
_PRIVILEGED_HINT = "ports below 1024 need root; let systemd bind it (a socket unit), or listen higher behind a proxy"
_OWNER_HINT = "only root may give a socket to another user; drop `owner:` and `group:`, or run the daemon as root"


@dataclass(slots=True)
class Bound:
    """A listening socket of ours.  `inode` is (device, inode) of a unix socket's file, to unlink no other.

    One that is `foreign` was bound by systemd; its file is left alone.
    """

    socket: socket.socket
    address: Address
    listener: Listener
    inode: tuple[int, int] | None = None
    foreign: bool = False

    @property
    def fd(self) -> int:
        return self.socket.fileno()

    @classmethod
    def adopt(cls, fd: int, listener: Listener, *, foreign: bool = False) -> Bound:
        """Take over an open descriptor of which `listens_as` holds.

        Owner and mode of its file are taken to be right: a former daemon saw to that.
        """
        taken = socket.socket(fileno=fd)
        taken.set_inheritable(False)
        actual = _address_of(taken) or Address()
        host = parse_address(listener.address).host
        inode = None if foreign else _inode(actual.path)
        return cls(taken, Address(host, actual.port, actual.path), listener, inode, foreign)

    def check(self, listener: Listener) -> None:
        """Whether `change` could be made.  Raises PrepareError."""
        owner = (listener.owner, listener.group)
        if owner not in ((self.listener.owner, self.listener.group), ("", "")):
            _owner(listener)
            if os.geteuid() != 0:
                raise _refused(listener, "its owner cannot be changed", _OWNER_HINT)

    def change(self, listener: Listener) -> None:
        """Apply another backlog, mode or owner to a socket that goes on listening."""
        if listener == self.listener:
            return
        with suppress(OSError):
            self.socket.listen(listener.backlog)
        if self.inode is not None and _inode(self.address.path) == self.inode:
            with suppress(OSError, PrepareError):  # `check` passed; what failed since then leaves the former owner
                _hand_over(self.address.path, listener, mode=listener.mode)
        self.listener = listener

    def listen(self, backlog: int) -> None:
        """Set the length of the queue; a kernel that refuses leaves it as it is."""
        with suppress(OSError):
            self.socket.listen(backlog)

    def close(self, *, unlink: bool) -> None:
        """Close our descriptor (processes that inherited it keep theirs) and remove the file if it is still ours."""
        if unlink and self.inode is not None and _inode(self.address.path) == self.inode:
            with suppress(OSError):
                os.unlink(self.address.path)
        self.socket.close()


def listens_as(fd: int, listener: Listener, *, exactly: bool = False) -> bool:
    """Whether an open descriptor is a stream socket that listens where `listener` says: as far as can be told, since a
    name (`localhost`) may stand for any host and a port of 0 for any port; or `exactly`, by host and port alike."""
    try:
        asked = socket.socket(fileno=fd)
    except OSError:
        return False
    try:
        actual = _address_of(asked)
        listens = bool(asked.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
        wanted = parse_address(listener.address)
        if exactly and not wanted.path and (wanted.port == 0 or _number(wanted.host) is None):
            return False
        return listens and actual is not None and _same(actual, wanted)
    except OSError:
        return False
    finally:
        asked.detach()


def bind(listener: Listener) -> Bound:
    """A new socket that listens as `listener` says.  Raises PrepareError."""
    address = parse_address(listener.address)
    try:
        return _bind_unix(address, listener) if address.path else _bind_tcp(address, listener)
    except OSError as error:
        privileged = error.errno == errno.EACCES and not address.path and address.port < 1024
        hint = _PRIVILEGED_HINT if privileged else _HINTS.get(error.errno or 0, "")
        raise _refused(listener, error.strerror or str(error), hint) from error


def _refused(listener: Listener, reason: str, hint: str) -> PrepareError:
    return PrepareError(f"cannot listen on {listener.address}: {reason[:1].lower()}{reason[1:]}", hint=hint)


def _bind_tcp(address: Address, listener: Listener) -> Bound:
    host = address.host or "0.0.0.0"  # noqa: S104  what the operator wrote as `:8000`
    found = socket.getaddrinfo(host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, where = found[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(where)
        bound.listen(listener.backlog)
        return Bound(bound, Address(address.host, bound.getsockname()[1]), listener)
    except BaseException:
        bound.close()
        raise


def _bind_unix(address: Address, listener: Listener) -> Bound:
    _remove_stale(address.path, listener)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    inode = None
    try:
        umask = os.umask(0o777 & ~listener.mode)
        try:
            bound.bind(address.path)
        finally:
            os.umask(umask)
        inode = _inode(address.path)
        _hand_over(address.path, listener)
        bound.listen(listener.backlog)
        return Bound(bound, address, listener, inode)
    except BaseException:
        Bound(bound, address, listener, inode).close(unlink=True)
        raise


def _remove_stale(path: str, listener: Listener) -> None:
    """Unlink a socket that nobody listens on.  Raises PrepareError for anything else that has the name."""
    found = _lstat(path)
    if found is None:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise _refused(listener, "a file that is no socket has that name", "remove it, or choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        if probe.connect_ex(path) != errno.ECONNREFUSED:
            raise _refused(listener, "another program listens there", "`ss -lxp` shows who; stop that first")
    os.unlink(path)


def _hand_over(path: str, listener: Listener, *, mode: int | None = None) -> None:
    """Set owner, group and (unless None) mode of a socket's file."""
    uid, gid = _owner(listener)
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            raise _refused(listener, "its file was replaced", "its directory must not be writable for others")
        if uid != -1 or gid != -1:
            os.chown(f"/proc/self/fd/{fd}", uid, gid)
        if mode is not None:
            os.chmod(f"/proc/self/fd/{fd}", mode)
    except PermissionError as error:
        raise _refused(listener, f"its owner cannot be changed: {error.strerror}", _OWNER_HINT) from error
    finally:
        os.close(fd)


def _owner(listener: Listener) -> tuple[int, int]:
    """(uid, gid) to give a socket to, from names or numbers; -1 leaves one as it is."""
    uid, gid = -1, -1
    try:
        if listener.owner:
            uid = int(listener.owner) if listener.owner.isdecimal() else pwd.getpwnam(listener.owner).pw_uid
    except KeyError:
        raise _refused(listener, f"there is no user {listener.owner!r}", "see `owner:`") from None
    try:
        if listener.group:
            gid = int(listener.group) if listener.group.isdecimal() else grp.getgrnam(listener.group).gr_gid
    except KeyError:
        raise _refused(listener, f"there is no group {listener.group!r}", "see `group:`") from None
    return uid, gid


def _lstat(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None


def _inode(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path) if path else None
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if found and stat.S_ISSOCK(found.st_mode) else None


def _address_of(bound: socket.socket) -> Address | None:
    """Where a socket is bound; None for what is no stream socket of ours."""
    if bound.type != socket.SOCK_STREAM:
        return None
    where = bound.getsockname()
    if bound.family == socket.AF_UNIX:
        return Address(path=where) if isinstance(where, str) and where else None
    return Address(where[0], where[1]) if bound.family in (socket.AF_INET, socket.AF_INET6) else None


def _same(actual: Address, wanted: Address) -> bool:
    """Whether a bound address is what was wanted; a name (`localhost`) is held to be right, a port of 0 is any."""
    if actual.path or wanted.path:
        return actual.path == wanted.path
    return wanted.port in (0, actual.port) and _number(wanted.host) in (None, _number(actual.host))


def _number(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host or "0.0.0.0")  # noqa: S104  what `:8000` means
    except ValueError:
        return None
