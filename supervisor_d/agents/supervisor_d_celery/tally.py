"""Running totals of the tasks that the main process saw, and those that run just now.

Celery makes a request class for each task (`create_request_cls`); its callbacks are the main process's own knowledge of
a task's life, so nothing is sent by pool processes and `-E` is not needed.  A custom `Task.Request` stays what it is.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable
from datetime import datetime, timezone
from functools import wraps
from typing import Any

from . import wire

BUCKET_SECONDS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0)
TASKS_TOLD = 20
STAMP = "sd_ts"
"""The header with the wall clock of the sending."""
_STARTED = "supervisor_d_started_at"


class Tally:
    """Counts.  Everything here is called by the main process's loop alone."""

    def __init__(self) -> None:
        self.totals = dict.fromkeys(
            ("started", "succeeded", "failed", "retried", "revoked", "redelivered", "unknown"), 0
        )
        self.runtime_seconds = 0.0
        self.wait_seconds = 0.0
        self.buckets = [0] * (len(BUCKET_SECONDS) + 1)

    def install(self) -> None:
        """Watch every request class that is made from now on, and unknown tasks."""
        from celery import signals
        from celery.worker import strategy

        original = strategy.create_request_cls

        @wraps(original)
        def create_request_cls(*args: Any, **kwargs: Any) -> Any:
            return self.watch(original(*args, **kwargs))

        strategy.create_request_cls = create_request_cls
        signals.task_unknown.connect(self._unknown, weak=False, dispatch_uid="supervisor_d.unknown")

    def watch(self, request_class: Any) -> Any:
        """Let each callback of this class tell first."""
        for name, told in (
            ("on_accepted", self._accepted),
            ("on_success", self._succeeded),
            ("on_failure", self._failed),
            ("on_retry", self._retried),
            ("_announce_revoked", self._revoked),
        ):
            setattr(request_class, name, _told_first(getattr(request_class, name), told))
        return request_class

    def _accepted(self, request: Any, pid: Any = None, time_accepted: float | None = None) -> None:
        self.totals["started"] += 1
        request.__dict__[_STARTED] = time.monotonic() if time_accepted is None else time_accepted
        if (request.delivery_info or {}).get("redelivered"):
            self.totals["redelivered"] += 1
        self.wait_seconds += _waited(request, time.time())

    def _succeeded(self, request: Any, outcome: Any, **_: Any) -> None:
        failed, _value, runtime = outcome
        if runtime is None:  # Celery measures only what succeeds
            runtime = time.monotonic() - _started_at(request)
        self.runtime_seconds += runtime
        self.buckets[bisect_left(BUCKET_SECONDS, runtime)] += 1
        if not failed:
            self.totals["succeeded"] += 1

    def _failed(self, request: Any, exc_info: Any, *_: Any, **__: Any) -> None:
        from celery.exceptions import Ignore, Reject, Retry

        exc = getattr(exc_info.exception, "exc", exc_info.exception)
        kinds = {type(exc).__name__, type(exc_info.exception).__name__}
        if isinstance(exc_info.exception, (Retry, Ignore, Reject)) or isinstance(exc, (Retry, Ignore, Reject)):
            return
        if "Terminated" not in kinds:  # what is terminated is revoked, and told as that
            self.totals["failed"] += 1

    def _retried(self, *_: Any, **__: Any) -> None:
        self.totals["retried"] += 1

    def _revoked(self, *_: Any, **__: Any) -> None:
        self.totals["revoked"] += 1

    def _unknown(self, **_: Any) -> None:
        self.totals["unknown"] += 1

    def facts(self) -> dict[str, Any]:
        """The totals, as the heartbeat tells them."""
        told: dict[str, Any] = {name + "_total": count for name, count in self.totals.items()}
        told["runtime_seconds_total"] = round(self.runtime_seconds, 6)
        told["runtime_buckets"] = list(self.buckets)
        told["wait_seconds_total"] = round(self.wait_seconds, 6)
        return told


def running() -> dict[str, Any]:
    """What runs just now: active, unsafe, oldest_started_at and the oldest tasks."""
    from celery.worker import state

    requests = sorted(state.active_requests, key=_started_at)
    return {
        "active": len(requests),
        "unsafe": sum(1 for request in requests if unsafe(request)),
        "oldest_started_at": _started_at(requests[0]) if requests else None,
        "tasks": [_task(request) for request in requests[:TASKS_TOLD]],
    }


def late(request: Any) -> bool:
    """Whether its message is acknowledged only when the task is done."""
    return bool(request.task.acks_late)


def unsafe(request: Any) -> bool:
    """Whether nobody would run it again if it were interrupted: its message is acknowledged already."""
    return not late(request) or bool(request.acknowledged)


def stamp(headers: Any = None, **_: Any) -> None:
    """before_task_publish: tell when it was sent."""
    if isinstance(headers, dict):
        headers[STAMP] = time.time()


def _task(request: Any) -> dict[str, Any]:
    return {
        "id": str(request.id)[: wire.NAME_MAX],
        "name": str(request.name)[: wire.NAME_MAX],
        "started_at": _started_at(request),
        "late": late(request),
        "pid": request.worker_pid,
    }


def _started_at(request: Any) -> float:
    return float(request.__dict__.get(_STARTED, 0.0))


def _waited(request: Any, now: float) -> float:
    """Seconds between its sending, or the time it was meant for, and now; 0 where nobody stamped it."""
    sent = request.request_dict.get(STAMP)
    if isinstance(sent, bool) or not isinstance(sent, (int, float)):
        return 0.0
    eta = request.eta
    if isinstance(eta, datetime):
        sent = max(sent, (eta if eta.tzinfo else eta.replace(tzinfo=timezone.utc)).timestamp())  # noqa: UP017
    return max(0.0, now - sent)


def _told_first(original: Callable[..., Any], told: Callable[..., None]) -> Callable[..., Any]:
    @wraps(original)
    def hook(request: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            told(request, *args, **kwargs)
        except Exception:  # noqa: BLE001, S110 - a count less is better than a task less
            pass
        return original(request, *args, **kwargs)

    return hook
