"""What a supervisor, a proxy and a load generator ask."""

from __future__ import annotations

import time

from django.db import DatabaseError, connection
from django.http import HttpRequest, HttpResponseBase, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from library import served
from library.views.parameters import number, refusals_as_json

SLOW_SECONDS_MAX = 30.0


@require_safe
@never_cache
def healthz(request: HttpRequest) -> HttpResponseBase:
    """200 when this worker reaches its database, else 503.

    Redis is not asked: pages work without it, and a web worker that is replaced would not bring it back.
    """
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            cursor.fetchone()
    except DatabaseError as error:
        return JsonResponse({"status": "unavailable", "error": type(error).__name__}, status=503)
    return JsonResponse({"status": "ok", **served.me().as_json()})


@require_safe
@never_cache
@refusals_as_json
def slow(request: HttpRequest) -> HttpResponseBase:
    """Answers after `?seconds=`: something to have in flight while workers are stopped, scaled or replaced."""
    seconds = number(request.GET, "seconds", 1.0, 0.0, SLOW_SECONDS_MAX)
    began = served.me()
    time.sleep(seconds)
    return JsonResponse({"slept_seconds": seconds, **began.as_json()})
