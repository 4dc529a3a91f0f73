"""The control socket's file: who can open it at all, before anybody is asked who they are.

`control.sock` is 0660 in a directory of its own that is 0750, both of the configured group.  Operators and readers who
are not in that group are let in by name, through a POSIX access list (acl(5)) on the directory and the socket.  The
file never has wider rights than it ends with: it is created 0600 and opened up afterwards.

A socket file that is already there is removed only by the holder of the daemon's lock, and only when nobody answers.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from supervisor_d.api.access import AccessRules, user_name
from supervisor_d.api.unix import with_short_path
from supervisor_d.errors import AlreadyRunningError, PrepareError

BACKLOG = 128

_ACL_VERSION = struct.pack("<I", 2)
_ACL_ENTRY = struct.Struct("<HHI")
_OWNER, _USER, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x10, 0x20
_NOBODY = 0xFFFFFFFF


def bind_control_socket(path: Path, rules: AccessRules) -> socket.socket:
    """A listening socket at `path`.  The caller holds the daemon's lock.

    Raises PrepareError when the path cannot be had, AlreadyRunningError when somebody answers there.
    """
    try:
        _own_directory(path.parent)
        _remove_stale(path)
        listener = _bound(path)
    except OSError as error:
        raise PrepareError(
            f"cannot open the control socket {path}: {error.strerror}",
            hint="set another `runtime_dir:` under `daemon:` in the config",
        ) from error
    try:
        _let_in(path.parent, rules, mode=0o750, named=0o1)
        _let_in(path, rules, mode=0o660, named=0o6)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        path.unlink(missing_ok=True)
        raise
    return listener


def remove_control_socket(path: Path) -> None:
    """Take the file away, at the daemon's end."""
    with suppress(OSError):
        path.unlink()


def _own_directory(directory: Path) -> None:
    directory.mkdir(mode=0o700, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise PrepareError(f"cannot use {directory} for the control socket: it is not a directory of the daemon's user")


def _remove_stale(path: Path) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise PrepareError(f"cannot open the control socket {path}: something else is there", hint="move it away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            with_short_path(str(path), probe.connect)
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
    raise AlreadyRunningError(f"cannot open the control socket {path}: another daemon answers there")


def _bound(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.setblocking(False)
    before = os.umask(0o177)
    try:
        with_short_path(str(path), listener.bind)
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(before)
    return listener


def _let_in(path: Path, rules: AccessRules, *, mode: int, named: int) -> None:
    """Give `path` its group, its mode and an access list for the users who are let in by name."""
    try:
        os.chown(path, -1, os.getegid() if rules.group is None else rules.group)
    except OSError as error:
        raise PrepareError(
            f"cannot give {path} to group {rules.group}: {error.strerror}",
            hint="run the daemon as root, or as a member of that group",
        ) from error
    users = sorted((rules.operators | rules.readers) - {0, rules.daemon_uid})
    _clear_access_list(path)
    path.chmod(mode)
    if not users:
        return
    try:
        os.setxattr(path, "system.posix_acl_access", _access_list(mode, users, named))
    except OSError as error:
        raise PrepareError(
            f"cannot let {user_name(users[0])} reach {path}: {error.strerror}",
            hint="use `control.group:` with these users as members: this file system has no access lists",
        ) from error


def _clear_access_list(path: Path) -> None:
    with suppress(OSError):
        os.removexattr(path, "system.posix_acl_access")


def _access_list(mode: int, users: Iterable[int], named: int) -> bytes:
    """The kernel's form of an access list (linux/posix_acl_xattr.h): little endian, entries in order of tag and id."""
    group = mode >> 3 & 7
    entries = [(_OWNER, mode >> 6 & 7, _NOBODY)]
    entries += [(_USER, named, uid) for uid in users]
    entries += [(_GROUP, group, _NOBODY), (_MASK, group | named, _NOBODY), (_OTHER, mode & 7, _NOBODY)]
    return _ACL_VERSION + b"".join(_ACL_ENTRY.pack(*entry) for entry in entries)
