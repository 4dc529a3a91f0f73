"""The harness can fail: what is left behind is found and named, and a torn answer is counted."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

from tests.support import procs
from tests.support.daemon import Daemon
from tests.support.load import Load
from tests.support.marker import Marker, MentionMarker, new_marker
from tests.support.waiting import wait_for

ESCAPE = "(setsid sh -c 'exec sleep 611 </dev/null >/dev/null 2>&1' &) ; exit 0"


@pytest.mark.real
@pytest.mark.skip_allowed("where no cgroup can be made, the mark is a weaker one")
def test_what_escaped_into_a_session_of_its_own_is_found_named_and_killed() -> None:
    daemon = Daemon()
    if not daemon.marker.sure:
        daemon.close()
        pytest.skip("no cgroup can be made here")
    subprocess.run(daemon.marker.entering(["sh", "-c", ESCAPE]), check=True, cwd="/", env={"PATH": "/usr/bin:/bin"})
    wait_for(lambda: [procs.command_line(pid) for pid in daemon.marker.members()] == ["sleep 611"], 5, "the sleeper")
    (pid,) = daemon.marker.members()
    with pytest.raises(AssertionError, match=r"left behind:\npid [0-9]+ .*: sleep 611"):
        daemon.close()
    assert not procs.alive(pid)
    assert not daemon.directory.exists()


@pytest.mark.real
@pytest.mark.parametrize("make", [new_marker, MentionMarker])
def test_a_marker_sees_its_own_only_and_clears_them(make: type[MentionMarker], tmp_path: Path) -> None:
    marker: Marker = make(tmp_path)
    other = subprocess.Popen(["sleep", "612"], cwd="/")
    marked = subprocess.Popen(marker.entering(["sleep", "613"]), cwd=tmp_path)
    try:
        while not procs.command_line(marked.pid).startswith("sleep"):
            assert marked.poll() is None
        assert marker.members() == {marked.pid}
        marker.clear()
        assert marked.wait(5) == -9
        assert other.poll() is None
    finally:
        for process in (other, marked):
            process.kill()
            process.wait()


async def test_a_load_counts_what_was_torn_refused_or_not_200() -> None:
    answers = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nto",
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
        b"",
    ]
    left = list(answers)
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if left:
            writer.write(left.pop(0))
            await writer.drain()
        else:
            over.set()
            writer.write(answers[0])
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, Load(server.sockets[0].getsockname()[1], clients=1) as load:
        await asyncio.wait_for(over.wait(), 10)
    assert load.done >= 1
    assert [text.split(": ")[1] for text in load.failed] == ["TornError", "RefusedStatusError", "TornError"]
    assert load.bodies == {b"good"}


async def test_a_load_counts_a_refused_connection() -> None:
    server = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    async with asyncio.timeout(10):
        async with Load(port, clients=1) as load:
            while not load.failed:
                await asyncio.sleep(0)
    assert load.done == 0
    assert "ConnectionRefusedError" in load.failed[0]
