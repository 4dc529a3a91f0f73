"""Asks starting processes whether they are ready, until every probe of the pool has answered once.

Nothing is asked of a process that is ready, has ended, or is not yet up by its driver's word.  Probes of one process
run side by side; on the whole host at most ASKED_AT_ONCE questions are open, EXECS_AT_ONCE of them commands.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, replace

from supervisor_d.core.spec import Launch, Probe
from supervisor_d.errors import PrepareError
from supervisor_d.programs.addresses import Address, parse_address, parse_http_target
from supervisor_d.runtime import tasks
from supervisor_d.runtime.accounts import find_account
from supervisor_d.runtime.probing import ask_exec, ask_http, ask_tcp

ASKED_AT_ONCE = 32
EXECS_AT_ONCE = 4
SHORTEST_INTERVAL_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Where:
    """Where a process is asked: at the pool's listeners as bound, of which the first takes a probe's path; or, for
    what is asked of them, at a socket of its own, if it is there alone (a canary)."""

    public: tuple[Address, ...] = ()
    private: Address | None = None

    def found(self, address: Address) -> Address:
        """Where that address is asked."""
        known = {each.reachable for each in self.public}
        return self.private if self.private is not None and address.reachable in known else address.reachable


class Prober:
    """Runs the probes of every starting process.

    `ready` is called once for each whose probes have all answered; `failing` with each new way in which one was not
    answered well, for people: `http /healthz answered 503`.
    """

    def __init__(self, ready: Callable[[str], None], failing: Callable[[str, str], None]) -> None:
        self._ready = ready
        self._failing = failing
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._notified: dict[str, asyncio.Event] = {}
        self._failures: dict[str, str] = {}
        self._open = asyncio.Semaphore(ASKED_AT_ONCE)
        self._execs = asyncio.Semaphore(EXECS_AT_ONCE)

    def expect(self, process_id: str) -> None:
        """A process exists: its READY=1 counts from now on, also before `start`."""
        self._notified.setdefault(process_id, asyncio.Event())

    def start(self, process_id: str, probes: tuple[Probe, ...], where: Where, launch: Launch) -> None:
        """Ask from now on."""
        if process_id in self._tasks:
            return
        self.expect(process_id)
        work = self._all_answered(process_id, probes, where, launch)
        self._tasks[process_id] = tasks.begin(work, f"probes of {process_id}")

    def told(self, process_id: str, text: str) -> None:
        """A datagram of the process: READY=1, as in sd_notify(3), answers its notify probe."""
        notified = self._notified.get(process_id)
        if notified is not None and "READY=1" in text.splitlines():
            notified.set()

    def ended(self, process_id: str) -> None:
        """Ask a process no more; unknown ids are ignored."""
        self._notified.pop(process_id, None)
        self._failures.pop(process_id, None)
        task = self._tasks.pop(process_id, None)
        if task is not None:
            task.cancel()

    def close(self) -> None:
        """Ask nobody any more."""
        for process_id in tuple(self._tasks):
            self.ended(process_id)

    async def _all_answered(self, process_id: str, probes: tuple[Probe, ...], where: Where, launch: Launch) -> None:
        notified = self._notified[process_id]
        async with asyncio.TaskGroup() as group:
            for probe in probes:
                if probe.kind == "notify":
                    group.create_task(_wait(notified))
                else:
                    group.create_task(self._until_answered(process_id, probe, where, launch))
        self._failures.pop(process_id, None)
        self._ready(process_id)

    async def _until_answered(self, process_id: str, probe: Probe, where: Where, launch: Launch) -> None:
        interval = max(probe.interval_seconds, SHORTEST_INTERVAL_SECONDS)
        while failure := await self._ask(probe, where, launch):
            self._tell(process_id, f"{_name(probe)} {failure}")
            await asyncio.sleep(interval)

    def _tell(self, process_id: str, failure: str) -> None:
        if self._failures.get(process_id) != failure:
            self._failures[process_id] = failure
            self._failing(process_id, failure)

    async def _ask(self, probe: Probe, where: Where, launch: Launch) -> str:
        """Ask once; how it was not answered well, empty when it was."""
        async with self._open:
            try:
                if probe.kind == "exec":
                    async with self._execs, asyncio.timeout(probe.timeout_seconds):
                        code = await ask_exec(probe.argv, launch, find_account(launch.user, launch.group))
                        return f"exited with code {code}" if code else ""
                async with asyncio.timeout(probe.timeout_seconds):
                    return await (_http(probe, where) if probe.kind == "http" else _tcp(probe, where))
            except TimeoutError:
                return f"did not answer in {probe.timeout_seconds:g}s"
            except (OSError, ValueError, EOFError, PrepareError) as error:
                return f"failed: {_reason(error)}"


def _reason(error: Exception) -> str:
    """The kernel's words where there are some: asyncio puts its own in their place."""
    number = getattr(error, "errno", None)
    return os.strerror(number) if isinstance(number, int) and number > 0 else str(error)


async def _wait(notified: asyncio.Event) -> None:
    await notified.wait()


async def _tcp(probe: Probe, where: Where) -> str:
    await ask_tcp(where.found(parse_address(probe.target)))
    return ""


async def _http(probe: Probe, where: Where) -> str:
    """The Host header names the public address all the same: the application may be particular about it."""
    asked = parse_http_target(probe.target, where.public[0] if where.public else None)
    status = await ask_http(replace(asked, address=where.found(asked.address)))
    if status is None:
        return "answered no HTTP"
    well = status == probe.expect_status if probe.expect_status is not None else 200 <= status < 400
    return "" if well else f"answered {status}"


def _name(probe: Probe) -> str:
    return f"{probe.kind} {' '.join(probe.argv) or probe.target}"
