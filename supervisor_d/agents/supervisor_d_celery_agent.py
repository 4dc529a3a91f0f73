"""Tells supervisor-d, from inside Celery, that a worker consumes or that beat has loaded its schedule.

A guest in somebody else's process: it depends on nothing but Celery, raises nothing into the application, never
blocks, opens and closes nothing of the application's, and does nothing at all where supervisor-d did not start it.

A worker imports it with `-I supervisor_d_celery_agent`.  `celery beat` has no -I; there it is the command itself:
`python -m supervisor_d_celery_agent -A app beat ...` is `celery -A app beat ...` with one signal connected.

Written for every Python that Celery runs on, which need not be the daemon's.
"""

import json
import os
import socket
import sys

_ENV = "SUPERVISOR_D_AGENT_FD"
_DOMAIN_AND_TYPE = (socket.AF_UNIX, socket.SOCK_DGRAM)


def _adopt_socket() -> int:
    """The descriptor of the daemon's socket, or -1.

    The variable is removed and the descriptor closed on exec: for a program that a task starts, the same number would
    be something else.
    """
    try:
        fd = int(os.environ.pop(_ENV, ""))
        probe = socket.socket(fileno=fd)
    except (ValueError, OSError):
        return -1
    try:
        if (probe.family, probe.type) != _DOMAIN_AND_TYPE:
            return -1
        os.set_inheritable(fd, False)
        return fd
    except OSError:
        return -1
    finally:
        probe.detach()


_fd = _adopt_socket()
_main = os.getpid()


def tell(**facts: object) -> None:
    """Send one datagram; whatever hinders it is ignored.  Pool processes, which inherit the socket, say nothing."""
    if _fd < 0 or os.getpid() != _main:
        return
    try:
        peer = socket.socket(fileno=_fd)
        try:
            peer.send(json.dumps(dict(facts, pid=_main)).encode("ascii"), socket.MSG_DONTWAIT)
        finally:
            peer.detach()
    except OSError:
        return


def _ready(**_: object) -> None:
    tell(ready=True)


def _connect() -> None:
    from celery.signals import beat_init, worker_ready

    worker_ready.connect(_ready, weak=False, dispatch_uid="supervisor_d.ready")
    # beat_embedded_init speaks of `worker -B` and does not concern us; beat_init is sent there as well, but by a
    # process of its own, which `tell` keeps silent.
    beat_init.connect(_ready, weak=False, dispatch_uid="supervisor_d.ready")


if _fd >= 0:
    _connect()

if __name__ == "__main__":
    from celery.__main__ import main

    sys.argv[0] = "celery"
    main()
