"""The API's server on the control socket.

Who calls is asked of the kernel, once for each connection, before a route is looked at; a route is reached only
through the table in routes.py, and only at its level.  One request for each connection keeps both simple.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

from supervisor_d.api import answers
from supervisor_d.api.access import AccessRules, peer_of
from supervisor_d.api.control_socket import bind_control_socket, remove_control_socket
from supervisor_d.api.guard import ConnectionLimits, Guard
from supervisor_d.api.handlers import Call, Running
from supervisor_d.api.routes import ROUTES, Route
from supervisor_d.api.service import Caller, Service
from supervisor_d.api.wire import MAX_BODY_BYTES, ErrorBody
from supervisor_d.errors import InternalError, NotPermittedError, SupervisorError

_log = logging.getLogger(__name__)
_Plain = Callable[[web.Request], Awaitable[web.StreamResponse]]
_GRACE_SECONDS = 2.0
"""How long answers that are on their way may take when the server stops."""


class ControlServer:
    """Serves `service` on a unix socket to those whom `rules` let in."""

    def __init__(self, service: Service, rules: AccessRules, limits: ConnectionLimits | None = None) -> None:
        self._service = service
        self._path: Path | None = None
        self._rules = rules
        self._limits = limits or ConnectionLimits()
        self._running = Running()
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None
        self._guard: Guard | None = None

    async def start(self, path: Path, listener: socket.socket | None = None) -> None:
        """Serve on `path`, which is bound unless `listener` is just that.  The caller holds the daemon's lock.

        Raises PrepareError, AlreadyRunningError.
        """
        listener = listener or bind_control_socket(path, self._rules)
        self._path = path
        self._runner = web.AppRunner(
            self._app(), access_log=None, handler_cancellation=True, shutdown_timeout=_GRACE_SECONDS
        )
        self._guard = Guard(await protocol_factory(self._runner), self._owner_of, self._limits)
        self._server = await asyncio.get_running_loop().create_unix_server(self._guard, sock=listener)

    async def close(self) -> None:
        """Accept nothing more, end what goes on, remove the socket."""
        if self._server is not None:
            self._server.close()
        if self._path is not None:
            remove_control_socket(self._path)
        self._running.end_streams()
        if self._runner is not None:
            await self._runner.cleanup()

    def _app(self) -> web.Application:
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[self._guarded])
        for route in ROUTES:
            app.router.add_route(route.method, route.path, self._handler(route))
        app.on_response_prepare.append(_tidy_head)
        return app

    def _handler(self, route: Route) -> _Plain:
        async def handle(request: web.Request) -> web.StreamResponse:
            caller = self._caller(request)
            if caller.level < route.level:
                raise NotPermittedError(
                    f"cannot {route.path.rpartition('/')[2]}: {caller.user} has the level {caller.level}, "
                    f"and it takes {route.level}",
                    hint="see `control:` under `daemon:` in the config, or ask root",
                )
            return await route.handler(Call(request, self._service, caller, self._running))

        return handle

    def _caller(self, request: web.Request) -> Caller:
        connection = request.transport.get_extra_info("socket") if request.transport is not None else None
        try:
            peer = peer_of(connection) if connection is not None else None
        except OSError:
            peer = None
        if peer is None:
            raise NotPermittedError("cannot tell who is calling: the connection is gone")
        return self._rules.caller(peer)

    def _owner_of(self, transport: asyncio.Transport) -> int | None:
        """The uid that a new connection is counted by."""
        connection: socket.socket = transport.get_extra_info("socket")
        try:
            return peer_of(connection).uid
        except OSError:
            return None

    @web.middleware
    async def _guarded(self, request: web.Request, handler: _Plain) -> web.StreamResponse:
        """One place where errors become answers: an operator's mistake never reads as a bug."""
        if self._guard is not None:
            self._guard.request_began(request.transport)
        try:
            response = await handler(request)
        except SupervisorError as error:
            response = answers.refusal(error)
        except web.HTTPException as error:
            response = answers.plain_refusal(error.status, _http_error(request, error))
        except (ConnectionResetError, asyncio.CancelledError):
            raise
        except Exception:  # noqa: BLE001  a bug in one answer must not end the others; the log has it whole
            _log.exception("a request failed: %s %s", request.method, request.path)
            response = answers.refusal(InternalError("cannot do that: the daemon met a bug; its log has the details"))
        response.force_close()
        return response


def _http_error(request: web.Request, error: web.HTTPException) -> ErrorBody:
    """Words for what aiohttp refuses by itself."""
    if error.status == 404:
        return ErrorBody(f"cannot find the route {request.path[:200]!r}", "docs/api.md lists all routes", 66)
    if error.status == 405:
        return ErrorBody(f"cannot {request.method} {request.path[:200]}", "docs/api.md lists all routes", 64)
    if error.status == 413:
        return ErrorBody(f"cannot read the request: its body is larger than {MAX_BODY_BYTES} bytes", "", 64)
    return ErrorBody(f"cannot serve the request: {error.reason}", "", 64)


async def protocol_factory(runner: web.AppRunner) -> Callable[[], asyncio.Protocol]:
    """What makes aiohttp's protocol for each connection; ours stands in front of it."""
    await runner.setup()
    if runner.server is None:
        raise InternalError("cannot serve HTTP: aiohttp made no server")
    return runner.server


async def _tidy_head(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.pop("Server", None)
    response.headers["Cache-Control"] = "no-store"
