"""Whether a pool that is to be scaled up would fork its new workers from other code than it was started with."""

from __future__ import annotations

import asyncio

from supervisor_d.core.process import State
from supervisor_d.core.spec import PoolSpec
from supervisor_d.programs.registry import PROGRAMS
from supervisor_d.runtime.code_on_disk import changed_code
from supervisor_d.runtime.supervisor import Supervisor


async def code_changed(supervisor: Supervisor, spec: PoolSpec, workers: int) -> str:
    """What changed on disk since the process that would fork the new workers started, in words; empty when nothing did,
    when there are none to fork, and for a process that preloads: it forks what it has in memory.
    """
    pool = supervisor.intent.pools[spec.name]
    if not PROGRAMS[spec.program].traits.scale_in_place or getattr(spec.keys, "preload", False):
        return ""
    if not pool.running or pool.previous is not None or workers <= pool.wanted_workers:
        return ""
    ready = (process for process in supervisor.observed.pool(spec.name).serving if process.state is State.READY)
    oldest = min(ready, key=lambda process: process.began_at, default=None)
    if oldest is None or oldest.pid is None:
        return ""
    changed = await asyncio.to_thread(changed_code, spec.cwd, oldest.pid)
    return changed.replace("since it started", f"since g{oldest.generation} started", 1)
