"""The contract's world of scripts: FakeHost over an agenda of virtual time."""

from __future__ import annotations

import signal
from typing import TypeVar

from supervisor_d.core.events import Event, Spawned
from supervisor_d.core.process import Exit
from supervisor_d.core.spec import Launch
from supervisor_d.runtime.linux import Adoption
from tests.contract.behaviours import BEHAVIOURS, of
from tests.support.fake_host import Agenda, FakeHost, Script

E = TypeVar("E", bound=Event)

ALL_SECONDS = 3600.0


def script_of(process_id: str, launch: Launch) -> Script:
    """The script of the behaviour that `FakeWorld.launch` wrote into argv."""
    behaviour = BEHAVIOURS[launch.argv[1]]
    return Script(
        refused="" if behaviour.starts else "cannot start /missing: No such file or directory",
        exit_seconds=0.0 if behaviour.ends else None,
        exit=behaviour.ends or Exit(),
        obeys=dict.fromkeys(behaviour.obeys, 0.01),
        orphan_seconds=launch.orphan_grace_seconds if behaviour.leaves else 0.0,
        echoes=behaviour.echoes,
    )


class FakeWorld:
    """A World in which nothing is real but the contract."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._agenda = Agenda()
        self.told: list[tuple[str, str]] = []
        self.host = FakeHost(self._agenda, script_of, self.events.append, lambda *said: self.told.append(said))

    def launch(self, behaviour: str, *, orphan_grace_seconds: float = 0.0) -> Launch:
        return Launch(("/fake", behaviour), {}, "/", orphan_grace_seconds=orphan_grace_seconds)

    async def wait_for(self, kind: type[E], process_id: str) -> E:
        until = self._agenda.now + ALL_SECONDS
        while True:
            for event in of(process_id, self.events):
                if isinstance(event, kind):
                    return event
            due = self._agenda.next_at or until
            assert due < until, f"no {kind.__name__} of {process_id} in {self.events}"
            self._agenda.advance(due)

    async def in_place(self, process_id: str) -> int:
        return (await self.wait_for(Spawned, process_id)).pid

    async def settle(self) -> None:
        while (due := self._agenda.next_at) is not None:
            self._agenda.advance(due)

    def alive(self, process_id: str) -> bool:
        process = self.host.processes[process_id]
        return process.pid is not None and not process.empty

    def crash(self, process_id: str, signal_name: str) -> None:
        self.host.crash(process_id, Exit(signal=signal.Signals[f"SIG{signal_name}"].value))

    def lose_shim(self, process_id: str) -> None:
        self.host.lose_shim(process_id, replaced=True)

    def lose_daemon(self) -> None:
        self.host.detach()

    def new_daemon(self) -> list[Adoption]:
        return self.host.adopt(self.events.append)
