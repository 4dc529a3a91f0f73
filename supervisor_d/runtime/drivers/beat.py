"""Celery beat: ready by its agent's word, and what it says of its lease.

    {"ready": true}                                     its schedule is loaded
    {"ready": true, "standby": true, "why": "..."}      the same, and another host's turn
    {"ready": true, "lease": "held"}                    its turn; said again with each renewal
    {"lease": "lost", "why": "..."}                     it ends, without sending any more
    {"lease": "second", "why": "..."}                   it ends: another beat on this host has the schedule

All of it is data: bounded, and for people.  What beat says again and again is told on when it changes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from supervisor_d.core.events import Remarked, StepDone
from supervisor_d.core.process import Process
from supervisor_d.core.spec import Launch
from supervisor_d.runtime.drivers.base import DriverReady
from supervisor_d.runtime.host import Emit

WHY_MAX = 200
_LEASE = {
    "held": "holds the lease",
    "lost": "gave the lease up",
    "second": "refuses to be a second beat",
}


@dataclass(slots=True)
class Beat:
    """One beat and its last words."""

    pid: int
    remark: str = ""


class BeatDriver:
    """Looks after beat, which has no workers: it only listens."""

    def __init__(self, emit: Emit, ready: DriverReady) -> None:
        self._emit = emit
        self._ready = ready
        self._beats: dict[str, Beat] = {}

    def started(self, process: Process, launch: Launch, private_dir: str) -> None:
        """Without an agent, beat is ready as soon as it runs."""
        if process.pid is None:
            return
        self._beats[process.id] = Beat(process.pid)
        if not launch.agent:
            self._ready(process.id)

    def told(self, process_id: str, text: str) -> None:
        """The agent's word; that of any process but the main one is ignored."""
        beat = self._beats.get(process_id)
        said = _said(text)
        if beat is None or said.get("pid") != beat.pid:
            return
        remark = _remark(said)
        if remark != beat.remark:
            beat.remark = remark
            self._emit(Remarked(process_id, remark))
        if said.get("ready") is True:
            self._ready(process_id)

    def scale(self, process_id: str, workers: int) -> None:
        """Beat is one; the core never asks."""

    def step(self, process_id: str, word: str, step: int) -> None:
        """Beat stops by signals alone."""
        self._emit(StepDone(process_id, step))

    def stopping(self, process_id: str) -> None:
        """Beat has no work in hand."""

    def stacks(self, process_id: str) -> None:
        """Beat is never found stuck."""

    def cut_off(self, process_id: str) -> None:
        """Beat is asked nothing."""

    def ended(self, process_id: str) -> None:
        """Forget it."""
        self._beats.pop(process_id, None)

    def close(self) -> None:
        """Nothing is held."""


def _said(text: str) -> Mapping[str, Any]:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _remark(said: Mapping[str, Any]) -> str:
    lease = said.get("lease")
    words = "stands by" if said.get("standby") is True else _LEASE.get(lease, "") if isinstance(lease, str) else ""
    why = said.get("why")
    if not words or not isinstance(why, str) or not why:
        return words
    shown = "".join(char if char.isprintable() else "?" for char in why[:WHY_MAX])
    return f"{words}: {shown}"
