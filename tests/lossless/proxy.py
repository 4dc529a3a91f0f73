"""A network between a worker and its broker that can fall silent: no byte passes, nothing is closed, nobody is told.

    with SilentProxy(broker_port) as proxy:     # workers connect to proxy.port
        proxy.fall_silent()
        ...
        proxy.speak()

While it is silent, connections stay open and new ones are accepted; what was sent into it arrives when it speaks again,
unless the one it is for has given up by then: as with packets that are lost on the way for a while.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

from tests.lossless.process import LoadProcess, speak, tell
from tests.support import net

CHUNK_BYTES = 65536
FALL_SILENT, SPEAK = "silent", "speak"


class _Proxy:
    """The network itself, inside its process."""

    def __init__(self, port: int, broker_port: int) -> None:
        self._port = port
        self._broker_port = broker_port
        self._passing = asyncio.Event()
        self._passing.set()
        self._ended = asyncio.Event()
        self.connections = 0

    async def run(self) -> None:
        async with await asyncio.start_server(self._connected, "127.0.0.1", self._port):
            await self._ended.wait()

    def end(self) -> None:
        self._ended.set()

    def told(self, word: str) -> None:
        """What the test asks for."""
        if word == FALL_SILENT:
            self._passing.clear()
        elif word == SPEAK:
            self._passing.set()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        await self._passing.wait()
        with suppress(OSError):
            from_broker, to_broker = await asyncio.open_connection("127.0.0.1", self._broker_port)
            await asyncio.gather(self._pass(reader, to_broker), self._pass(from_broker, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                await self._passing.wait()
                writer.write(data)
                await writer.drain()
        await self._passing.wait()
        writer.close()


class SilentProxy(LoadProcess[dict[str, int]]):
    """The network, as a test holds it."""

    def __init__(self, broker_port: int) -> None:
        (self.port,) = net.free_ports(1)
        super().__init__("tests.lossless.proxy", dict, self.port, broker_port)

    def fall_silent(self) -> None:
        """From now on, no byte passes."""
        self.counts(FALL_SILENT)

    def speak(self) -> None:
        """From now on, everything passes again."""
        self.counts(SPEAK)


async def _main(port: int, broker_port: int) -> None:
    proxy = _Proxy(port, broker_port)
    await speak(proxy.run(), lambda: [proxy.connections], proxy.end, proxy.told)
    tell({"connections": proxy.connections})


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), int(sys.argv[2])))
