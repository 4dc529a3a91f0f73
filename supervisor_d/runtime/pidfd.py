"""Processes by pidfd: opened for an identity, signalled, asked for their exit.

The order is what makes it safe: open the pidfd first, compare the identity afterwards, and signal through the pidfd
only.  A pid that was reused in between is then found out, and one that is reused later can't be meant.
"""

from __future__ import annotations

import fcntl
import os
import signal
import struct
from contextlib import suppress

from supervisor_d.shim.wire import Identity, identify

_PIDFD_GET_INFO = 0xC040FF0B
"""_IOWR(0xFF, 11, struct pidfd_info of 64 bytes), Linux 6.13; the exit since 6.15 (include/uapi/linux/pidfd.h)."""
_INFO = struct.Struct("<QQ11Ii")
_INFO_EXIT = 8


class ExitUnknownError(Exception):
    """This kernel never tells how a process ended whose parent we are not."""


def open_pidfd(identity: Identity) -> int | None:
    """A pidfd of the process of that identity, for the caller to close; None when it is gone."""
    try:
        pidfd = os.pidfd_open(identity.pid)
    except OSError:
        return None
    with suppress(OSError):
        if identify(identity.pid, pidfd) == identity:
            return pidfd
    os.close(pidfd)
    return None


def send(pidfd: int, number: int) -> None:
    """Signal the process, unless it has ended."""
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)


def exit_status(pidfd: int) -> int | None:
    """The wait status of a process that anybody reaped; None while it was not.

    Raises ExitUnknownError where the kernel can't tell.
    """
    info = bytearray(_INFO.size)
    struct.pack_into("<Q", info, 0, _INFO_EXIT)
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, info, True)
    except OSError as error:
        raise ExitUnknownError(str(error)) from error
    values = _INFO.unpack(info)
    return int(values[13]) if values[0] & _INFO_EXIT else None
