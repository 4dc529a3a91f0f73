"""What a driver is: the I/O that a program needs beyond signals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from supervisor_d.core.process import Process
from supervisor_d.core.spec import Launch

DriverReady = Callable[[str], None]
"""Told, with a process's id, that the program itself says it may serve."""
Tell = Callable[[str, str], None]
"""(process id, text): Host.tell, one datagram to its agent."""


class Driver(Protocol):
    """Looks after the processes of one kind of program: counts their workers, knows when they are ready.

    All methods are called from the event loop and return at once.  After `ended` nothing is emitted for a process.
    What a program says is data: a driver bounds it, checks it, and never acts on a pid that is not the program's own.
    """

    def started(self, process: Process, launch: Launch, private_dir: str) -> None:
        """A process was spawned, or adopted in any state; `process.pid` is known."""
        ...

    def told(self, process_id: str, text: str) -> None:
        """The process sent a datagram over its agent's socket."""
        ...

    def scale(self, process_id: str, workers: int) -> None:
        """Bring a process to `workers` in place; only for programs with `scale_in_place`."""
        ...

    def step(self, process_id: str, word: str, step: int) -> None:
        """Carry out step `step` of the stop list, one of core.spec.DRIVER_STEPS.  StepDone is emitted when it did all
        it can; at once when it can do nothing."""
        ...

    def stopping(self, process_id: str) -> None:
        """A step of the stop list was sent: from now on the core wants to know what work is left."""
        ...

    def stacks(self, process_id: str) -> None:
        """Make it write the stacks of all that it does to its log, if it can."""
        ...

    def cut_off(self, process_id: str) -> None:
        """Its shim died, and took the way to the agent along: what is told to it no longer arrives."""
        ...

    def ended(self, process_id: str) -> None:
        """The main process ended, or never ran; unknown ids are ignored."""
        ...

    def close(self) -> None:
        """Let everything go, as if the daemon had died: the processes live on."""
        ...
