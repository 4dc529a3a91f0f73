"""What `check` says of a Celery pool that works and had better be otherwise; each rests on a measurement.

What an application is set to do is seen by importing it, which is not done here: `AppFacts` is what was seen, by a
process of the pool's own user, and so data.  docs/celery.md tells what each setting loses, and when.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from supervisor_d.core.spec import Installed, PoolSpec
from supervisor_d.core.units import format_duration
from supervisor_d.programs.versions import older

SUPPORTED_SINCE = "5.6"
PACKAGING_NEEDED_SINCE = "5.7"
"""kombu imports `packaging` from then on, and asks for it only as kombu[redis]."""
VISIBILITY_SECONDS = 3600.0
"""kombu's default for Redis and SQS."""
HIDING_TRANSPORTS = ("redis", "rediss", "sentinel", "sqs")
"""Transports that deliver a message again which was not acknowledged in time."""
BRPOP_TRANSPORTS = ("redis", "rediss", "sentinel")
"""Transports that have a question wait for `polling_interval`; to others it is a pause."""
POLLING_SECONDS = 5.0
"""A question that waits for longer is told."""
PREFORK_NAMES = ("", "prefork", "processes")
"""Of a `worker_pool` that is Celery's prefork pool; an old agent tells none."""
NAMES_SHOWN = 3
ERROR_SHOWN = 200


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """One task, with what it inherits from the application."""

    name: str
    acks_late: bool
    reject_on_worker_lost: bool
    time_limit: float | None


@dataclass(frozen=True, slots=True)
class EntryFacts:
    """One entry of beat's schedule; `known`: the application has the task."""

    name: str
    task: str
    known: bool
    queue: str


@dataclass(frozen=True, slots=True)
class AppFacts:
    """What an application is set to do; with an `error` nothing could be seen."""

    error: str = ""
    transport: str = ""
    worker_pool: str = ""
    visibility_timeout: float | None = None
    polling_interval: float | None = None
    disable_prefetch: bool = False
    tasks: tuple[TaskFacts, ...] = ()
    queues: tuple[str, ...] = ()
    schedule: tuple[EntryFacts, ...] = ()


Warnings = Iterator[tuple[str, str]]
"""(key, "why, and what to do")"""


def version_warnings(spec: PoolSpec, installed: Installed) -> Warnings:
    """By what lies in the interpreter's directories."""
    place = "python" if spec.python else "program"
    version = installed("celery")
    if older(version, SUPPORTED_SINCE):
        yield place, f"its Celery {version} is older than {SUPPORTED_SINCE}, the first that is supported: upgrade it"
    kombu = installed("kombu")
    if kombu and not older(kombu, PACKAGING_NEEDED_SINCE) and not installed("packaging"):
        yield place, f"its kombu {kombu} needs the package `packaging`, which is not there: install celery[redis]"


def app_warnings(spec: PoolSpec, app: AppFacts, pools: Mapping[str, PoolSpec]) -> Warnings:
    """By what the application of a pool was seen to do; `pools` are all of the config."""
    if app.error:
        shown = "".join(char for char in app.error[:ERROR_SHOWN] if char.isprintable())
        yield "app", f"cannot look at {spec.keys.app}'s settings: {shown}"
    elif spec.program == "celery":
        yield from _worker_pool(app)
        yield from _acknowledgement(spec.keys, app)
        yield from _visibility(app)
        yield from _polling(app)
    else:
        yield from _schedule(spec.keys, app, _consumed(spec.keys.app, pools, app.queues))


def _worker_pool(app: AppFacts) -> Warnings:
    if app.worker_pool not in PREFORK_NAMES:
        held = "workers here have the prefork pool all the same, the only one that is watched process by process"
        shown = "".join(char for char in app.worker_pool if char.isprintable())
        yield "app", f"it sets worker_pool to {shown!r}: {held}; see that its tasks run in one, and remove the setting"


def _acknowledgement(keys: Any, app: AppFacts) -> Warnings:
    late = [task.name for task in app.tasks if task.acks_late and not task.reject_on_worker_lost]
    if late:
        lost = "lose such a task when its pool process is killed, as the kernel does when memory runs out"
        yield "app", f"late acknowledgement of {_named(late)}: workers {lost}; set task_reject_on_worker_lost as well"
    early = [task.name for task in app.tasks if not task.acks_late]
    if early and keys.prefetch > 1 and not app.disable_prefetch:
        lost = f"with `prefetch: {keys.prefetch}` a killed worker can lose those that wait in it too"
        cure = "say `prefetch: 1` and set worker_disable_prefetch"
        yield "prefetch", f"early acknowledgement of {_named(early)}: {lost}; {cure}"


def _visibility(app: AppFacts) -> Warnings:
    late = [task for task in app.tasks if task.acks_late]
    if app.transport.partition(":")[0] not in HIDING_TRANSPORTS or not late:
        return
    timeout = app.visibility_timeout or VISIBILITY_SECONDS
    limits = [task.time_limit for task in late if task.time_limit]
    again = "is delivered once more while it still runs"
    if len(limits) < len(late) and timeout < VISIBILITY_SECONDS:
        yield (
            "app",
            (
                f"a task that runs for longer than visibility_timeout ({format_duration(timeout)}) {again}: "
                "set task_time_limit to half of it, or a longer visibility_timeout"
            ),
        )
    elif limits and timeout < 2 * max(limits):
        longest = f"the longest time limit ({format_duration(max(limits))})"
        yield (
            "app",
            (
                f"visibility_timeout ({format_duration(timeout)}) is less than twice {longest}: "
                f"a task that waits and then runs {again}; set it to {format_duration(2 * max(limits))} or more"
            ),
        )


def _polling(app: AppFacts) -> Warnings:
    """By what kombu has each BRPOP wait: a drain waits for its answer, and so does who asks whether it is deaf."""
    interval = app.polling_interval
    if app.transport.partition(":")[0] not in BRPOP_TRANSPORTS or interval is None or 0 < interval <= POLLING_SECONDS:
        return
    waits = f"for {format_duration(interval)}" if interval > 0 else "until a message comes"
    costs = "a drain may end before it is sure that nothing is under way, and a worker gone deaf is noticed later"
    cure = f"remove it, or set it to {format_duration(POLLING_SECONDS)} at most"
    yield "app", f"by its polling_interval workers wait {waits} at each question for messages: {costs}; {cure}"


def _consumed(app: str, pools: Mapping[str, PoolSpec], declared: Iterable[str]) -> frozenset[str] | None:
    """The queues that this config's workers of an application take from; None when it has no such workers."""
    workers = [spec.keys for spec in pools.values() if spec.program == "celery" and spec.keys.app == app]
    if not workers:
        return None
    return frozenset(queue for keys in workers for queue in keys.queues or declared)


def _schedule(keys: Any, app: AppFacts, consumed: frozenset[str] | None) -> Warnings:
    for entry in app.schedule:
        if not entry.known:
            yield "app", f"its schedule sends {entry.task} ({entry.name}), which {keys.app} does not have: it is lost"
        elif consumed is not None and entry.queue not in consumed:
            yield "app", f"its schedule sends {entry.task} to the queue {entry.queue}, which no pool here takes from"


def _named(names: list[str]) -> str:
    """`3 tasks (a, b, c)`."""
    shown = ", ".join(names[:NAMES_SHOWN]) + (", ..." if len(names) > NAMES_SHOWN else "")
    return f"{len(names)} task{'' if len(names) == 1 else 's'} ({shown})"
