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
        connection: _Connection | None = None
        while not self._ending and self.done + len(self.failed) < MOST_REQUESTS:
            began = time.monotonic()
            try:
                async with asyncio.timeout(REQUEST_SECONDS):
                    connection = connection or await _Connection.open(self._port)
                    self.bodies.add(await connection.get(self._path, keep=keep))
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


class _Connection:
    """One connection and the answers on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.closing = False

    @classmethod
    async def open(cls, port: int) -> Self:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def get(self, path: str, *, keep: bool) -> bytes:
        """The body of a complete 200.  Raises ValueError for any other, EOFError for a torn one."""
        self.closing = True  # until a whole answer says otherwise
        word = "keep-alive" if keep else "close"
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: {word}\r\n\r\n".encode())
        await self._writer.drain()
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        if head[0].split()[1] != "200":
            raise ValueError(head[0])
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        body = await self._reader.readexactly(int(headers["content-length"]))
        self.closing = headers.get("connection", "").lower() == "close"
        return body

    def close(self) -> None:
        self._writer.close()
