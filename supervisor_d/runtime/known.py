"""What is known of one process, folded from the facts of its shim: pure, and the same for a link and for a record.

A fact may come twice (from the record at adoption, then from the link's replay): it yields its event once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from supervisor_d.core.events import Event, MainExited, ShimReplaced, Spawned, SpawnFailed, TreeEmptied
from supervisor_d.core.process import Exit
from supervisor_d.shim.wire import Identity, Message, identity_of


@dataclass(slots=True)
class Known:
    """All that a shim, or its record, has told."""

    process_id: str
    program: str
    shim: Identity | None = None
    main: Identity | None = None
    in_cgroup: bool = False
    opened: bool = False
    started: bool = False
    failure: SpawnFailed | None = None
    exit: Exit | None = None
    emptied: TreeEmptied | None = None
    keepers: set[Identity] = field(default_factory=set)
    """Shims in adopt mode, one after the other; the tree below such a one is the daemon's to end."""
    dropped_bytes: int = 0

    @property
    def over(self) -> bool:
        """Nothing is left of the process, and nothing more can become known."""
        return self.failure is not None or self.emptied is not None

    def fold(self, fact: Message) -> Event | None:
        """Take note of a fact.  Returns its event, the first time.  Raises ValueError for one that makes no sense."""
        match fact:
            case {"event": "began"} if self.shim is None:
                self.shim = identity_of(fact)
            case {"event": "replaced"}:
                return self.replaced(identity_of(fact))
            case {"event": "forked"}:
                self.main = identity_of(fact)
                self.in_cgroup = fact.get("cgroup") is True
            case {"event": "opened"}:
                self.opened = True
            case {"event": "started"} if not self.started:
                return self.spawned()
            case {"event": "failed", "step": str(step), "errno": int(number)} if not self.over:
                return self.spawn_failed(f"{step}: {os.strerror(number)}")
            case {"event": "exited", "status": int(status)} if self.exit is None:
                return self.exited(exit_of(status))
            case {"event": "exited", "status": None} if self.exit is None:
                return self.exited(Exit())
            case {"event": "emptied", "killed": int(killed)} if not self.over:
                return self.tree_emptied(killed, proven=True)
            case {"event": "dropped", "bytes": int(dropped)}:
                self.dropped_bytes = max(self.dropped_bytes, dropped)
        return None

    def replaced(self, shim: Identity) -> ShimReplaced | None:
        """A shim in adopt mode took over; told once of each."""
        if shim in self.keepers:
            return None
        self.keepers.add(shim)
        self.shim = shim
        return ShimReplaced(self.process_id)

    def spawned(self) -> Spawned:
        """Its program runs."""
        if self.main is None:
            raise ValueError("started before it was forked")
        self.started = True
        return Spawned(self.process_id, self.main.pid)

    def spawn_failed(self, reason: str) -> SpawnFailed:
        """Its program does not run and never will."""
        self.failure = SpawnFailed(self.process_id, f"cannot start {self.program}: {reason}")
        return self.failure

    def exited(self, how: Exit) -> MainExited:
        """Its main process ended."""
        self.exit = how
        return MainExited(self.process_id, how)

    def tree_emptied(self, killed: int, *, proven: bool) -> TreeEmptied:
        """Nothing of it is left."""
        self.emptied = TreeEmptied(self.process_id, proven, killed)
        return self.emptied


def exit_of(status: int) -> Exit:
    """An Exit from a wait status."""
    code = os.waitstatus_to_exitcode(status)
    return Exit(code=code) if code >= 0 else Exit(signal=-code)


def known_from(process_id: str, spec: Mapping[str, Any], facts: list[Message]) -> Known:
    """What a record tells, its events already history; a fact that makes no sense is skipped."""
    known = Known(process_id, spec["argv"][0])
    for fact in facts:
        try:
            known.fold(fact)
        except ValueError:
            continue
    return known
