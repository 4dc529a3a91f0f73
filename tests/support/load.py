"""A small, bounded HTTP load that counts every outcome other than a complete answer of 200 as failed.

    async with Load(port, "/", clients=4) as load:
        ...
    assert load.failed == []

Half of the clients open a connection for each request, half keep theirs.  A kept connection that the server says it
will close (`Connection: close`) is replaced, as every client does; one that is cut while a request is on it has failed.
"""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Self

from tests.support.http_client import Connection

THINK_SECONDS = 0.01
REQUEST_SECONDS = 15.0
MOST_REQUESTS = 20_000


class Load:
    """Closed-loop clients on one port, for as long as the block runs."""

    def __init__(self, port: int, path: str = "/", *, clients: int = 4) -> None:
        self._port = port
        self._path = path
        self._clients = clients
        self._ending = False
        self._tasks: list[asyncio.Task[None]] = []
        self.done = 0
        self.failed: list[str] = []
        self.bodies: set[bytes] = set()
        self.slowest_seconds = 0.0

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._client(keep=n % 2 == 1)) for n in range(self._clients)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending = True
        await asyncio.gather(*self._tasks)

    async def _client(self, *, keep: bool) -> None:
        connection: Connection | None = None
        while not self._ending and self.done + len(self.failed) < MOST_REQUESTS:
            began = time.monotonic()
            try:
                async with asyncio.timeout(REQUEST_SECONDS):
                    connection = connection or await Connection.open(self._port)
                    self.bodies.add((await connection.get(self._path, keep=keep)).body)
                self.done += 1
            except (OSError, EOFError, ValueError, TimeoutError) as failure:
                self.failed.append(f"{'kept' if keep else 'new'} connection: {type(failure).__name__}: {failure}")
            self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - began)
            if connection is not None and (connection.closing or not keep):
                connection.close()
                connection = None
            await asyncio.sleep(THINK_SECONDS)
        if connection is not None:
            connection.close()
