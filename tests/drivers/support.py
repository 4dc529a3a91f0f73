"""Real programs for the driver tests: launched as a shim would, and what the drivers emit about them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from supervisor_d.core.events import Event, WorkerExited, WorkersReported
from supervisor_d.core.process import Policy, Process, State
from supervisor_d.core.spec import Launch, LaunchContext, PoolSpec, RestartPolicy
from supervisor_d.programs.registry import PROGRAMS
from supervisor_d.runtime.contexts import AGENTS_DIR, base_env
from supervisor_d.runtime.drivers.base import Driver
from tests.support.waiting import eventually

# sd_listen_fds(3) wants the pid of the program itself, known only after the fork.
_EXEC_WITH_LISTENERS = """
import os, sys
listeners = int(sys.argv[1])
if listeners:
    os.environ["LISTEN_FDS"] = str(listeners)
    os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass(slots=True)
class Told:
    """What a driver emitted, in its order."""

    events: list[Event] = field(default_factory=list)
    ready: list[str] = field(default_factory=list)

    @property
    def counts(self) -> tuple[int, int] | None:
        """(live, ready) as last reported."""
        reported = [event for event in self.events if isinstance(event, WorkersReported)]
        return (reported[-1].live, reported[-1].ready) if reported else None

    def of(self, kind: type[object]) -> list[Event]:
        """Those of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def exits(self) -> list[WorkerExited]:
        return [event for event in self.events if isinstance(event, WorkerExited)]


@dataclass(slots=True)
class Running:
    """A program that a driver looks after."""

    process: Process
    launch: Launch
    private_dir: Path
    driver: Driver
    told: Told
    child: asyncio.subprocess.Process

    @property
    def pid(self) -> int:
        return self.child.pid

    async def ready(self, seconds: float = 30.0) -> None:
        await eventually(lambda: self.told.ready, seconds, f"{self.process.id} to be ready")

    async def counted(self, live: int, ready: int | None = None, seconds: float = 20.0) -> None:
        wanted = (live, live if ready is None else ready)
        await eventually(lambda: self.told.counts == wanted, seconds, f"{wanted} workers, last {self.told.counts}")


def process_of(spec: PoolSpec, pid: int, *, serial: int = 1, state: State = State.STARTING) -> Process:
    program = PROGRAMS[spec.program]
    return Process(
        id=f"{spec.name}.0@g1.{serial}",
        pool=spec.name,
        slot=0,
        generation=1,
        workers=spec.workers,
        policy=Policy(program.default_stop, RestartPolicy(), program.traits, spec.start_timeout_seconds),
        reason="a test",
        state=state,
        since=0.0,
        began_at=0.0,
        pid=pid,
        ready_at=1.0 if state is State.READY else None,
    )


def launch_of(spec: PoolSpec, private_dir: Path) -> Launch:
    context = LaunchContext(
        process_id=f"{spec.name}.0@g1.1",
        slot=0,
        generation=1,
        workers=spec.workers,
        private_dir=str(private_dir),
        agents_dir=AGENTS_DIR,
        base_env=base_env(""),
    )
    return PROGRAMS[spec.program].launch(spec, context)


@contextlib.asynccontextmanager
async def running(
    make_driver: Callable[..., Driver],
    spec: PoolSpec,
    tmp_path: Path,
    listeners: tuple[socket.socket, ...] = (),
) -> AsyncIterator[Running]:
    """Start a program, let a driver look after it; in the end both are gone.  Celery's driver may ask its agent."""
    private_dir = tmp_path / "private"
    private_dir.mkdir(mode=0o700)
    launch = launch_of(spec, private_dir)
    told = Told()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ties = [lambda _, text: ours.send(text.encode())] if spec.program == "celery" else []
    driver = make_driver(told.events.append, told.ready.append, *ties)
    log = (tmp_path / "log").open("wb")
    child = await _start(launch, [*listeners], theirs, log)
    process = process_of(spec, child.pid)
    ours.setblocking(False)
    loop = asyncio.get_running_loop()
    loop.add_reader(ours, lambda: driver.told(process.id, ours.recv(4096).decode()))
    try:
        driver.started(process, launch, str(private_dir))
        yield Running(process, launch, private_dir, driver, told, child)
    except BaseException:
        print((tmp_path / "log").read_text(errors="replace")[-4000:], file=sys.stderr)
        raise
    finally:
        loop.remove_reader(ours)
        driver.close()
        await _end(child)
        for each in (ours, theirs, log):
            each.close()


async def _start(launch: Launch, listeners: list[Any], agent: socket.socket, log: Any) -> asyncio.subprocess.Process:
    """Exec as a shim does: the listeners as 3.., the agent's socket after them, in a session of its own."""
    passed = [*listeners, *([agent] if launch.agent else [])]
    env = dict(launch.env)
    if launch.agent:
        env["SUPERVISOR_D_AGENT_FD"] = str(3 + len(listeners))

    def place() -> None:
        spare = [os.dup2(each.fileno(), 100 + place, inheritable=False) for place, each in enumerate(passed)]
        for place, fd in enumerate(spare):
            os.dup2(fd, 3 + place)

    return await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", "-c", _EXEC_WITH_LISTENERS, str(len(launch.listeners)), *launch.argv,
        env=env, cwd=launch.cwd, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
        start_new_session=True, close_fds=True, preexec_fn=place, pass_fds=range(3, 3 + len(passed)),
    )  # fmt: skip


async def _end(child: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    await asyncio.wait_for(child.wait(), 10)
