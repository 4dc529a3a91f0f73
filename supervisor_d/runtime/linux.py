"""The real host: processes under shims, on Linux (5.10 or later; what newer kernels tell is used where they do).

Theory of operation.  The host is the parent of nobody but the zygote, and so loses nothing when it dies.  Each process
is followed by a `Tracked`: messages over the link to its shim, the shim's life by pidfd, its main process by pidfd.
All of it waits in the event loop; nothing here polls, blocks, or starts a thread.

    spawn    look up the user -> cgroup -> record -> ask the zygote -> `began` -> identity, gate -> `started`: Spawned
    signal   through the main process's pidfd
    kill     asked of the shim; of the cgroup and what can be seen, when the shim is dead
    forget   the shim is released, then cgroup and record go
    adopt    the records that are there -> Known -> followed as if spawned by us

At most ASKED_MAX requests are with the zygote at a time; the rest wait here, in order.  A request that a dying zygote
took along is asked once more: its gate was never opened, so nothing was started.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from supervisor_d.core.events import Event, SpawnFailed
from supervisor_d.core.process import Exit
from supervisor_d.core.spec import Launch
from supervisor_d.errors import SupervisorError
from supervisor_d.runtime import crash
from supervisor_d.runtime.accounts import find_account
from supervisor_d.runtime.cgroups import Cgroups, own_cgroup
from supervisor_d.runtime.debris import Found, Rule, judge
from supervisor_d.runtime.host import Emit, Told
from supervisor_d.runtime.known import Known
from supervisor_d.runtime.records import REHEARSAL, Record, Records, make_spec
from supervisor_d.runtime.scopes import Scope
from supervisor_d.runtime.tracked import Ties, Tracked
from supervisor_d.runtime.zygote import KEEP, STORE, Zygote
from supervisor_d.shim import wire

ASKED_MAX = 16
ATTEMPTS_MAX = 2
CONDEMNED_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Adoption:
    """A process of a former daemon, as its record tells it.

    What stands here is history; what does not comes as events, from the next turn of the loop on: without a `pid`,
    Spawned or SpawnFailed; without an `exit`, MainExited; unless `empty`, TreeEmptied.
    """

    process_id: str
    facts: str
    pid: int | None
    exit: Exit | None
    empty: bool
    note: str = ""


@dataclass(slots=True)
class _Request:
    """A spawn that waits for its shim, with the descriptors that go along."""

    tracked: Tracked
    log_dir: Path
    listeners: tuple[int, ...]
    attempts: int = 0

    def close(self) -> None:
        for fd in self.listeners:
            os.close(fd)
        self.listeners = ()


class LinuxHost:
    """The Host of the running daemon (runtime/host.py), on one runtime directory."""

    def __init__(
        self,
        emit: Emit,
        told: Told,
        runtime_dir: Path,
        log_dir: Path,
        loop: asyncio.AbstractEventLoop,
        scope: Scope | None = None,
    ) -> None:
        self._emit = emit
        self._loop = loop
        self._log_dir = log_dir
        self._condemned: set[str] = set()
        """What is being killed because nobody can rule it."""
        self._cleared = asyncio.Event()
        self._ties = Ties(loop, self._heard, told, self._answered, self._unanswered, self._keep)
        self._records = Records(runtime_dir)
        self._records.prepare()
        self._runtime_dir = runtime_dir
        self._cgroups = Cgroups(runtime_dir, scope.cgroup if scope else own_cgroup())
        self._zygote = Zygote(runtime_dir / REHEARSAL, scope)
        self._tracked: dict[str, Tracked] = {}
        self._waiting: deque[_Request] = deque()
        self._asked: dict[str, _Request] = {}
        self._dropped_before = 0

    @property
    def log_dropped_bytes_total(self) -> int:
        """Output that was lost because it could not be written to a log, of all processes so far."""
        return self._dropped_before + sum(tracked.known.dropped_bytes for tracked in self._tracked.values())

    def now(self) -> float:
        return time.monotonic()

    def spawn(self, process_id: str, launch: Launch, listeners: tuple[int, ...], facts: str) -> None:
        if process_id in self._tracked:
            raise ValueError(f"{process_id} has a record already")
        try:
            self._put_on_record(process_id, launch, listeners, facts)
        except (SupervisorError, OSError, ValueError) as error:
            reason = getattr(error, "message", "") or getattr(error, "strerror", "") or str(error)
            failed = SpawnFailed(process_id, f"cannot start {launch.argv[0]}: {reason}")
            self._loop.call_soon(self._emit, failed)
            return
        self._ask()

    def _put_on_record(self, process_id: str, launch: Launch, listeners: tuple[int, ...], facts: str) -> None:
        if len(listeners) > wire.LISTENERS_MAX:
            raise ValueError(f"more than {wire.LISTENERS_MAX} listeners")
        account = find_account(launch.user, launch.group)
        log_dir = Path(launch.log.directory) if launch.log.directory else self._log_dir
        log_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
        cgroup = self._cgroups.create(process_id)
        record = self._records.of(process_id)
        spec = make_spec(record, launch, facts, account, len(listeners), log_dir, cgroup)
        crash.point("spawn-before-record")
        self._records.create(spec)
        crash.point("spawn-after-record")
        tracked = Tracked(self._ties, record, spec, Known(process_id, launch.argv[0]))
        self._tracked[process_id] = tracked
        self._waiting.append(_Request(tracked, log_dir, tuple(os.dup(fd) for fd in listeners)))

    def enter_scope(self) -> bool:
        """Start the zygote in its scope, which must be there before the first spawn; False when it was refused."""
        wanted = self._zygote.scope
        if wanted is None:
            return True
        with suppress(OSError):
            self._zygote.be_ready()
        if self._zygote.scope is None:
            self._cgroups = Cgroups(self._runtime_dir, own_cgroup())
        return self._zygote.scope is not None

    def signal(self, process_id: str, signal_name: str) -> None:
        if tracked := self._tracked.get(process_id):
            tracked.signal(signal.Signals[f"SIG{signal_name.removeprefix('SIG')}"])

    def kill(self, process_id: str) -> None:
        if tracked := self._tracked.get(process_id):
            tracked.kill()

    def tell(self, process_id: str, text: str) -> None:
        if tracked := self._tracked.get(process_id):
            tracked.tell(text)

    def note(self, process_id: str, text: str) -> None:
        if tracked := self._tracked.get(process_id):
            with suppress(OSError):
                tracked.record.note(text)

    def forget(self, process_id: str) -> None:
        tracked = self._tracked.get(process_id)
        if tracked and tracked.known.over:
            del self._tracked[process_id]
            if process_id in self._condemned:
                self._condemned.discard(process_id)
                self._cleared.set()
            self._dropped_before += tracked.known.dropped_bytes
            tracked.release()

    def adopt(self) -> list[Adoption]:
        """Take over every process that has a record.  To be called once, before the first spawn.

        No record is believed: a pid that it names is followed, and signalled, only when its identity is the recorded
        one.  What was never started ends in its SpawnFailed; nothing is started again.  What cannot be adopted is
        left to `clear`.  Raises InternalError for a live process of another version.
        """
        adoptions = [adoption for record in self._records if (adoption := self._adopt(record))]
        self._records.remove_strays()
        return adoptions

    def sources(self, process_id: str) -> Iterator[list[int]]:
        """Where its listening sockets can be had back, in the order of recovery (runtime/recovery.py)."""
        tracked = self._tracked.get(process_id)
        return tracked.sources() if tracked else iter(())

    def _adopt(self, record: Record) -> Adoption | None:
        found = judge(record)
        if found.rule is Rule.REMOVE:
            record.remove()
        if found.rule is not Rule.ADOPT or record.process_id in self._tracked:
            return None
        known, spec = found.known, cast("wire.Spec", found.spec)
        tracked = Tracked(self._ties, record, spec, known)
        self._tracked[record.process_id] = tracked
        tracked.take_over()
        pid = known.main.pid if known.main and known.started else None
        return Adoption(record.process_id, spec["facts"], pid, known.exit, known.emptied is not None, record.noted())

    async def clear(self, ours: Callable[[str, str], bool]) -> list[tuple[str, str]]:
        """Deal with what is no record of a process that can be ruled, by the rules of runtime/debris.py.  To be called
        before `adopt`; it returns when nothing of what is killed is left, since that may be a second beat, or after
        CONDEMNED_SECONDS.  `ours` says whether facts are the core's.

        Returns names, and what was done about each.  Raises InternalError for a live process of another version.
        """
        debris = []
        for record in self._records:
            found = judge(record)
            if found.rule is Rule.ADOPT and not ours(record.process_id, found.spec["facts"]):
                found = replace(found, rule=Rule.KILL, why="has facts that are not ours: nobody can rule it")
            if found.rule is Rule.REMOVE:
                record.remove()
            elif found.rule is Rule.KILL:
                self._condemn(record, found)
            if found.why:
                debris.append((record.process_id, found.why))
        with suppress(TimeoutError):
            async with asyncio.timeout(CONDEMNED_SECONDS):
                while self._condemned:
                    self._cleared.clear()
                    await self._cleared.wait()
        return debris

    def _condemn(self, record: Record, found: Found) -> None:
        """Kill it; nothing is emitted about it any more."""
        self._condemned.add(record.process_id)
        tracked = Tracked(self._ties, record, cast("wire.Spec", found.spec), found.known)
        self._tracked[record.process_id] = tracked
        tracked.take_over()
        tracked.kill()
        if found.known.over:
            self.forget(record.process_id)

    def _heard(self, event: Event) -> None:
        """From a tracked process."""
        process_id: str = getattr(event, "id", "")
        if process_id not in self._condemned:
            self._emit(event)
        elif process_id in self._tracked and self._tracked[process_id].known.over:
            self._loop.call_soon(self.forget, process_id)

    def close(self) -> None:
        """Leave everything as it is: processes and shims go on, the zygote ends."""
        for request in [*self._waiting, *self._asked.values()]:
            request.close()
        for tracked in self._tracked.values():
            tracked.close()
        self._zygote.close()
        self._cgroups.close()

    # -- requests to the zygote

    def _ask(self) -> None:
        while self._waiting and len(self._asked) < ASKED_MAX:
            request = self._waiting.popleft()
            if request.tracked.known.over:
                request.close()
                continue
            try:
                self._send(request)
            except OSError as error:
                # The zygote has too much to do; but it may be its own fork that fails so, and then no answer will come.
                if isinstance(error, BlockingIOError) and self._asked:
                    self._waiting.appendleft(request)
                    return
                request.close()
                request.tracked.give_up(f"no shim can be had: {error.strerror or error}")

    def _send(self, request: _Request) -> None:
        ours, theirs = socket.socketpair()
        record = log_dir = -1
        try:
            record = request.tracked.record.open()
            log_dir = os.open(request.log_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._zygote.request([theirs.fileno(), record, log_dir, *request.listeners])
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
            for fd in (record, log_dir):
                with suppress(OSError):
                    os.close(fd)
        request.attempts += 1
        self._asked[request.tracked.record.process_id] = request
        request.tracked.await_shim(ours)

    def begin_store(self, link: socket.socket) -> None:
        """Ask for a store of sockets (runtime/socket_store.py), which speaks over `link`.  Raises OSError."""
        directory = os.open(self._runtime_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._zygote.request([link.fileno(), directory], STORE)
        finally:
            os.close(directory)

    def _keep(self, process_id: str, link: socket.socket, main: int) -> None:
        """Ask for a shim in adopt mode.  Raises OSError when none can be had.

        It gets what the program was given, which stands first among its descriptors; what it bound itself is its own.
        """
        tracked = self._tracked[process_id]
        given = tracked.listeners
        opened = next((fds for fds in tracked.sources() if fds), []) if given else []
        listeners = opened[:given]
        try:
            opened.append(record := tracked.record.open())
            opened.append(log_dir := os.open(tracked.log_directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            self._zygote.request([link.fileno(), record, log_dir, main, *listeners], KEEP)
        finally:
            for fd in opened:
                os.close(fd)

    def _answered(self, process_id: str) -> None:
        if request := self._asked.pop(process_id, None):
            request.close()
            self._loop.call_soon(self._ask)

    def _unanswered(self, process_id: str) -> None:
        request = self._asked.pop(process_id)
        if request.attempts < ATTEMPTS_MAX:
            self._waiting.appendleft(request)
        else:
            request.close()
            request.tracked.give_up("no shim came up")
        self._loop.call_soon(self._ask)
