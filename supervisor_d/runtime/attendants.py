"""Whoever looks after a running process, as one: its program's driver, its probes, and what they make of readiness.

    started -> driver (where the program has one) -> its word -> probes -> all answered -> BecameReady

Probes wait for the driver: during a rollout of gunicorn both generations share the listener, so that before the new
one is up an http probe would be answered by the old one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from supervisor_d.core.events import NotReadyYet, StepDone
from supervisor_d.core.process import Process, State
from supervisor_d.core.spec import Launch, PoolSpec, Role
from supervisor_d.programs.addresses import parse_address, private_socket
from supervisor_d.runtime.drivers.base import Driver, Tell
from supervisor_d.runtime.drivers.celery import CeleryDriver
from supervisor_d.runtime.drivers.celery_work import WorkFigures
from supervisor_d.runtime.drivers.gunicorn import GunicornDriver
from supervisor_d.runtime.drivers.gunicorn_traffic import Figures
from supervisor_d.runtime.drivers.registry import DRIVERS
from supervisor_d.runtime.host import Emit
from supervisor_d.runtime.probes import Prober, Where
from supervisor_d.runtime.readiness import Condition, Readiness


@dataclass(frozen=True, slots=True)
class Attended:
    """One process that is looked after."""

    spec: PoolSpec
    launch: Launch
    driver: Driver | None
    starting: bool
    role: Role


class Attendants:
    """Looks after every process of the daemon; all methods are called from the event loop and return at once.

    `addresses` are a version's listeners as they are bound; `private_dir` is the directory of one process's own; `tell`
    sends a datagram to a process's agent; `settled` is told of a pool whose workers have all come up, each time.
    """

    def __init__(
        self,
        emit: Emit,
        addresses: Callable[[PoolSpec], tuple[str, ...]],
        private_dir: Callable[[str], str],
        tell: Tell = lambda *_: None,
        settled: Callable[[PoolSpec], None] = lambda _: None,
    ) -> None:
        self._emit = emit
        self._tell = tell
        self._settled = settled
        self._addresses = addresses
        self._private_dir = private_dir
        self._readiness = Readiness(emit)
        self._prober = Prober(self._readiness.probes_ready, lambda process_id, why: emit(NotReadyYet(process_id, why)))
        self._drivers: dict[str, Driver] = {}
        self._attended: dict[str, Attended] = {}

    def started(self, process: Process, spec: PoolSpec, launch: Launch) -> None:
        """A process was spawned, or adopted in any state.  A preflight has only its end to tell."""
        if process.role == "preflight":
            return
        driver = self._driver(spec.program)
        attended = Attended(spec, launch, driver, process.state is State.STARTING, process.role)
        self._attended[process.id] = attended
        if attended.starting:
            self._prober.expect(process.id)
            self._readiness.began(process.id, _missing(attended))
        if driver is not None:
            driver.started(process, launch, self._private_dir(process.id))
        else:
            self._probe(process.id)

    def told(self, process_id: str, text: str) -> None:
        """A process said something over its agent's or notify socket: data, never trusted."""
        attended = self._attended.get(process_id)
        if attended is None:
            return
        self._prober.told(process_id, text)
        if attended.driver is not None:
            attended.driver.told(process_id, text)

    def scale(self, process_id: str, workers: int) -> None:
        """Bring a process to that many workers in place."""
        attended = self._attended.get(process_id)
        if attended is not None and attended.driver is not None:
            attended.driver.scale(process_id, workers)

    def step(self, process_id: str, word: str, step: int) -> None:
        """Carry out a step of the stop list that is no signal; over at once where there is no driver for it."""
        attended = self._attended.get(process_id)
        if attended is None or attended.driver is None:
            self._emit(StepDone(process_id, step))
        else:
            attended.driver.step(process_id, word, step)

    def stopping(self, process_id: str) -> None:
        """A step of the stop list was sent."""
        attended = self._attended.get(process_id)
        if attended is not None and attended.driver is not None:
            attended.driver.stopping(process_id)

    def stacks(self, process_id: str) -> None:
        """Make it write its stacks to its log."""
        attended = self._attended.get(process_id)
        if attended is not None and attended.driver is not None:
            attended.driver.stacks(process_id)

    def cut_off(self, process_id: str) -> None:
        """Its shim died: nothing reaches its agent any more."""
        attended = self._attended.get(process_id)
        if attended is not None and attended.driver is not None:
            attended.driver.cut_off(process_id)

    def ended(self, process_id: str) -> None:
        """The process's main ended, or nothing of it ever ran; unknown ids are ignored."""
        attended = self._attended.pop(process_id, None)
        self._readiness.ended(process_id)
        self._prober.ended(process_id)
        if attended is not None and attended.driver is not None:
            attended.driver.ended(process_id)

    def figures(self) -> Figures:
        """What gunicorn's workers serve, as far as our agent in them tells."""
        driver = self._drivers.get("gunicorn")
        return driver.figures() if isinstance(driver, GunicornDriver) else Figures({}, {})

    def work(self) -> WorkFigures:
        """What Celery's workers have in hand and have done, as far as our agent in them tells."""
        driver = self._drivers.get("celery")
        return driver.figures() if isinstance(driver, CeleryDriver) else WorkFigures({}, {})

    def close(self) -> None:
        """Let everything go, as if the daemon had died: the processes live on."""
        self._prober.close()
        for driver in self._drivers.values():
            driver.close()
        self._drivers.clear()
        self._attended.clear()

    def _driver(self, program: str) -> Driver | None:
        if program not in DRIVERS:
            return None
        if program not in self._drivers:
            self._drivers[program] = DRIVERS[program](self._emit, self._driver_ready, self._tell)
        return self._drivers[program]

    def _driver_ready(self, process_id: str) -> None:
        """A driver may say this more than once: whenever all of a process's workers are there."""
        attended = self._attended.get(process_id)
        if attended is not None and attended.role == "serve":
            self._settled(attended.spec)
        self._readiness.driver_ready(process_id)
        self._probe(process_id)

    def _probe(self, process_id: str) -> None:
        attended = self._attended.get(process_id)
        if attended is not None and attended.starting and attended.spec.ready:
            public = tuple(parse_address(text) for text in self._addresses(attended.spec))
            private = private_socket(self._private_dir(process_id)) if attended.role == "canary" else None
            self._prober.start(process_id, attended.spec.ready, Where(public, private), attended.launch)


def _missing(attended: Attended) -> Condition:
    missing = Condition.NONE
    if attended.driver is not None:
        missing |= Condition.DRIVER
    if attended.spec.ready:
        missing |= Condition.PROBES
    return missing
