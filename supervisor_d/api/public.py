"""The HTTP server on loopback TCP: metrics and a sign of life, for Prometheus and load balancers.

Whoever can run a program on this machine can read it, and so can, in a browser's hands, any page on the web: so
it only ever tells, never changes; it answers to the names of loopback alone (a rebound DNS name carries another Host:
Transmission's CVE-2018-5702); and no page may read, frame or cache what it says.  Another address than loopback is
refused until there is a token for it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable

from aiohttp import web

from supervisor_d.api.guard import ConnectionLimits, Guard
from supervisor_d.api.server import protocol_factory
from supervisor_d.errors import PrepareError

_log = logging.getLogger(__name__)
Exposition = Callable[[], Awaitable[tuple[bytes, str]]]
"""Makes the body and the content type of /metrics."""

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_NAMES = ("localhost", "127.0.0.1", "[::1]")
_TEXT = "text/plain"


def loopback_address(listen: str) -> tuple[str, int]:
    """Host and port of `127.0.0.1:9180`, `[::1]:9180` or `localhost:9180`.  Raises PrepareError for anything else."""
    host, _, port = listen.rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise PrepareError(f"cannot listen on {listen!r}: it is no address", hint="write it like 127.0.0.1:9180")
    bare = host.removeprefix("[").removesuffix("]")
    try:
        loopback = bare == "localhost" or ipaddress.ip_address(bare).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise PrepareError(
            f"cannot listen on {listen!r}: metrics are told on loopback only",
            hint="listen on 127.0.0.1, and let a proxy with TLS and a password stand in front of it",
        )
    return "127.0.0.1" if bare == "localhost" else bare, int(port)


class PublicServer:
    """Serves GET /metrics and GET /healthz on a loopback address."""

    def __init__(self, listen: str, exposition: Exposition, limits: ConnectionLimits | None = None) -> None:
        self._listen = listen
        self._exposition = exposition
        self._limits = limits or ConnectionLimits(connections=64, per_owner=64)
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None
        self._guard: Guard | None = None
        self._host = ""
        self.port = 0

    async def start(self) -> None:
        """Bind and serve; `port` is the one that is bound.  Raises PrepareError."""
        self._host, port = loopback_address(self._listen)
        listener = _bound(self._host, port, self._listen)
        self.port = listener.getsockname()[1]
        app = web.Application(client_max_size=1, middlewares=[self._guarded])
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", _healthz)
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0, max_line_size=2048, max_headers=64
        )
        self._guard = Guard(await protocol_factory(self._runner), lambda _: 0, self._limits)
        self._server = await asyncio.get_running_loop().create_server(self._guard, sock=listener)

    @property
    def address(self) -> str:
        """Where it listens, with the port that is bound."""
        return f"[{self._host}]:{self.port}" if ":" in self._host else f"{self._host}:{self.port}"

    async def close(self) -> None:
        """Close the socket and every connection."""
        if self._server is not None:
            self._server.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _metrics(self, _: web.Request) -> web.StreamResponse:
        body, content_type = await self._exposition()
        return web.Response(body=body, headers={"Content-Type": content_type})

    @web.middleware
    async def _guarded(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if self._guard is not None:
            self._guard.request_began(request.transport)
        response = await self._answer(request, handler)
        response.headers.update(HEADERS)
        response.force_close()
        return response

    async def _answer(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if not is_local_host(request.headers.get("Host", ""), self._host, self.port):
            return web.Response(status=421, text="cannot answer: this server has another name\n")
        try:
            response = await handler(request)
        except web.HTTPException as error:
            response = web.Response(status=error.status, text=f"cannot answer: {error.reason}\n")
        except Exception:  # noqa: BLE001  a bug in one answer must not end the others; the log has it whole
            _log.exception("a request failed: %s %s", request.method, request.path)
            response = web.Response(status=500, text="cannot answer: the daemon met a bug\n")
        return response


async def _healthz(_: web.Request) -> web.StreamResponse:
    return web.Response(text="ok\n", content_type=_TEXT)


def is_local_host(header: str, host: str, port: int) -> bool:
    """Whether a Host header names this server: a loopback name or `host` itself, with its port or without one."""
    names = {*_NAMES, f"[{host}]" if ":" in host else host}
    return header.lower() in names | {f"{name}:{port}" for name in names}


def _bound(host: str, port: int, listen: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setblocking(False)
        listener.bind((host, port))
        listener.listen(64)
    except OSError as error:
        listener.close()
        raise PrepareError(
            f"cannot listen on {listen}: {error.strerror}", hint="set another `metrics: listen:` under `daemon:`"
        ) from error
    return listener
