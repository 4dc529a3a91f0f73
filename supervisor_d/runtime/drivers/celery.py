"""Celery workers: ready by their agent's word, pool processes counted in /proc.

The agent (supervisor_d/agents/) says `{"ready": true, "pid": N}` once the worker consumes.
Pool processes are those children of the main process that were forked and never exec'd: their command line is the
main's own, or the title that Celery gives them where setproctitle is installed.  Whatever else the application starts
from its main process is not a worker.
"""

from __future__ import annotations

import json

from supervisor_d.runtime.drivers.counting import Counted, CountingDriver
from supervisor_d.runtime.proc import children_of

_TITLE = b"[celeryd:"
"""celery.platforms.set_process_title"""
_CMDLINE_BYTES = 4096


class CeleryDriver(CountingDriver):
    """Looks after Celery's main processes and their prefork pools."""

    def told(self, process_id: str, text: str) -> None:
        """The agent's word; that of any process but the main one is ignored."""
        counted = self._processes.get(process_id)
        if counted is not None and says_ready(text, counted.pid):
            counted.told_ready = True
            counted.disturbed.set()

    async def _look(self, counted: Counted) -> bool:
        if counted.launch.agent and not counted.told_ready:
            return True  # nothing to do before it speaks, and speaking is a disturbance
        live = sum(self._members.follow(counted.id, counted.pid, pid) for pid in pool_processes(counted.pid))
        self._report(counted, live, live)
        self._ready(counted.id)
        return live == counted.wanted


def says_ready(text: str, pid: int) -> bool:
    """Whether a datagram is the agent's word that the main process `pid` is ready."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(said, dict) and said.get("ready") is True and said.get("pid") == pid


def pool_processes(main: int) -> frozenset[int]:
    """The pool processes of a Celery main process; empty when it is gone."""
    own = _cmdline(main)
    return frozenset(pid for pid in children_of(main) if _is_pool_process(_cmdline(pid), own))


def _is_pool_process(cmdline: bytes, main_cmdline: bytes) -> bool:
    return bool(cmdline) and (cmdline == main_cmdline or cmdline.startswith(_TITLE))


def _cmdline(pid: int) -> bytes:
    """The first bytes of a command line; empty for what is gone, or a zombie."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as cmdline:
            return cmdline.read(_CMDLINE_BYTES)
    except OSError:
        return b""
