"""Reading what a client sent: right, within its bounds, or a sentence that says what is wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Concatenate, ParamSpec

from django.http import HttpRequest, HttpResponseBase, JsonResponse

P = ParamSpec("P")


class RefusedError(Exception):
    """The request cannot be served as it is; `status` says whose fault it is."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def refusals_as_json(
    view: Callable[Concatenate[HttpRequest, P], HttpResponseBase],
) -> Callable[Concatenate[HttpRequest, P], HttpResponseBase]:
    """A refusal becomes `{"error": ...}` with its status."""

    @wraps(view)
    def wrapper(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
        try:
            return view(request, *args, **kwargs)
        except RefusedError as error:
            return JsonResponse({"error": str(error)}, status=error.status)

    return wrapper


def number(source: Mapping[str, Any], name: str, default: float, low: float, high: float) -> float:
    """A finite number between `low` and `high`, both allowed."""
    given = source.get(name, default)
    try:
        value = float(given)
    except (TypeError, ValueError):
        value = math.nan
    if isinstance(given, bool) or not math.isfinite(value) or not low <= value <= high:
        raise RefusedError(f"cannot use {name}={str(given)[:40]!r}: say a number from {low:g} to {high:g}")
    return value


def whole(source: Mapping[str, Any], name: str, default: int, low: int, high: int) -> int:
    """A whole number between `low` and `high`, both allowed."""
    value = number(source, name, default, low, high)
    if not value.is_integer():
        raise RefusedError(f"cannot use {name}={value:g}: say a whole number")
    return int(value)


def word(source: Mapping[str, Any], name: str, default: str, longest: int) -> str:
    """A text of 1 to `longest` characters."""
    value = source.get(name, default)
    if not isinstance(value, str) or not 0 < len(value) <= longest:
        raise RefusedError(f"cannot use {name}: say a text of 1 to {longest} characters")
    return value


def json_object(request: HttpRequest) -> dict[str, Any]:
    """The request's body, which must be a JSON object and say so in its Content-Type.

    The API takes no cookie and no CSRF token.  What protects it is the Content-Type: a form on a foreign page cannot
    send this one, and a script there may not without asking first (a CORS preflight), which nobody here answers.
    """
    if request.content_type != "application/json":
        raise RefusedError("cannot read the body: its Content-Type must be application/json", 415)
    try:
        body = json.loads(request.body)
    except ValueError as error:
        raise RefusedError(f"cannot read the body: {error}") from error
    if not isinstance(body, dict):
        raise RefusedError("cannot read the body: it must be a JSON object")
    return body
