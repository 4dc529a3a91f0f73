"""Answers that go on: the journal and the logs as lines of JSON, for as long as the reader stays and keeps up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from aiohttp import web

from supervisor_d.api.answers import NDJSON
from supervisor_d.api.service import Following, Service
from supervisor_d.api.wire import Dropped
from supervisor_d.core.snapshot import Entry
from supervisor_d.logs.follower import Follower

WRITE_SECONDS = 30.0
"""How long a reader may leave a full connection unread before it is dropped."""

_log = logging.getLogger(__name__)
_encoder = msgspec.json.Encoder()


@asynccontextmanager
async def streaming(request: web.Request) -> AsyncIterator[web.StreamResponse]:
    """The answer to write into.  Once its head is out no other answer can be given: a bug can only cut it off."""
    response = web.StreamResponse(headers={"Content-Type": NDJSON})
    response.force_close()
    await response.prepare(request)
    try:
        yield response
    except (ConnectionResetError, asyncio.CancelledError):
        raise
    except Exception:  # noqa: BLE001  the same for a stream
        _log.exception("a stream failed: %s", request.path)
        _cut_off(request)
        raise ConnectionResetError("the stream failed") from None


def _cut_off(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


async def send(request: web.Request, response: web.StreamResponse, values: Iterable[Any]) -> None:
    """Send values, a line each.  A reader who takes nothing for WRITE_SECONDS is cut off (ConnectionResetError)."""
    data = _encoder.encode_lines(values)
    if not data:
        return
    try:
        async with asyncio.timeout(WRITE_SECONDS):
            await response.write(data)
    except TimeoutError:
        _cut_off(request)
        raise ConnectionResetError("the reader is too slow") from None


async def follow_entries(
    request: web.Request, service: Service, *, after: int, pool: str, subject: str, limit: int
) -> web.StreamResponse:
    """The last entries, then each as it is made."""
    woken = asyncio.Event()
    with service.follow(woken.set) as following:
        past = service.entries(after=after, pool=pool, subject=subject, limit=limit) if limit else ()
        async with streaming(request) as response:
            await send(request, response, past)
            told = past[-1].serial if past else after
            dropped = following.dropped
            while True:
                await woken.wait()
                woken.clear()
                values, dropped = _new(following, dropped)
                await send(request, response, [v for v in values if _wanted(v, told, pool, subject)])


def _new(following: Following, told_dropped: int) -> tuple[list[Entry | Dropped], int]:
    """What arrived, behind a word on what was lost before it."""
    entries = following.take()
    lost = following.dropped - told_dropped
    return ([Dropped(lost), *entries] if lost else list(entries)), following.dropped


def _wanted(value: Entry | Dropped, told: int, pool: str, subject: str) -> bool:
    if isinstance(value, Dropped):
        return True
    about = not subject or value.subject == subject or value.subject.startswith(f"{subject}@")
    return value.serial > told and about and (not pool or value.pool == pool)


async def follow_logs(request: web.Request, follower: Follower, lines: int, since: float | None) -> web.StreamResponse:
    """The last lines, then each as it is written."""
    history = await asyncio.to_thread(follower.history, lines, since)
    async with streaming(request) as response:
        await send(request, response, history)
        async for batch in follower.added():
            await send(request, response, batch)
    return response


async def finite(request: web.Request, values: Iterable[Any]) -> web.StreamResponse:
    """An answer of these values, a line each."""
    async with streaming(request) as response:
        await send(request, response, values)
    return response
