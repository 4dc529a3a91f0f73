"""HTTP load that arrives whether or not the server keeps up, from a process of its own, judged at the client.

    with HttpLoad(port, rate=300) as load:
        wait_for(lambda: load.done() >= 1000, 30)
    assert load.told.failed == []

Requests arrive at random with a mean rate (Poisson: the gaps are exponential, from a seed), so that a server that
stands still meets all that came meanwhile; a closed loop would wait with it (tests/support/load.py is one).  Half of
them open a connection of their own, half take the longest idle one of a pool of kept connections.  Each carries a
token, and the answer must be a whole 200 whose body is made of that token: whatever else comes of a request is a
failure, with its time, its kind, and the worker that had answered on that connection before.

The time of an answer counts from when the request was sent; how late the client itself was to send it is told apart.
The load ends by itself after MOST_SECONDS or MOST_REQUESTS.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.lossless.process import LoadProcess, speak, tell
from tests.support.http_client import Answer, Connection

BODY_BYTES = 2048
HANDLER_MS = (20, 70)
"""The shortest and the longest time that a request asks the handler to take."""
REQUEST_SECONDS = 20.0
MOST_SECONDS = 1500.0
MOST_REQUESTS = 400_000
MOST_IN_FLIGHT = 3000
MOST_IDLE = 64
MOST_FAILURES_TOLD = 2000


@dataclass(frozen=True, slots=True)
class Failed:
    """One request without a whole and right answer."""

    at: float
    """CLOCK_MONOTONIC when it failed."""
    token: str
    kind: str
    kept: bool
    """Sent on a connection that had served before."""
    pid: int
    """The worker that answered last on that connection; 0 where nobody had."""
    seconds: float


@dataclass(slots=True)
class Told:
    """What became of the load."""

    done: int = 0
    failures: int = 0
    failed: list[Failed] = field(default_factory=list)
    """The first of them, at most MOST_FAILURES_TOLD."""
    on_kept: int = 0
    """Answers on a connection that had served before."""
    releases: dict[str, int] = field(default_factory=dict)
    pids: dict[str, int] = field(default_factory=dict)
    median_ms: float = 0.0
    p99_ms: float = 0.0
    slowest_ms: float = 0.0
    slowest_at: float = 0.0
    client_late_ms: float = 0.0
    """How late the client was, at worst, to send a request: what a busy machine adds to every time above."""


def body_of(token: str) -> bytes:
    """What the answer to this token must be."""
    return (token * (BODY_BYTES // len(token) + 1))[:BODY_BYTES].encode()


def _check(body: bytes, token: str) -> None:
    if body != body_of(token):
        raise ValueError(f"a wrong body of {len(body)} bytes, {body[:20]!r}")


def kind_of(failure: BaseException) -> str:
    """A failure in a few words."""
    match failure:
        case ConnectionRefusedError():
            return "refused"
        case ConnectionError():
            return "reset"
        case TimeoutError():
            return f"no answer within {REQUEST_SECONDS:g} s"
    return str(failure)


class _Client:
    """The load itself, inside its process."""

    def __init__(self, port: int, rate: float, seed: int) -> None:
        self._port = port
        self._rate = rate
        self._seed = seed
        self._random = random.Random(seed)
        self._idle: deque[tuple[Connection, int]] = deque()
        self._flying: set[asyncio.Task[None]] = set()
        self._seconds: list[float] = []
        self._releases: Counter[str] = Counter()
        self._pids: Counter[str] = Counter()
        self.ending = False
        self.told = Told()

    async def run(self) -> None:
        """Send until told to end; then wait for what is under way."""
        began = due = time.monotonic()
        for number in range(MOST_REQUESTS):
            due += self._random.expovariate(self._rate)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if self.ending or due - began > MOST_SECONDS:
                break
            self.told.client_late_ms = max(self.told.client_late_ms, (time.monotonic() - due) * 1000)
            self._send(f"{self._seed:08x}.{number}-", kept=number % 2 == 1)
        await asyncio.gather(*self._flying)
        while self._idle:
            self._idle.popleft()[0].close()

    def _send(self, token: str, *, kept: bool) -> None:
        if len(self._flying) >= MOST_IN_FLIGHT:
            self._failed(token, "too many were under way", time.monotonic())
            return
        task = asyncio.create_task(self._request(token, kept, self._random.randint(*HANDLER_MS)))
        self._flying.add(task)
        task.add_done_callback(self._flying.discard)

    async def _request(self, token: str, keep: bool, handler_ms: int) -> None:
        began = time.monotonic()
        connection, pid = self._longest_idle() if keep else (None, 0)
        kept = connection is not None
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                connection = connection or await Connection.open(self._port)
                answer = await connection.get(f"/work?token={token}&ms={handler_ms}", keep=keep)
            pid = int(answer.headers.get("x-pid", "0"))
            _check(answer.body, token)
            self._answered(began, answer, kept=kept)
        except (OSError, EOFError, ValueError, TimeoutError) as failure:
            self._failed(token, kind_of(failure), began, kept=kept, pid=pid)
        if connection is not None:
            self._put_back(connection, pid, keep=keep)

    def _longest_idle(self) -> tuple[Connection | None, int]:
        while self._idle:
            connection, pid = self._idle.popleft()
            if not connection.ended:
                return connection, pid
            connection.close()
        return None, 0

    def _put_back(self, connection: Connection, pid: int, *, keep: bool) -> None:
        if keep and not connection.ended and len(self._idle) < MOST_IDLE:
            self._idle.append((connection, pid))
        else:
            connection.close()

    def _answered(self, began: float, answer: Answer, *, kept: bool) -> None:
        now = time.monotonic()
        self._seconds.append(now - began)
        if (now - began) * 1000 > self.told.slowest_ms:
            self.told.slowest_ms, self.told.slowest_at = (now - began) * 1000, now
        self.told.done += 1
        self.told.on_kept += kept
        self._releases[answer.headers.get("x-release", "")] += 1
        self._pids[answer.headers.get("x-pid", "")] += 1

    def _failed(self, token: str, kind: str, began: float, *, kept: bool = False, pid: int = 0) -> None:
        now = time.monotonic()
        self.told.failures += 1
        if len(self.told.failed) < MOST_FAILURES_TOLD:
            self.told.failed.append(Failed(now, token, kind, kept, pid, now - began))

    def sum_up(self) -> dict[str, Any]:
        """All that is to tell, so far."""
        ordered = sorted(self._seconds)
        if ordered:
            self.told.median_ms = ordered[len(ordered) // 2] * 1000
            self.told.p99_ms = ordered[len(ordered) * 99 // 100] * 1000
        self.told.releases, self.told.pids = dict(self._releases), dict(self._pids)
        return asdict(self.told)

    def end(self) -> None:
        """Send nothing more."""
        self.ending = True


class HttpLoad(LoadProcess[Told]):
    """The load on a port of this host."""

    def __init__(self, port: int, *, rate: float = 300.0) -> None:
        super().__init__("tests.lossless.http_load", Told, port, rate, random.getrandbits(32))


async def _main(port: int, rate: float, seed: int) -> None:
    client = _Client(port, rate, seed)
    await speak(client.run(), lambda: [client.told.done, client.told.failures], client.end)
    tell(client.sum_up())


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])))
