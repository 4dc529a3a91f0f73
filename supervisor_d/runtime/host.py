"""The one door to the operating system, for everything that concerns processes.

`LinuxHost` (runtime/linux.py) is the real one; the tests carry a fake with virtual time.  One contract suite
(tests/contract/) runs on both: what it does not say, the rest of the program may not rely on.

The rules of the contract:

1. No call blocks for longer than a local system call, and none raises for what a process does: every outcome comes
   later, through `emit`, as an event of core.events.  `emit` is only ever called from the event loop's thread.
2. `spawn` ends in exactly one of `Spawned` and `SpawnFailed`.  After Spawned come exactly one `MainExited` and, not
   before it, exactly one `TreeEmptied`.  A shim's death before that is told by one `ShimReplaced` when another took its
   place, else by one `ShimLost`; MainExited and TreeEmptied still come (exit unknown, or `proven=False`, where nothing
   better can be had).
3. `signal` reaches the main process only, or nobody: never a reused pid.  `kill` reaches the whole tree and goes on
   until it is empty.  Both are no-ops for what has already ended.
4. `forget` removes the record of an empty process; afterwards its id is unknown.
5. Nothing that was spawned dies because the host object is closed or its process is killed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from supervisor_d.core.events import Event
from supervisor_d.core.spec import Launch

TELL_MAX_BYTES = 4096
Emit = Callable[[Event], None]
Told = Callable[[str, str], None]
"""(process id, one datagram of text): what a process said over its agent or notify socket; data, never trusted."""


class Host(Protocol):
    """Spawn, signal, kill and forget processes; tell what becomes of them."""

    def now(self) -> float:
        """Monotonic seconds (CLOCK_MONOTONIC); virtual in the fake."""
        ...

    def spawn(self, process_id: str, launch: Launch, listeners: tuple[int, ...], facts: str) -> None:
        """Start a process.  `listeners` are open fds, passed as 3.. in this order; `facts` is kept in the record and
        given back at adoption (the core's own words about the process, as JSON text)."""
        ...

    def signal(self, process_id: str, signal_name: str) -> None:
        """Send a signal (`TERM`, `QUIT`, ...) to the main process."""
        ...

    def tell(self, process_id: str, text: str) -> None:
        """Send a datagram (TELL_MAX_BYTES of UTF-8 at most) to the process's agent.  Lost where there is none, where
        it does not read, or where its shim was replaced: whoever needs to know waits for the answer."""
        ...

    def kill(self, process_id: str) -> None:
        """SIGKILL everything below the shim, again and again, until nothing is left."""
        ...

    def note(self, process_id: str, text: str) -> None:
        """Keep `text` in the record, in place of what was noted before, and give it back at adoption.  One that cannot
        be written is lost; a no-op for what is unknown."""
        ...

    def forget(self, process_id: str) -> None:
        """Remove the record of an empty process."""
        ...
