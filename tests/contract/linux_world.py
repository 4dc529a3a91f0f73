"""The contract's world of real processes: LinuxHost in a directory of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from supervisor_d.core.events import Event, Spawned, SpawnFailed, TreeEmptied
from supervisor_d.core.spec import Launch
from supervisor_d.runtime.linux import Adoption, LinuxHost
from tests.contract.behaviours import BEHAVIOURS, of
from tests.support import procs
from tests.support.waiting import eventually

E = TypeVar("E", bound=Event)

PROGRAM = Path(__file__).with_name("program.py")
PATIENCE_SECONDS = 10.0
QUIET_SECONDS = 0.1


class LinuxWorld:
    """A World of real processes.  The mark of a tree is that its processes hold the process's FIFO."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.events: list[Event] = []
        self.told: list[tuple[str, str]] = []
        self._places = 0
        self._places_of: dict[str, Path] = {}
        self.host = self._new_host()

    def _new_host(self) -> LinuxHost:
        return LinuxHost(
            self.events.append,
            lambda process_id, text: self.told.append((process_id, text)),
            self.directory / "run",
            self.directory / "log",
            asyncio.get_running_loop(),
        )

    def launch(self, behaviour: str, *, orphan_grace_seconds: float = 0.0) -> Launch:
        what = BEHAVIOURS[behaviour]
        self._places += 1
        place = self.directory / f"in-place-{self._places}"
        executable = sys.executable if what.starts else str(self.directory / "missing")
        argv = (executable, "-I", "-S", str(PROGRAM), json.dumps(asdict(what)), str(place))
        return Launch(argv, {}, "/", log_name="pool.0", orphan_grace_seconds=orphan_grace_seconds, agent=what.echoes)

    async def wait_for(self, kind: type[E], process_id: str) -> E:
        def seen() -> E | None:
            return next((event for event in of(process_id, self.events) if isinstance(event, kind)), None)

        found = await eventually(seen, PATIENCE_SECONDS, f"{kind.__name__} of {process_id} in {self.events}")
        assert found
        return found

    async def in_place(self, process_id: str) -> int:
        spawned = await self.wait_for(Spawned, process_id)
        place = Path(self.spec(process_id)["argv"][-1])
        await eventually(place.exists, PATIENCE_SECONDS, f"the program of {process_id}")
        return spawned.pid

    async def settle(self) -> None:
        quiet_since, seen = asyncio.get_running_loop().time(), len(self.events)
        while asyncio.get_running_loop().time() - quiet_since < QUIET_SECONDS:
            await asyncio.sleep(0.01)
            if len(self.events) != seen:
                quiet_since, seen = asyncio.get_running_loop().time(), len(self.events)

    def record(self, process_id: str) -> Path:
        """The record's directory."""
        return self.directory / "run" / "processes" / process_id

    def spec(self, process_id: str) -> dict[str, list[str]]:
        """What stands in the record."""
        spec: dict[str, list[str]] = json.loads((self.record(process_id) / "spec.json").read_bytes())
        return spec

    def fact(self, process_id: str, kind: str) -> dict[str, list[int]]:
        """The first fact of a kind in the record."""
        lines = (self.record(process_id) / "events.jsonl").read_text().splitlines()
        return next(fact for fact in map(json.loads, lines) if fact["event"] == kind)

    def alive(self, process_id: str) -> bool:
        return bool(self.tree(process_id))

    def tree(self, process_id: str) -> list[int]:
        """Every process that has the process's FIFO open, but its shims."""
        fifo = str(self.record(process_id) / "output")
        lines = (self.record(process_id) / "events.jsonl").read_text().splitlines()
        facts = [fact for fact in map(json.loads, lines) if fact["event"] in ("began", "replaced")]
        shims = {fact["process"][0] for fact in facts}
        found = []
        for process in procs.everyone():
            try:
                holds = process.pid not in shims and fifo in procs.descriptors(process.pid).values()
            except OSError:
                continue
            if holds:
                found.append(process.pid)
        return found

    def crash(self, process_id: str, signal_name: str) -> None:
        os.kill(self.fact(process_id, "forked")["process"][0], signal.Signals[f"SIG{signal_name}"])

    def lose_shim(self, process_id: str) -> None:
        os.kill(self.fact(process_id, "began")["process"][0], signal.SIGKILL)

    def lose_daemon(self) -> None:
        self.host.close()

    def new_daemon(self) -> list[Adoption]:
        self.host = self._new_host()
        return self.host.adopt()

    async def end(self) -> None:
        """Kill and forget everything, by the host, whatever the test left."""
        if not (self.directory / "run" / "processes").exists():
            return
        self.host.close()
        self.events.clear()
        adopted = self.new_daemon()
        for adoption in adopted:
            self.host.kill(adoption.process_id)
        over = {adoption.process_id for adoption in adopted if adoption.empty}

        def all_over() -> bool:
            ended = {event.id for event in self.events if isinstance(event, TreeEmptied | SpawnFailed)}
            return {adoption.process_id for adoption in adopted} <= over | ended

        await eventually(all_over, PATIENCE_SECONDS, "the end of all processes")
        for adoption in adopted:
            self.host.forget(adoption.process_id)
        self.host.close()
