"""HTTP load from a process of its own, for a server in another network: python -m tests.support.hammer PORT

Each line on standard input is answered by one of JSON: what happened since the line before.  Its end ends the load.
"""

from __future__ import annotations

import asyncio
import json
import sys

from tests.support.load import Load


async def main(port: int) -> None:
    """Until standard input ends."""
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    load = Load(port, clients=3)
    async with load:
        done = 0
        while await lines.readline():
            report = {"done": load.done - done, "failed": load.failed, "slowest_seconds": load.slowest_seconds}
            done, load.failed, load.slowest_seconds = load.done, [], 0.0
            print(json.dumps(report), flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
