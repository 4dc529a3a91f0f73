"""What each route does: read the request strictly, ask the service, answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from supervisor_d.api import answers
from supervisor_d.api.service import Caller, Service
from supervisor_d.api.streams import finite, follow_entries, follow_logs
from supervisor_d.api.wire import MAX_LINES, OperateRequest, Outcome
from supervisor_d.errors import RequestError, UnknownNameError
from supervisor_d.logs.files import TRIALS, lanes
from supervisor_d.logs.follower import Follower, selection_of
from supervisor_d.logs.history import read_history

BODY_SECONDS = 10.0
MAX_NAMES = 100


@dataclass(slots=True)
class Running:
    """Operations that go on, whoever waits for them, and the places for those who follow logs."""

    operations: set[asyncio.Task[Any]] = field(default_factory=set)
    streams: set[asyncio.Task[Any]] = field(default_factory=set)
    log_followers: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(16))

    async def to_its_end(self, operation: Coroutine[Any, Any, Outcome]) -> Outcome:
        """Wait for an operation; it goes on when the one who asked goes away."""
        task = asyncio.ensure_future(operation)
        self.operations.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    @contextmanager
    def streaming(self) -> Iterator[None]:
        """An answer that goes on until its reader leaves, or the server stops."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a stream is a task's")
        self.streams.add(task)
        try:
            yield
        finally:
            self.streams.discard(task)

    def end_streams(self) -> None:
        """End every stream."""
        for task in tuple(self.streams):
            task.cancel()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self.operations.discard(task)
        if not task.cancelled():
            task.exception()  # told to the caller, if it is still there


@dataclass(frozen=True, slots=True)
class Call:
    """One request, with who makes it."""

    request: web.Request
    service: Service
    caller: Caller
    running: Running

    async def body(self) -> OperateRequest:
        """The body.  Raises RequestError when it is not one, or does not arrive in time."""
        return answers.operate_request(await self.data())

    async def data(self) -> bytes:
        """The body as it came.  Raises RequestError when it does not arrive in time."""
        try:
            async with asyncio.timeout(BODY_SECONDS):
                return await self.request.read()
        except TimeoutError:
            raise RequestError(f"cannot read the request: its body did not arrive within {BODY_SECONDS:g} s") from None


Handler = Callable[[Call], Awaitable[web.StreamResponse]]


async def status(call: Call) -> web.StreamResponse:
    """The picture of this instant: daemon, pools, processes."""
    answers.known_only(call.request.query, ())
    await call.service.sampled()
    return answers.answer(call.service.snapshot())


async def events(call: Call) -> web.StreamResponse:
    """Journal entries; with follow=1 they go on."""
    query = call.request.query
    answers.known_only(query, ("after", "pool", "subject", "lines", "follow"))
    after = answers.whole_number(query, "after", 0, 2**62)
    limit = answers.whole_number(query, "lines", 100, MAX_LINES)
    pool, subject = query.get("pool", ""), query.get("subject", "")
    if answers.flag(query, "follow"):
        with call.running.streaming():
            return await follow_entries(
                call.request, call.service, after=after, pool=pool, subject=subject, limit=limit
            )
    entries = call.service.entries(after=after, pool=pool, subject=subject, limit=limit) if limit else ()
    return await finite(call.request, entries)


async def logs(call: Call) -> web.StreamResponse:
    """Lines of workers' logs, merged; with follow=1 they go on."""
    query = call.request.query
    answers.known_only(query, ("name", "lines", "since", "follow"))
    lines = answers.whole_number(query, "lines", 100, MAX_LINES)
    since = answers.unix_time(query, "since")
    names = tuple(query.getall("name", ()))
    _refuse_unknown(names, call.service)
    select = selection_of(call.service.log_directories, names)
    if answers.flag(query, "follow"):
        return await _follow_logs(call, Follower(select), lines, since)
    history = await asyncio.to_thread(lambda: read_history(lanes(select()), lines=lines, since=since))
    return await finite(call.request, history.lines)


