"""What programs do, by name: the words in which the contract speaks to any host.

A real world makes a tiny program of a behaviour, a fake one a script.  `World` is all that the contract suite needs of
either; time passes only inside its `async` methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from supervisor_d.core.events import Event
from supervisor_d.core.process import Exit
from supervisor_d.core.spec import Launch
from supervisor_d.runtime.host import Host
from supervisor_d.runtime.linux import Adoption


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What one program does once it was exec'd."""

    ends: Exit | None = None
    """It ends by itself, at once, like this; None: it runs until it is made to end."""
    obeys: tuple[str, ...] = ("TERM",)
    """Signals on which it ends with code 0; TERM, QUIT and USR1 are ignored otherwise."""
    leaves: int = 0
    """Processes that it starts, each in a session of its own, by a double fork, ignoring TERM."""
    echoes: bool = False
    """Its agent says whatever it is told."""
    starts: bool = True
    """False: there is no such executable."""


BEHAVIOURS: Mapping[str, Behaviour] = {
    "run": Behaviour(),
    "exit 0": Behaviour(ends=Exit(code=0)),
    "exit 3": Behaviour(ends=Exit(code=3)),
    "die by SEGV": Behaviour(ends=Exit(signal=11)),
    "ignore TERM": Behaviour(obeys=("QUIT",)),
    "ignore all": Behaviour(obeys=()),
    "run with hidden children": Behaviour(leaves=2),
    "ignore all with hidden children": Behaviour(obeys=(), leaves=2),
    "exit 0 leaving a child": Behaviour(ends=Exit(code=0), leaves=1),
    "run with an agent": Behaviour(echoes=True),
    "exec missing file": Behaviour(starts=False),
}

E = TypeVar("E", bound=Event)


def of(process_id: str, events: list[Event]) -> list[Event]:
    """The events of one process."""
    return [event for event in events if getattr(event, "id", None) == process_id]


class World(Protocol):
    """A host, and what a test may do to the world around it."""

    events: list[Event]
    """All that was emitted so far."""

    told: list[tuple[str, str]]
    """What the programs' agents said: (process id, text)."""

    @property
    def host(self) -> Host: ...

    def launch(self, behaviour: str, *, orphan_grace_seconds: float = 0.0) -> Launch:
        """The launch of a program that behaves so."""
        ...

    async def wait_for(self, kind: type[E], process_id: str) -> E:
        """The first event of that kind for that process, past or to come; AssertionError when it doesn't come."""
        ...

    async def in_place(self, process_id: str) -> int:
        """Wait until the program runs and behaves as it should.  Its pid."""
        ...

    async def settle(self) -> None:
        """Let everything happen that is under way."""
        ...

    def alive(self, process_id: str) -> bool:
        """The truth, by no word of the host: whether anything of the process's tree runs."""
        ...

    def crash(self, process_id: str, signal_name: str) -> None:
        """Somebody else signals the main process."""
        ...

    def lose_shim(self, process_id: str) -> None:
        """Somebody else kills the shim."""
        ...

    def lose_daemon(self) -> None:
        """The daemon is gone, with its host; nothing is emitted from now on."""
        ...

    def new_daemon(self) -> list[Adoption]:
        """Another daemon adopts what is there."""
        ...
