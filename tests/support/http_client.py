"""One HTTP/1.1 connection of a load: an answer is a complete 200, or an exception that says what was wrong with it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete 200."""

    headers: Mapping[str, str]
    body: bytes


class RefusedStatusError(ValueError):
    """A whole answer, but not 200."""


class TornError(EOFError):
    """The connection ended before the answer did."""


class Connection:
    """A connection and the answers on it, one at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.closing = False
        """The server has said that it will close (`Connection: close`), or an answer was not whole."""

    @classmethod
    async def open(cls, port: int, host: str = "127.0.0.1") -> Self:
        return cls(*await asyncio.open_connection(host, port))

    @property
    def ended(self) -> bool:
        """Whether the server has closed it, as far as is known by now: nobody would send a request on it."""
        return self.closing or self._reader.at_eof() or self._reader.exception() is not None

    async def get(self, path: str, *, keep: bool) -> Answer:
        """A complete 200.  Raises RefusedStatusError for any other, TornError for a torn one, OSError."""
        self.closing = True  # until a whole answer says otherwise
        word = "keep-alive" if keep else "close"
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: {word}\r\n\r\n".encode())
        await self._writer.drain()
        head = (await self._part(self._reader.readuntil(b"\r\n\r\n"), "head")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        if head[0].split()[1] != "200":
            raise RefusedStatusError(head[0])
        length = int(headers.get("content-length", "none"))
        body = await self._part(self._reader.readexactly(length), f"body of {length} bytes") if length else b""
        self.closing = headers.get("connection", "").lower() == "close"
        return Answer(headers, body)

    async def _part(self, read: Coroutine[Any, Any, bytes], what: str) -> bytes:
        try:
            return await read
        except asyncio.IncompleteReadError as cut:
            raise TornError(f"the connection ended after {len(cut.partial)} bytes of the {what}") from None

    def close(self) -> None:
        self._writer.close()
