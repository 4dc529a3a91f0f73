"""Real processes under real shims."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from supervisor_d.core.events import Event, MainExited, Spawned, SpawnFailed, TreeEmptied
from supervisor_d.core.process import Exit
from supervisor_d.core.spec import Launch, Limits, LogPolicy
from supervisor_d.runtime import linux
from tests.contract.behaviours import of
from tests.contract.linux_world import LinuxWorld

ID = "pool.0@g1.1"
ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin"}


class ShimWorld(LinuxWorld):
    """A LinuxWorld for shell scripts."""

    def start(
        self,
        *argv: str,
        process_id: str = ID,
        listeners: tuple[int, ...] = (),
        log_name: str = "pool.0",
        **more: object,
    ) -> None:
        launch = Launch(argv, ENV, "/", log_name=log_name)
        for name, value in more.items():
            launch = _replace(launch, name, value)
        self.host.spawn(process_id, launch, listeners, "{}")

    def sh(self, script: str, *, process_id: str = ID, **more: object) -> None:
        """Start a shell script."""
        self.start("/bin/sh", "-c", script, process_id=process_id, **more)  # type: ignore[arg-type]

    async def spawned(self, process_id: str = ID) -> int:
        """Its pid, once exec succeeded."""
        return (await self.wait_for(Spawned, process_id)).pid

    async def failure(self, process_id: str = ID) -> str:
        """Why it could not be started."""
        return (await self.wait_for(SpawnFailed, process_id)).reason

    async def over(self, process_id: str = ID) -> Exit:
        """Its exit, once the tree is empty and so the log complete."""
        await self.wait_for(TreeEmptied, process_id)
        return (await self.wait_for(MainExited, process_id)).exit

    def seen(self, kind: type[Event], process_id: str = ID) -> bool:
        """Whether such an event came."""
        return any(isinstance(event, kind) for event in of(process_id, self.events))

    def log(self, name: str = "pool.0.log") -> str:
        """What stands in a log."""
        return (self.directory / "log" / name).read_text()


def _replace(launch: Launch, name: str, value: object) -> Launch:
    fields = {field: getattr(launch, field) for field in launch.__slots__}
    return Launch(**{**fields, name: value})


@pytest_asyncio.fixture
async def shims(open_path: Path) -> AsyncIterator[ShimWorld]:
    """As it comes: with cgroups where this machine has them."""
    world = ShimWorld(open_path)
    yield world
    await world.end()


@pytest_asyncio.fixture(params=["with a cgroup", "without a cgroup"])
async def both(
    request: pytest.FixtureRequest, open_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ShimWorld]:
    """With and without cgroups: neither may lean on the other."""
    if request.param == "without a cgroup":
        monkeypatch.setattr(linux, "own_cgroup", lambda: None)
    world = ShimWorld(open_path)
    yield world
    await world.end()


__all__ = ["ENV", "ID", "Limits", "LogPolicy", "ShimWorld", "asyncio"]
