"""One question to a process, asked once: http, tcp and exec.  Each is bounded by its caller's timeout.

An http probe closes its connection itself, as soon as the answer's end or a tenth of a second has passed: gunicorn's
gthread workers wait in their accept loop, up to two seconds, for a client that does not close (close_graceful).
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO

from supervisor_d.core.spec import Launch
from supervisor_d.programs.addresses import Address, HttpTarget
from supervisor_d.runtime.proc import children_of, parent_of
from supervisor_d.shim.wire import Account

STATUS_LINE_MAX_BYTES = 8192
BODY_MAX_BYTES = 64 * 1024
DRAIN_SECONDS = 0.1
KILL_ROUNDS = 20

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def ask_http(question: HttpTarget) -> int | None:
    """The status of one GET; None when what came is not HTTP.  Raises OSError when nobody listens."""
    reader, writer = await _connect(question.address)
    try:
        writer.write(
            f"GET {question.target} HTTP/1.1\r\nHost: {question.host}\r\nUser-Agent: supervisor-d\r\n"
            "Accept: */*\r\nConnection: close\r\n\r\n".encode("ascii")
        )
        status = _status(await reader.readline())
        with suppress(TimeoutError, OSError):
            async with asyncio.timeout(DRAIN_SECONDS):
                await _drain(reader)
        return status
    except ValueError:  # a line longer than the reader's limit
        return None
    finally:
        writer.transport.abort()


async def ask_tcp(address: Address) -> None:
    """Connect and close again.  Raises OSError when nobody listens."""
    _, writer = await _connect(address)
    writer.transport.abort()


async def ask_exec(argv: tuple[str, ...], launch: Launch, account: Account | None) -> int:
    """The exit code of a command, run as the pool's user in its directory and environment, without any output.

    Cancelled (out of time), it kills the command and all that it started.  Raises OSError when it cannot be run.
    """
    child = start_as(argv, launch.env, launch.cwd, account)
    await end_of(child)
    return child.returncode


def start_as(
    argv: Sequence[str],
    env: Mapping[str, str],
    cwd: str,
    account: Account | None,
    *,
    output: tuple[int | IO[bytes], int | IO[bytes]] = (subprocess.DEVNULL, subprocess.DEVNULL),
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a command as a user, in a session of its own, without input.  Raises OSError when it cannot be run."""
    return subprocess.Popen(
        argv, env=env, cwd=cwd or "/", stdin=subprocess.DEVNULL, stdout=output[0], stderr=output[1],
        pass_fds=pass_fds, start_new_session=True,
        user=account["uid"] if account else None,
        group=account["gid"] if account else None,
        extra_groups=account["groups"] if account else None,
    )  # fmt: skip


async def end_of(child: subprocess.Popen[bytes]) -> None:
    """Return when it has ended and was reaped; cancelled, kill it and all that it started."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    pidfd = os.pidfd_open(child.pid)
    try:
        loop.add_reader(pidfd, ended.set)
        await ended.wait()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)
        kill_tree(child)


def kill_tree(child: subprocess.Popen[bytes]) -> None:
    """SIGKILL a command, everything below it and everything in its session; reap it.

    While `child` is not reaped its pid, and so its process group, cannot be another's.  Descendants that moved to a
    session of their own are found below it as long as their parents live, so they are killed from the leaves up.
    """
    for _ in range(KILL_ROUNDS):
        if not _kill_below(child.pid):
            break
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _kill_below(pid: int) -> int:
    """SIGKILL the descendants of a process; how many there were."""
    killed = 0
    for below in children_of(pid):
        killed += _kill_below(below)
        with suppress(OSError):
            pidfd = os.pidfd_open(below)
            try:
                if parent_of(below) == pid and _alive(pidfd):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    killed += 1
            finally:
                os.close(pidfd)
    return killed


def _alive(pidfd: int) -> bool:
    return not select.select([pidfd], [], [], 0)[0]


async def _connect(address: Address) -> Connection:
    if address.path:
        return await asyncio.open_unix_connection(address.path, limit=STATUS_LINE_MAX_BYTES)
    return await asyncio.open_connection(address.host, address.port, limit=STATUS_LINE_MAX_BYTES)


async def _drain(reader: asyncio.StreamReader) -> None:
    read = 0
    while read < BODY_MAX_BYTES:
        data = await reader.read(BODY_MAX_BYTES)
        if not data:
            return
        read += len(data)


def _status(line: bytes) -> int | None:
    """The status of `HTTP/1.1 200 OK`."""
    version, _, rest = line.partition(b" ")
    code = rest[:3]
    return int(code) if version.startswith(b"HTTP/1.") and code.isdigit() and len(code) == 3 else None
