"""Small mercies for pool processes: memory shared with main, and main no candidate of the OOM killer.

`gc.freeze` before the first fork moves what exists out of the collector's sight, so that neither main's nor a pool
process's collections write to those pages: idle, 8 processes then have a third of the memory of their own.  Only until
the worker is ready: what is frozen later would be work in hand, and its cycles would never be freed.
"""

from __future__ import annotations

import gc
from typing import Any

OOM_SCORE_ADJ = 300
_OOM = "/proc/self/oom_score_adj"


class Freezer:
    """Freezes before each fork, until it is told to stop."""

    def __init__(self) -> None:
        self.thawed = False

    def install(self) -> None:
        """Hook into the worker's forks."""
        from celery.signals import worker_before_create_process

        worker_before_create_process.connect(self._before_fork, weak=False, dispatch_uid="supervisor_d.freeze")

    def _before_fork(self, **_: Any) -> None:
        if not self.thawed:
            gc.collect()
            gc.freeze()


def rather_us_than_main() -> None:
    """In each new pool process: raise its OOM score, which anybody may do."""
    from celery.signals import worker_process_init

    worker_process_init.connect(_raise_score, weak=False, dispatch_uid="supervisor_d.oom")


def _raise_score(**_: Any) -> None:
    try:
        with open(_OOM, "r+", encoding="ascii") as score:
            if int(score.read()) < OOM_SCORE_ADJ:
                score.seek(0)
                score.write(str(OOM_SCORE_ADJ))
    except (OSError, ValueError):
        return