async def _follow_logs(call: Call, follower: Follower, lines: int, since: float | None) -> web.StreamResponse:
    with follower, call.running.streaming():
        if call.running.log_followers.locked():
            raise RequestError("cannot follow the logs: too many follow them already", hint="end one of the others")
        async with call.running.log_followers:
            return await follow_logs(call.request, follower, lines, since)


def _refuse_unknown(names: tuple[str, ...], service: Service) -> None:
    """Raises UnknownNameError for a name that is neither a pool nor a pool's slot."""
    pools = service.log_directories().keys()
    if len(names) > MAX_NAMES:
        raise RequestError(f"cannot read the query: more than {MAX_NAMES} names")
    for name in names:
        pool, dot, slot = name.rpartition(".")
        if name not in pools and not (dot and pool in pools and (slot.isdecimal() or slot in TRIALS)):
            raise UnknownNameError(f"cannot find a pool or slot {name[:200]!r}", hint=answers.meant(name, pools))


async def diff(call: Call) -> web.StreamResponse:
    """What a reload would do now."""
    answers.known_only(call.request.query, ())
    return answers.answer(await call.service.diff())


async def reload(call: Call) -> web.StreamResponse:
    """Apply the config file, whole or not at all."""
    request = await call.body()
    if request.pools or request.workers is not None:
        raise RequestError("cannot reload single pools: a config is applied whole or not at all")
    return await _operate(call, call.service.reload(call.caller, request.wait_seconds))


async def scale(call: Call) -> web.StreamResponse:
    """Want another number of workers of a pool; null gives it back to its config."""
    request = await call.body()
    if len(request.pools) != 1 or request.label:
        raise RequestError("cannot scale: name one pool")
    return await _operate(call, call.service.scale(call.caller, request))


async def start(call: Call) -> web.StreamResponse:
    """Start stopped pools, and give failed ones a fresh try."""
    return await _operate(call, call.service.start(call.caller, await _pools_only(call)))


async def stop(call: Call) -> web.StreamResponse:
    """Stop pools until they are started again."""
    return await _operate(call, call.service.stop(call.caller, await _pools_only(call)))


async def restart(call: Call) -> web.StreamResponse:
    """Replace the pools' processes by a rollout of the same spec."""
    return await _operate(call, call.service.restart(call.caller, await _pools_only(call)))


async def deploy(call: Call) -> web.StreamResponse:
    """Apply the config file and roll the project's code, as one: oneshots first, each pool in its turn."""
    request = await call.body()
    if request.workers is not None:
        raise RequestError("cannot read the request: `workers` belongs to scale alone")
    return await _operate(call, call.service.deploy(call.caller, request))


async def rollback(call: Call) -> web.StreamResponse:
    """Go back to what ruled before, by a rollout; give up one that is under way."""
    return await _operate(call, call.service.rollback(call.caller, await _pools_only(call)))


async def upgrade(call: Call) -> web.StreamResponse:
    """Let new code prove itself, answer, and become it."""
    request = answers.upgrade_request(await call.data())
    response = answers.answer(await call.service.upgrade(call.caller, request.python))
    response.force_close()
    await response.prepare(call.request)
    await response.write_eof()
    call.service.hand_over()
    return response


async def shutdown(call: Call) -> web.StreamResponse:
    """Stop everything, then end the daemon; answered at once."""
    await _pools_only(call)
    call.service.shutdown(call.caller)
    return answers.answer(Outcome(ok=True, message="stopping"))


async def _pools_only(call: Call) -> OperateRequest:
    request = await call.body()
    if request.workers is not None or request.label:
        raise RequestError("cannot read the request: `workers` belongs to scale alone, `label` to deploy")
    return request


async def _operate(call: Call, operation: Coroutine[Any, Any, Outcome]) -> web.StreamResponse:
    return answers.answer(await call.running.to_its_end(operation))
