"""Run as PID 1 of a pid namespace of its own: python -m tests.faults.pid_reuse TIMES DIRECTORY

Each time: a program runs under its shim; its daemon dies; shim and program die; and then, by ns_last_pid, two strangers
are born that have exactly their pids.  The next daemon adopts the record, signals the program and kills its tree.  A
stranger notes every signal that it hears; SIGKILL, which it cannot hear, ends it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from supervisor_d.core.events import Event, MainExited, Spawned, SpawnFailed, TreeEmptied
from supervisor_d.core.spec import Launch
from supervisor_d.runtime.linux import LinuxHost

ID = "pool.0@g1.1"
SECONDS = 20.0
STRANGER = """
import os, signal, sys
for number in (1, 2, 3, 10, 12, 15):
    signal.signal(number, lambda number, _: os.write(1, b"heard %d\\n" % number))
os.write(1, b"ready\\n")
while True:
    signal.pause()
"""


class World:
    """One runtime directory and its daemons."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.events: list[Event] = []
        self.host = self.new_daemon()

    def new_daemon(self) -> LinuxHost:
        where = self.directory
        loop = asyncio.get_running_loop()
        return LinuxHost(self.events.append, lambda *_: None, where / "run", where / "log", loop)

    async def wait(self, *kinds: type[Event]) -> None:
        """Until one of these events has come."""
        deadline = time.monotonic() + SECONDS
        while not any(isinstance(event, kinds) for event in self.events):
            assert time.monotonic() < deadline, f"no {kinds} in {self.events}"
            await asyncio.sleep(0.002)
            reap()

    def pids(self) -> list[int]:
        """Shim and main process, by the record."""
        lines = (self.directory / "run" / "processes" / ID / "events.jsonl").read_text().splitlines()
        return [fact["process"][0] for fact in map(json.loads, lines) if "process" in fact]


def reap() -> None:
    """As PID 1 does."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def gone(pids: list[int]) -> None:
    """Kill them, and wait until their numbers are free."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + SECONDS
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline
        reap()


def stranger(pid: int) -> subprocess.Popen[bytes]:
    """A process with exactly that pid."""
    for _ in range(100):
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
        born = subprocess.Popen([sys.executable, "-I", "-S", "-c", STRANGER], stdout=subprocess.PIPE)
        assert born.stdout is not None
        if born.pid == pid:
            assert born.stdout.readline() == b"ready\n"
            return born
        born.kill()
        born.wait()
    raise AssertionError(f"{pid} could not be had")


async def once(world: World) -> None:
    """One program, one reuse of both its pids."""
    world.events.clear()
    launch = Launch(("/bin/sleep", "600"), {}, "/", log_name="pool.0")
    world.host.spawn(ID, launch, (), "{}")
    await world.wait(Spawned)
    world.host.close()
    pids = world.pids()
    gone(pids)
    strangers = [stranger(pid) for pid in pids]
    world.events.clear()
    world.host = world.new_daemon()
    (adoption,) = world.host.adopt()
    assert adoption.process_id == ID
    world.host.signal(ID, "TERM")
    world.host.kill(ID)
    await world.wait(TreeEmptied, SpawnFailed)
    assert sum(isinstance(event, MainExited) for event in world.events) == 1
    world.host.forget(ID)
    for born in strangers:
        assert born.stdout is not None
        os.set_blocking(born.stdout.fileno(), False)
        assert Path(f"/proc/{born.pid}").exists(), "a stranger was killed"
        assert born.stdout.read() in (None, b""), "a stranger was signalled"
        born.kill()
        with suppress(ChildProcessError):
            born.wait()


async def main(times: int, directory: Path) -> None:
    """All of them, one after the other."""
    world = World(directory)
    for _ in range(times):
        await once(world)
    world.host.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2])))
