"""What the API asks of the daemon: the one seam between HTTP and the runtime.

The daemon implements `Service`; the tests implement it too.  Every method is called from the event loop's thread, and
refuses with an error of supervisor_d.errors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from supervisor_d.api.wire import OperateRequest, Outcome, UpgradeAnswer
from supervisor_d.core.snapshot import Entry, Snapshot


class Level(IntEnum):
    """What a caller may do; each level includes those below it."""

    DENIED = 0
    READ = 1
    OPERATE = 2
    ADMIN = 3

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is at the other end of a connection, by the kernel's word (SO_PEERCRED), and what they may do."""

    uid: int
    gid: int
    pid: int
    user: str
    level: Level

    def __str__(self) -> str:
        """As the journal tells it: `alice (uid 1000, pid 4711)`."""
        return f"{self.user} (uid {self.uid}, pid {self.pid})"


class Following(Protocol):
    """What a follower of the journal has not read yet."""

    dropped: int
    """How many entries were lost because the follower was too slow; counted from the beginning."""

    def take(self) -> list[Entry]:
        """Everything that waits, and forget it.  Bounded."""
        ...


class Service(Protocol):
    """The daemon, as the API sees it."""

    async def sampled(self) -> None:
        """Return once the figures of processes (CPU, memory) are recent enough to be shown."""
        ...

    def snapshot(self) -> Snapshot:
        """The picture of this instant."""
        ...

    def entries(self, *, after: int = 0, pool: str = "", subject: str = "", limit: int = 100) -> tuple[Entry, ...]:
        """The newest `limit` journal entries behind serial `after`, oldest first; of one pool or subject if named."""
        ...

    def follow(self, wake: Callable[[], None]) -> AbstractContextManager[Following]:
        """Everything that is journalled while the context lasts; `wake` is called when something arrives."""
        ...

    def log_directories(self) -> Mapping[str, str]:
        """Pool name -> the directory of its logs, for every pool that exists."""
        ...

    async def diff(self) -> Outcome:
        """What a reload would do now."""
        ...

    async def reload(self, caller: Caller, wait_seconds: float) -> Outcome:
        """Apply the config file."""
        ...

    async def scale(self, caller: Caller, request: OperateRequest) -> Outcome:
        """Want another number of workers."""
        ...

    async def start(self, caller: Caller, request: OperateRequest) -> Outcome:
        """Start stopped pools, give failed ones a fresh try."""
        ...

    async def stop(self, caller: Caller, request: OperateRequest) -> Outcome:
        """Stop pools until they are started again."""
        ...

    async def restart(self, caller: Caller, request: OperateRequest) -> Outcome:
        """Replace processes by a rollout of the same spec."""
        ...

    async def deploy(self, caller: Caller, request: OperateRequest) -> Outcome:
        """Apply the config file and roll the project's code, as one."""
        ...

    async def rollback(self, caller: Caller, request: OperateRequest) -> Outcome:
        """Go back to what ruled before."""
        ...

    async def upgrade(self, caller: Caller, python: str) -> UpgradeAnswer:
        """Let new code prove itself.  Nothing has changed; `hand_over` follows, or nothing."""
        ...

    def hand_over(self) -> None:
        """Become what has proven itself.  Returns only when that failed, which the journal tells."""
        ...

    def shutdown(self, caller: Caller) -> None:
        """Stop everything in reverse order of dependencies, then end the daemon."""
        ...
