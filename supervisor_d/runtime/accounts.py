"""Whom a process runs as: names to numbers, by the host's name service, before anything is asked of the zygote."""

from __future__ import annotations

import grp
import os
import pwd

from supervisor_d.errors import PrepareError
from supervisor_d.shim.wire import Account


def find_account(user: str, group: str) -> Account | None:
    """The account for a pool's `user` and `group`, names or numbers; None for the daemon's own.

    Raises PrepareError for a name that nobody has, and for another's account when we are not root.
    """
    if not user and not group:
        return None
    entry = _user(user) if user else pwd.getpwuid(os.geteuid())
    gid = _group(group) if group else entry.pw_gid
    own = (os.geteuid(), os.getegid())
    if os.geteuid() != 0:
        if (entry.pw_uid, gid) == own:
            return None
        raise PrepareError(
            f"cannot run as user {entry.pw_name}, group {gid}: the daemon is user {own[0]}, not root",
            hint="leave out `user` and `group`, or run the daemon as root",
        )
    return Account(uid=entry.pw_uid, gid=gid, groups=os.getgrouplist(entry.pw_name, gid))


def _user(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)
    except KeyError:
        raise PrepareError(f"cannot run as user {name}: this host has no such user") from None


def _group(name: str) -> int:
    try:
        return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise PrepareError(f"cannot run as group {name}: this host has no such group") from None
