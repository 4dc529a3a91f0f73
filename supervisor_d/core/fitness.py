"""Whether the workers inside a process are fit, and which one, if any, is to be replaced now.

Theory.  gunicorn itself replaces what dies and, for some classes, what no longer beats; it has no limit for a request
(a gthread worker with a stuck thread is stuck for ever), none for memory and none for age.  Rules, the first that finds
somebody wins, and it finds the worst one:

1. stuck   a request has run for longer than `request_timeout`
2. big     its share of memory is above `max_worker_memory`
3. old     it has lived for longer than `max_worker_age`, and a spread of up to a tenth that is a hash of its pid, so
           that workers that were started together do not go together

One at a time: whoever asks does not ask again before the former cure is through, so a pool never misses more than the
worker that is worst anyway.  A whole process is ailing, and is replaced as one, when its workers keep crashing, or when
it does not get as many as it should have for as long as a start may take.

Worked example, request_timeout 60 s, at 100.0: worker 4711 serves a request since 35.0, worker 4712 one since 90.0:
Cure(4711, "a request runs for 65 s, its limit is 60 s", stuck).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from supervisor_d.core.requests import WorkerFacts
from supervisor_d.core.spec import Fitness
from supervisor_d.core.units import format_duration, format_size

AGE_SPREAD = 0.1
CRASH_WINDOW_SECONDS = 60.0
CRASHES_MIN = 10
CRASHES_PER_WORKER = 3


@dataclass(frozen=True, slots=True)
class Cure:
    """A worker that is to be replaced, and why, in words.  `stuck`: what it does is worth a look before it goes."""

    pid: int
    reason: str
    stuck: bool = False


def cure(workers: Iterable[WorkerFacts], limits: Fitness, now: float) -> Cure | None:
    """The one worker to replace now; None when all are fit."""
    known = tuple(workers)
    return _stuck(known, limits, now) or _big(known, limits) or _old(known, limits, now)


def _stuck(workers: tuple[WorkerFacts, ...], limits: Fitness, now: float) -> Cure | None:
    limit = limits.request_seconds
    serving = [(worker.oldest_began_at, worker.pid) for worker in workers if worker.oldest_began_at is not None]
    if limit is None or not serving:
        return None
    began_at, pid = min(serving)
    if now - began_at <= limit:
        return None
    reason = f"a request runs for {_span(now - began_at)}, its limit is {format_duration(limit)}"
    return Cure(pid, reason, stuck=True)


def _big(workers: tuple[WorkerFacts, ...], limits: Fitness) -> Cure | None:
    limit = limits.memory_bytes
    measured = [(worker.pss_bytes, worker.pid) for worker in workers if worker.pss_bytes is not None]
    if limit is None or not measured:
        return None
    pss_bytes, pid = max(measured)
    if pss_bytes <= limit:
        return None
    return Cure(pid, f"it uses {pss_bytes / 2**20:.0f} MiB (PSS), its limit is {format_size(limit)}")


def _old(workers: tuple[WorkerFacts, ...], limits: Fitness, now: float) -> Cure | None:
    limit = limits.age_seconds
    if limit is None:
        return None
    over = [(now - worker.began_at - _allowed(limit, worker.pid), worker) for worker in workers]
    late, worker = max(over, key=lambda pair: (pair[0], pair[1].pid), default=(0.0, None))
    if worker is None or late <= 0:
        return None
    return Cure(worker.pid, f"it is {_span(now - worker.began_at)} old, its limit is {format_duration(limit)}")


def _allowed(limit: float, pid: int) -> float:
    share: float = zlib.crc32(str(pid).encode()) / 2**32
    return limit * (1 + AGE_SPREAD * share)


def _span(seconds: float) -> str:
    return format_duration(float(round(seconds))) if seconds >= 1 else f"{seconds:.1f}s"


def crashing(crashes: Iterable[float], workers: int, now: float) -> str:
    """Why a process whose workers crashed at these times is ailing; empty when it is not."""
    recent = sum(1 for at in crashes if now - at < CRASH_WINDOW_SECONDS)
    if recent < max(CRASHES_MIN, CRASHES_PER_WORKER * workers):
        return ""
    return f"its workers keep crashing: {recent} of them within {format_duration(CRASH_WINDOW_SECONDS)}"


def short_of_workers(ready: int, wanted: int, since: float, patience_seconds: float, now: float) -> str:
    """Why a process that has not had `wanted` ready workers since an instant is ailing; empty when it is not yet.

    `ready` is below 0 where nobody could count them.  Too many are no fault: those that are to go finish what they
    serve.
    """
    if ready >= wanted or now - since < patience_seconds:
        return ""
    span = format_duration(patience_seconds)
    return f"it has {max(ready, 0)} of {wanted} workers ready, and has not got there within {span}"
