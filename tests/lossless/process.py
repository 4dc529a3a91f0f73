"""A load in a process of its own, so that neither the test nor what the test waits for slows it down.

Spoken over pipes: each line to the load is answered by one with its counts, the end of its input by everything that it
has to tell; then it exits.  It ends with the test's process, whose end closes the pipe, and by its own bounds.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import msgspec

from tests.support.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
END_SECONDS = 60.0
T = TypeVar("T")


class LoadProcess(Generic[T]):
    """The load as a test holds it: it runs for as long as the block does, and `told` says then what became of it."""

    def __init__(self, module: str, told: type[T], *args: object) -> None:
        self._argv = [sys.executable, "-m", module, *map(str, args)]
        self._type = told
        self.told: T = told()

    def __enter__(self) -> Self:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(self._argv, stdin=pipe, stdout=pipe, cwd=ROOT, text=True)
        self.counts()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
        if error is not None:
            print(f"the load until then: {self.told}"[:5000])

    def end(self) -> None:
        """End it before the block does."""
        if self._process.returncode is not None:
            return
        try:
            out, _ = self._process.communicate(timeout=END_SECONDS)
        finally:
            self._process.kill()
            self._process.wait()
        self.told = msgspec.json.decode(out, type=self._type)

    def counts(self, word: str = "") -> list[int]:
        """What it counts, so far; with a word, which it has heeded by then."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        found: list[int] = json.loads(self._process.stdout.readline())
        return found

    def done(self) -> int:
        """The first of the counts: what went well."""
        return self.counts()[0]

    def wait_more(self, count: int, seconds: float = 60.0) -> None:
        """Wait until so many more went well."""
        enough = self.done() + count
        wait_for(lambda: self.done() >= enough, seconds, f"{count} more to go well")


def _heed_nothing(_: str) -> None:
    pass


async def speak(
    load: Awaitable[None],
    counts: Callable[[], list[int]],
    end: Callable[[], None],
    heed: Callable[[str], None] = _heed_nothing,
) -> None:
    """The load's own side of the pipes, until its input ends and then it has ended."""
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    running = asyncio.ensure_future(load)
    while line := await lines.readline():
        heed(line.decode().strip())
        print(json.dumps(counts()), flush=True)
    end()
    await running


def tell(everything: dict[str, Any]) -> None:
    """The load's last words."""
    print(json.dumps(everything), flush=True)
