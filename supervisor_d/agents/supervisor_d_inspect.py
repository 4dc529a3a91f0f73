"""`python -m supervisor_d_inspect APP`: what a Celery application is set to do, as one line of JSON on stdout.

Imports the application as `celery -A APP` does, with its tasks, and asks it; no broker is connected to, nothing is
written, and whatever the application prints while it is imported goes nowhere.  A failure is told as `error`: the last
line of what was raised, as Python would print it.

Written for every Python that Celery runs on, which need not be the daemon's.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import Any

TASKS_MAX = 2000
NAME_MAX = 200
ERROR_MAX = 300


def main() -> None:
    """Look, and say what was seen."""
    answer = os.dup(1)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    try:
        facts = look(sys.argv[1])
    except BaseException as error:  # noqa: BLE001  settings that exit, too
        last = traceback.format_exception_only(type(error), error)[-1].strip()
        facts = {"error": " ".join(last.split())[:ERROR_MAX]}
    os.write(answer, json.dumps(facts).encode("ascii") + b"\n")
    os._exit(0)  # whatever threads the application has started


def look(name: str) -> dict[str, Any]:
    """The application's settings, as far as they decide what can be lost."""
    sys.path.insert(0, os.getcwd())
    from celery.app.utils import find_app

    app = find_app(name)
    app.loader.import_default_modules()
    app.finalize()
    options = dict(app.conf.broker_transport_options or {})
    return {
        "transport": str(app.connection_for_read().transport_cls)[:NAME_MAX],
        "worker_pool": str(app.conf.worker_pool)[:NAME_MAX],
        "visibility_timeout": _number(options.get("visibility_timeout")),
        "polling_interval": _number(options.get("polling_interval")),
        "disable_prefetch": bool(app.conf.get("worker_disable_prefetch", False)),
        "tasks": [_task(app, task) for task in _tasks(app)],
        "queues": [str(queue)[:NAME_MAX] for queue in app.amqp.queues][:TASKS_MAX],
        "schedule": [_entry(app, str(key), entry) for key, entry in list(app.conf.beat_schedule.items())[:TASKS_MAX]],
    }


def _tasks(app: Any) -> list[Any]:
    """The application's own; those of celery itself are Celery's business."""
    return [task for name, task in sorted(app.tasks.items()) if not name.startswith("celery.")][:TASKS_MAX]


def _task(app: Any, task: Any) -> dict[str, Any]:
    return {
        "name": str(task.name)[:NAME_MAX],
        "acks_late": bool(task.acks_late),
        "reject_on_worker_lost": bool(task.reject_on_worker_lost),
        "time_limit": _number(task.time_limit or app.conf.task_time_limit),
    }


def _entry(app: Any, name: str, entry: Any) -> dict[str, Any]:
    """One entry of beat's schedule, and the queue that it is sent to."""
    task, options = str(entry["task"]), dict(entry.get("options") or {})
    route = app.amqp.router.route(options, task)
    queue = route.get("queue") or app.conf.task_default_queue
    return {
        "name": name[:NAME_MAX],
        "task": task[:NAME_MAX],
        "known": task in app.tasks,
        "queue": str(getattr(queue, "name", queue))[:NAME_MAX],
    }


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


if __name__ == "__main__":
    main()
