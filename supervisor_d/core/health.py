"""Healthy means progress: the rules by which a worker that looks alive is called stuck.

Theory.  A worker of a queue does three things that can be seen from outside: its loop writes a heartbeat, the loop asks
the broker for messages, and what it has taken is begun.  Each can stop while the process lives, and none of them is
stopped by a long task: that runs in a pool process, beside all three.

    silent      no heartbeat for `after_seconds`, though the broker was there when it last spoke
    not taking  it consumes, has room and a connection, and has asked for nothing for TAKE_SECONDS, or for so much
                longer as its application has a question wait for an answer
    not begun   a task waits beside an idle pool process, and nothing was begun for `after_seconds`

A broker that is away is no fault of the worker's: without a connection nothing is expected of it.  A rule must hold at
two looks in a row, so that a host that was suspended, or a daemon that was, accuses nobody.

Worked example, looks every 5 s and after_seconds 30: Redis was restarted at 0 s and the consumer came back deaf.

     2 s  connected, take_at 0.4
    12 s  asked for nothing for 11.6 s: suspected
    17 s  still: stuck, "it has asked its broker for no messages for 16 s"
"""

from __future__ import annotations

from dataclasses import dataclass, replace

TAKE_SECONDS = 10.0
"""A worker asks at least once in USUAL_WAIT_SECONDS, where its application does not say otherwise."""
USUAL_WAIT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Vitals:
    """What a worker says of itself, at the instant `at`.  Times are monotonic seconds."""

    at: float
    connected: bool
    consuming: bool
    can_consume: bool
    take_at: float | None
    take_waits: float
    """How long the broker may take to say that there is nothing, before it is asked again; 0: for ever."""
    idle: int
    """Pool processes without a task."""
    waiting: int
    """Tasks that may run at once, and have not begun."""
    started_total: int


@dataclass(frozen=True, slots=True)
class Watch:
    """What is remembered from one look to the next."""

    started_total: int = -1
    no_start_since: float | None = None
    """Since when tasks wait beside idle pool processes and none was begun."""
    suspected: bool = False


def look(watch: Watch, vitals: Vitals, now: float, after_seconds: float) -> tuple[Watch, str]:
    """What to remember, and why the worker is stuck; empty while it is not."""
    hindered = vitals.waiting > 0 and vitals.idle > 0 and vitals.connected
    if not hindered:
        since = None
    elif vitals.started_total != watch.started_total or watch.no_start_since is None:
        since = now
    else:
        since = watch.no_start_since
    watch = replace(watch, started_total=vitals.started_total, no_start_since=since)
    why = _suspicion(watch, vitals, now, after_seconds)
    return replace(watch, suspected=bool(why)), why if watch.suspected else ""


def _suspicion(watch: Watch, vitals: Vitals, now: float, after_seconds: float) -> str:
    if not vitals.connected:
        return ""
    if now - vitals.at > after_seconds:
        return f"its loop has shown no sign of life for {now - vitals.at:.0f} s"
    asked = vitals.take_at if vitals.consuming and vitals.can_consume and vitals.take_waits else None
    longer = max(0.0, vitals.take_waits - USUAL_WAIT_SECONDS)
    if asked is not None and vitals.at - asked > min(TAKE_SECONDS, after_seconds) + longer:
        return f"it has asked its broker for no messages for {vitals.at - asked:.0f} s"
    if watch.no_start_since is not None and now - watch.no_start_since > after_seconds:
        idle = f"{vitals.idle} idle pool process{'es' if vitals.idle != 1 else ''}"
        return f"{vitals.waiting} wait beside {idle}, and none was begun for {now - watch.no_start_since:.0f} s"
    return ""
