"""supervisor-d's agent in Celery: a guest in the main process of a worker.

A guest in somebody else's process: it depends on nothing but Celery, raises nothing into the application, never
blocks, opens and closes nothing of the application's, and does nothing at all where supervisor-d did not start it.

A worker imports it with `-I supervisor_d_celery_agent`.  `python -m supervisor_d_celery_agent --restore DIR` gives back
the messages of a worker that died (module restore).

What it does in a worker stands in the package beside this file, supervisor_d_celery.  Written for every Python that
Celery runs on, which need not be the daemon's.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from supervisor_d_celery import wire

_ENV = wire.FD_ENV
_wire = wire.Wire(wire.adopt(os.environ.pop(_ENV, None)))
_fd = _wire.fd
_directory = os.environ.pop(wire.DIR_ENV, None)
tell = _wire.tell


def _move_in(sender: Any = None, **_: Any) -> None:
    """worker_init: the application is loaded, its settings are known, and nothing of the worker is built."""
    if os.getpid() != _wire.main:
        return
    from supervisor_d_celery.guest import move_in

    move_in(_wire, _directory, sender)


def _connect() -> None:
    from celery.signals import worker_init

    worker_init.connect(_move_in, weak=False, dispatch_uid="supervisor_d.init")


if _fd >= 0:
    _connect()

if __name__ == "__main__":
    from supervisor_d_celery.restore import main

    sys.exit(main(sys.argv[2:] if sys.argv[1:2] == ["--restore"] else []))
