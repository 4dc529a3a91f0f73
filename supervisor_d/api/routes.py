"""The API in one table: every route with the level that it asks for.  docs/api.md tells the same to people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from supervisor_d.api import handlers
from supervisor_d.api.handlers import Handler
from supervisor_d.api.service import Level


@dataclass(frozen=True, slots=True)
class Route:
    """One method on one path."""

    method: Literal["GET", "POST"]
    path: str
    level: Level
    handler: Handler


ROUTES: tuple[Route, ...] = (
    Route("GET", "/v1/status", Level.READ, handlers.status),
    Route("GET", "/v1/events", Level.READ, handlers.events),
    Route("GET", "/v1/logs", Level.READ, handlers.logs),
    Route("GET", "/v1/diff", Level.READ, handlers.diff),
    Route("POST", "/v1/reload", Level.OPERATE, handlers.reload),
    Route("POST", "/v1/scale", Level.OPERATE, handlers.scale),
    Route("POST", "/v1/start", Level.OPERATE, handlers.start),
    Route("POST", "/v1/stop", Level.OPERATE, handlers.stop),
    Route("POST", "/v1/restart", Level.OPERATE, handlers.restart),
    Route("POST", "/v1/deploy", Level.OPERATE, handlers.deploy),
    Route("POST", "/v1/rollback", Level.OPERATE, handlers.rollback),
    Route("POST", "/v1/upgrade", Level.ADMIN, handlers.upgrade),
    Route("POST", "/v1/shutdown", Level.ADMIN, handlers.shutdown),
)
