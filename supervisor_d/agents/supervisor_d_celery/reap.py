"""A pool process that was killed is noticed at once, and so its message is back at once.

Celery watches a pipe that the end of a process closes, and looks once whether the process has ended.  The kernel closes
what a process had open before it tells the parent of the end (do_exit in kernel/exit.c: exit_files, then exit_notify),
so that this one look often comes too early, the more so on a busy machine; the next is that of a timer, up to five
seconds later (celery/concurrency/asynpool.py, `_event_process_exit`).  So we look again until the end is seen.
"""

from __future__ import annotations

from typing import Any

AGAIN_SECONDS = 0.02
TRIES = 100


def install() -> None:
    """Hook into what is called when the pipe of a pool process closes."""
    from celery.concurrency.asynpool import AsynPool

    pool_class: Any = AsynPool
    original = pool_class._event_process_exit

    def event_process_exit(pool: Any, hub: Any, process: Any) -> None:
        original(pool, hub, process)
        _look_again(pool, hub, process, TRIES)

    pool_class._event_process_exit = event_process_exit


def _look_again(pool: Any, hub: Any, process: Any, tries: int) -> None:
    if tries > 0 and process in pool._pool:
        hub.call_later(AGAIN_SECONDS, _look, pool, hub, process, tries - 1)


def _look(pool: Any, hub: Any, process: Any, tries: int) -> None:
    pool.maintain_pool()
    _look_again(pool, hub, process, tries)
