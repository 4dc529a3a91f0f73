"""JSON in and out: answers, refusals, and the strict reading of queries and bodies."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from supervisor_d.api.wire import MAX_WAIT_SECONDS, ErrorBody, OperateRequest, UpgradeRequest
from supervisor_d.errors import (
    AlreadyRunningError,
    ConfigError,
    NotPermittedError,
    OutcomeTimeoutError,
    PrepareError,
    RequestError,
    SupervisorError,
    UnavailableError,
    UnknownNameError,
)

_R = TypeVar("_R", OperateRequest, UpgradeRequest)
JSON = "application/json"
NDJSON = "application/x-ndjson"
MAX_NAME = 200

_STATUS: tuple[tuple[type[SupervisorError], int], ...] = (
    (RequestError, 400),
    (NotPermittedError, 403),
    (UnknownNameError, 404),
    (AlreadyRunningError, 409),
    (PrepareError, 409),
    (ConfigError, 422),
    (UnavailableError, 503),
    (OutcomeTimeoutError, 504),
)


def answer(value: Any) -> web.Response:
    """200 with `value` as JSON."""
    return web.Response(body=msgspec.json.encode(value), content_type=JSON)


def refusal(error: SupervisorError) -> web.Response:
    """The answer that tells an error, with the exit code for the command line."""
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    problems = error.problems if isinstance(error, ConfigError) else ()
    return plain_refusal(status, ErrorBody(error.message, error.hint, error.exit_code, problems))


def plain_refusal(status: int, body: ErrorBody) -> web.Response:
    """An answer of that status."""
    return web.Response(status=status, body=msgspec.json.encode(body), content_type=JSON)


def meant(name: str, known: Collection[str]) -> str:
    """A hint with the nearest known name, else with all of them."""
    near = difflib.get_close_matches(name, known, 1, 0.6)
    return f"did you mean {near[0]}?" if near else f"there are: {', '.join(sorted(known)[:50]) or 'none'}"


def operate_request(data: bytes) -> OperateRequest:
    """The body of a POST, strictly read.  Raises RequestError for anything that is not exactly an OperateRequest."""
    request = _request(data, OperateRequest)
    if not 0 <= request.wait_seconds <= MAX_WAIT_SECONDS:
        raise RequestError(f"cannot wait {request.wait_seconds} s: 0 to {MAX_WAIT_SECONDS:g} s can be waited for")
    return request


def upgrade_request(data: bytes) -> UpgradeRequest:
    """The body of an upgrade, strictly read.  Raises RequestError."""
    request = _request(data, UpgradeRequest)
    if request.python and not request.python.startswith("/"):
        raise RequestError(f"cannot upgrade to {request.python[:MAX_NAME]!r}: an absolute path is needed")
    return request


def _request(data: bytes, kind: type[_R]) -> _R:
    known = tuple(field.name for field in dataclasses.fields(kind))
    try:
        values = msgspec.json.decode(data or b"{}", type=dict[str, Any])
        for name in values:
            if name not in known:
                raise RequestError(f"cannot read the request: unknown key {name[:MAX_NAME]!r}", hint=meant(name, known))
        return msgspec.convert(values, kind, strict=True)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"cannot read the request: {str(error)[:MAX_NAME]}") from None


def known_only(query: Mapping[str, str], known: Collection[str]) -> None:
    """Raises RequestError for a query parameter that the route does not have."""
    for name in query:
        if name not in known:
            raise RequestError(f"cannot read the query: unknown parameter {name[:MAX_NAME]!r}", hint=meant(name, known))


def whole_number(query: Mapping[str, str], name: str, default: int, maximum: int) -> int:
    """A parameter from 0 to `maximum`.  Raises RequestError."""
    text = query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= maximum):
        raise RequestError(f"cannot read the query: {name} is a number from 0 to {maximum}")
    return int(text)


def flag(query: Mapping[str, str], name: str) -> bool:
    """A parameter that is 0 or 1.  Raises RequestError."""
    return whole_number(query, name, 0, 1) == 1


def unix_time(query: Mapping[str, str], name: str) -> float | None:
    """A parameter in Unix seconds.  Raises RequestError."""
    text = query.get(name)
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e11:
        raise RequestError(f"cannot read the query: {name} is a time in Unix seconds")
    return seconds
