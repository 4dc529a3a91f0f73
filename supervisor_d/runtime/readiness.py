"""Joins what must be true before a process is ready, and says BecameReady exactly once when all of it is.

    exec succeeded   the host said Spawned: nothing starts to be awaited before that
    the driver       for programs with `ready_by="driver"`: the program's own word
    the probes       every `ready:` entry of the pool answered

Worked example, gunicorn with `ready: {http: /healthz}` during a rollout: the old generation answers the probe at once,
since both share the listener, but the driver waits for the new workers' heartbeats.  BecameReady comes with the later
of the two.
"""

from __future__ import annotations

from enum import Flag, auto

from supervisor_d.core.events import BecameReady
from supervisor_d.runtime.host import Emit


class Condition(Flag):
    """What a process may still have to wait for."""

    NONE = 0
    DRIVER = auto()
    PROBES = auto()


class Readiness:
    """What every starting process still waits for."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._missing: dict[str, Condition] = {}

    def began(self, process_id: str, missing: Condition) -> None:
        """A process was exec'd and waits for `missing`; with nothing missing it is ready now."""
        self._missing[process_id] = missing
        self._settle(process_id)

    def driver_ready(self, process_id: str) -> None:
        """The program itself says that it may serve."""
        self._fulfil(process_id, Condition.DRIVER)

    def probes_ready(self, process_id: str) -> None:
        """Every probe answered."""
        self._fulfil(process_id, Condition.PROBES)

    def ended(self, process_id: str) -> None:
        """The process will not become ready any more."""
        self._missing.pop(process_id, None)

    def _fulfil(self, process_id: str, condition: Condition) -> None:
        missing = self._missing.get(process_id)
        if missing is None or not missing & condition:
            return
        self._missing[process_id] = missing & ~condition
        self._settle(process_id)

    def _settle(self, process_id: str) -> None:
        if self._missing.get(process_id) is Condition.NONE:
            del self._missing[process_id]
            self._emit(BecameReady(process_id))
