"""What `check` says of a gunicorn pool that works and had better be otherwise; each rests on a measurement.

The figures are of docs/gunicorn.md: what each version and worker class loses, and when.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from supervisor_d.core.spec import Installed, PoolSpec
from supervisor_d.core.units import format_duration
from supervisor_d.programs.versions import older

if TYPE_CHECKING:
    from supervisor_d.programs.gunicorn import GunicornKeys

SUPPORTED_SINCE = "25.3"
CONTROL_SOCKET_SINCE = "25.1"
LOSSLESS_GTHREAD_SINCE = "27.0.1"
PROXY_IDLE_SECONDS = 60.0
"""nginx's default for how long it keeps an idle connection to an upstream (keepalive_timeout)."""
ASGI_BACKLOG = 100
"""asyncio's default, with which gunicorn's asgi worker calls listen(2) again (workers/gasgi.py)."""


def warnings(spec: PoolSpec, installed: Installed) -> Iterator[tuple[str, str]]:
    """(key, "why, and what to do")."""
    keys: GunicornKeys = spec.keys
    yield from _version(keys, spec, installed("gunicorn"))
    yield from _worker_class(keys, spec)
    yield from _keep_alive(keys)


def _version(keys: GunicornKeys, spec: PoolSpec, version: str) -> Iterator[tuple[str, str]]:
    place = "python" if spec.python else "program"
    if older(version, SUPPORTED_SINCE):
        lacks = ", and has no control socket" if older(version, CONTROL_SOCKET_SINCE) else ""
        yield place, f"its gunicorn {version} is older than {SUPPORTED_SINCE}, drops requests{lacks}: upgrade gunicorn"
    elif keys.worker_class == "gthread" and older(version, LOSSLESS_GTHREAD_SINCE):
        drops = "can drop requests on kept-alive connections when workers stop"
        yield place, f"with gthread its gunicorn {version} {drops}: {LOSSLESS_GTHREAD_SINCE} does not"


def _worker_class(keys: GunicornKeys, spec: PoolSpec) -> Iterator[tuple[str, str]]:
    if keys.worker_class == "gevent" and not keys.agent:
        why = "gevent workers end at once when their master is killed, and what they serve is lost"
        yield "worker_class", f"{why}; with `agent: true` they finish it"
    if keys.worker_class == "asgi" and any(listener.backlog > ASGI_BACKLOG for listener in spec.listeners):
        why = f"each asgi worker that boots cuts the queue of the socket to {ASGI_BACKLOG}"
        yield "worker_class", f"{why}; the daemon sets it back to `backlog` once the worker is ready"


def _keep_alive(keys: GunicornKeys) -> Iterator[tuple[str, str]]:
    given = keys.keep_alive
    if given is None:
        return
    shown = format_duration(given)
    if keys.worker_class == "gthread" and 0 < given < PROXY_IDLE_SECONDS:
        proxy = f"a proxy's idle time (nginx: {format_duration(PROXY_IDLE_SECONDS)})"
        yield "keep_alive", f"{shown} is shorter than {proxy}: requests race with the close; say 75s, or leave it out"
    if keys.worker_class in ("gevent", "asgi") and given >= keys.graceful_timeout:
        grace = f"`graceful_timeout` ({format_duration(keys.graceful_timeout)})"
        yield "keep_alive", f"a stop waits for idle connections, so it takes all of {grace}: say less"
