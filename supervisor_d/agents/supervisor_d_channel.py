"""One datagram at a time from somebody else's process to supervisor-d: what an agent says.

A guest: it depends on nothing, raises nothing, never blocks, and says nothing where supervisor-d did not start the
process.  Written for every Python that the user's project runs on, which need not be the daemon's.
"""

import json
import os
import socket

ENV = "SUPERVISOR_D_AGENT_FD"
_TYPES = (socket.SOCK_DGRAM, socket.SOCK_SEQPACKET)


def _adopt_socket() -> int:
    """The descriptor of the daemon's socket, or -1.

    The variable is removed and the descriptor closed on exec: for a program that a task starts, the same number would
    be something else.
    """
    try:
        fd = int(os.environ.pop(ENV, ""))
        probe = socket.socket(fileno=fd)
    except (ValueError, OSError):
        return -1
    try:
        if probe.family != socket.AF_UNIX or probe.type not in _TYPES:
            return -1
        os.set_inheritable(fd, False)
        return fd
    except OSError:
        return -1
    finally:
        probe.detach()


fd = _adopt_socket()
_main = os.getpid()


def tell(**facts: object) -> None:
    """Send one datagram; whatever hinders it is ignored.  Forked children, which inherit the socket, say nothing."""
    if fd < 0 or os.getpid() != _main:
        return
    try:
        peer = socket.socket(fileno=fd)
        try:
            peer.send(json.dumps(dict(facts, pid=_main)).encode("ascii"), socket.MSG_DONTWAIT)
        finally:
            peer.detach()
    except OSError:
        return
