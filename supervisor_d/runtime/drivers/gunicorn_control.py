"""gunicorn's control socket, as a client: one question, one answer, one connection (gunicorn/ctl/, since 25.1).

A frame is four bytes of length, big-endian, and JSON.  What the answers say and what they do not (gunicorn 27.0.1):

- `show workers` lists pid and last_heartbeat.  `booted` there is never true: it is set in the worker, after the fork.
  The heartbeat is the readiness: a worker that still imports shows a hugely negative age, since the file's time is the
  wall clock's until the worker first writes the monotonic one; from then on it is zero or more.
- `show stats` says workers_target, the number the master steers for.  `worker add N` and `worker remove N` change it.
  They are relative, and an answer can be lost, so every correction is computed from a target that was just read.
- An answer does not prove that the master's main loop lives; that the count comes true does.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import struct
from dataclasses import dataclass
from typing import Any

from supervisor_d.runtime.drivers.members import MEMBERS_MAX
from supervisor_d.runtime.proc import listener_pid

ANSWER_SECONDS = 2.0
ANSWER_MAX_BYTES = 1024 * 1024

_ids = itertools.count(1)


class ControlError(Exception):
    """The control socket gave no usable answer: not there, not yet, not the master, or not understood."""


@dataclass(frozen=True, slots=True)
class Workers:
    """What a master says of its workers: whom it has, which of them serve, and how many it wants."""

    pids: tuple[int, ...]
    booted: frozenset[int]
    target: int


async def correct(path: str, master: int, target: int, wanted: int) -> None:
    """Move a master from the target it has to the one that is wanted.  Raises ControlError."""
    word = "add" if wanted > target else "remove"
    await ask(path, master, f"worker {word}", str(abs(wanted - target)))


async def ask_workers(path: str, master: int) -> Workers:
    """The workers of a master.  Raises ControlError."""
    shown = await ask(path, master, "show workers")
    stats = await ask(path, master, "show stats")
    match shown.get("workers"), stats.get("workers_target"):
        case list(entries), int(target):
            pids = [(e["pid"], e.get("last_heartbeat")) for e in entries[:MEMBERS_MAX] if _is_worker(e)]
        case _:
            raise ControlError("an answer without workers")
    booted = frozenset(pid for pid, beat in pids if isinstance(beat, int | float) and beat >= 0)
    return Workers(tuple(pid for pid, _ in pids), booted, target)


def _is_worker(entry: object) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("pid"), int) and entry["pid"] > 1


async def ask(path: str, master: int, command: str, *args: str) -> dict[str, Any]:
    """The data of one answer.  `path` lies in a directory of the pool's user, so nothing about it is believed: who
    listens must be the master itself, and what it says is bounded in size and time.  Raises ControlError.
    """
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            return await _exchange(path, master, {"id": next(_ids), "command": command, "args": list(args)})
    except (OSError, ValueError, EOFError, TimeoutError, RecursionError) as error:
        raise ControlError(f"{command}: {type(error).__name__}: {error}") from error


async def _exchange(path: str, master: int, question: dict[str, Any]) -> dict[str, Any]:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        if listener_pid(writer.get_extra_info("socket")) != master:
            raise ControlError("another process listens there")
        body = json.dumps(question).encode()
        writer.write(struct.pack(">I", len(body)) + body)
        (size,) = struct.unpack(">I", await reader.readexactly(4))
        if size > ANSWER_MAX_BYTES:
            raise ControlError(f"an answer of {size} bytes")
        answer = json.loads(await reader.readexactly(size))
    finally:
        writer.transport.abort()
    if not isinstance(answer, dict) or answer.get("status") != "ok" or not isinstance(answer.get("data"), dict):
        raise ControlError("the master refused")
    data: dict[str, Any] = answer["data"]
    return data
