"""Celery beat: ready by its agent's word, which comes once the schedule is loaded."""

from __future__ import annotations

from supervisor_d.core.events import StepDone
from supervisor_d.core.process import Process
from supervisor_d.core.spec import Launch
from supervisor_d.runtime.drivers.agent import Hello, understood
from supervisor_d.runtime.drivers.base import DriverReady
from supervisor_d.runtime.host import Emit


class BeatDriver:
    """Looks after beat, which has no workers: it only waits for the agent's word."""

    def __init__(self, emit: Emit, ready: DriverReady) -> None:
        self._emit = emit
        self._ready = ready
        self._pids: dict[str, int] = {}

    def started(self, process: Process, launch: Launch, private_dir: str) -> None:
        """Without an agent, beat is ready as soon as it runs."""
        if process.pid is None:
            return
        self._pids[process.id] = process.pid
        if not launch.agent:
            self._ready(process.id)

    def told(self, process_id: str, text: str) -> None:
        """The agent's word."""
        pid = self._pids.get(process_id)
        if pid is not None and isinstance(understood(text, pid), Hello):
            self._ready(process_id)

    def scale(self, process_id: str, workers: int) -> None:
        """Beat is one; the core never asks."""

    def step(self, process_id: str, word: str, step: int) -> None:
        """Beat stops by signals alone."""
        self._emit(StepDone(process_id, step))

    def stopping(self, process_id: str) -> None:
        """Beat has no work in hand."""

    def cut_off(self, process_id: str) -> None:
        """Beat is asked nothing."""

    def ended(self, process_id: str) -> None:
        """Forget it."""
        self._pids.pop(process_id, None)

    def close(self) -> None:
        """Nothing is held."""
