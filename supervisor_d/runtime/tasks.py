"""Background work whose failure nobody awaits: it must end the daemon, not vanish."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine


def begin(work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
    """Run `work` as a task.  An unexpected exception of it goes to the loop's exception handler, which is the daemon's
    (crash-only: end, be started again, adopt); asyncio alone would tell only when the task is garbage.
    """
    task = asyncio.get_running_loop().create_task(work, name=name)
    task.add_done_callback(_done)
    return task


def _done(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        context = {"message": f"{task.get_name()} failed", "exception": error, "task": task}
        task.get_loop().call_exception_handler(context)
