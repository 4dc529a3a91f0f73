"""The tasks.  Each may be run twice: a message whose worker died is delivered again (sample/settings.py says why).

What makes each of them bear it:

    record_change   its line of audit has a key, and counters are counted, never incremented
    long            each step is done by whoever moves the checkpoint, and by nobody else
    refresh_stats   writes what it counts
    short, cpu, fail   have no effect but their result
"""

from __future__ import annotations

import os
import time
from datetime import timedelta
from typing import Any

from celery import Task, shared_task
from celery.exceptions import BackendError
from celery.utils.log import get_task_logger
from django.db import transaction
from django.db.models import F
from django.utils import timezone
from kombu.exceptions import KombuError
from redis import RedisError

from library import counters
from library.models import Author, Authorship, Book, Change, Heartbeat, Job

logger = get_task_logger(__name__)

CHANGES_KEPT = 5_000
JOBS_KEPT_FOR = timedelta(days=1)

STEPS_MAX = 1_000
STEP_SECONDS_MAX = 5.0
LONG_SECONDS_MAX = 300.0
"""In all: well below the time limit of a task."""
CPU_SECONDS_MAX = 60.0


@shared_task
def short(x: int = 1, y: int = 1) -> dict[str, int]:
    """An addition: the price of a task with next to nothing in it."""
    return {"sum": x + y, "pid": os.getpid()}


@shared_task(bind=True)
def long(self: Task, key: str, steps: int = 20, step_seconds: float = 0.5) -> dict[str, Any]:
    """`steps` steps of `step_seconds` each, with progress; taken up where it was left when it runs again.

    `key` names the work.  The checkpoint moves by compare-and-set, in one statement with the step's effect: a worker
    that was overtaken by another one changes nothing and goes on from where the other is.
    """
    steps = max(1, min(int(steps), STEPS_MAX))
    pause = max(0.0, min(float(step_seconds), STEP_SECONDS_MAX, LONG_SECONDS_MAX / steps))
    Job.objects.get_or_create(key=key, defaults={"steps_total": steps})
    Job.objects.filter(key=key).update(runs=F("runs") + 1, updated=timezone.now())
    while (job := Job.objects.get(key=key)).steps_done < job.steps_total:
        _progress(self, job)
        time.sleep(pause)
        finish_step(key, job.steps_done)
    return {"key": key, "steps": job.steps_total, "runs": job.runs, "result": job.result, "pid": os.getpid()}


def finish_step(key: str, step: int) -> bool:
    """Do step number `step` of a job and move its checkpoint, unless somebody else did; says whether it did."""
    moved = Job.objects.filter(key=key, steps_done=step, steps_total__gt=step).update(
        steps_done=F("steps_done") + 1, result=F("result") + step, updated=timezone.now()
    )
    return bool(moved)


def _progress(task: Task, job: Job) -> None:
    """Progress is news, not work: while Redis restarts, nobody hears it, and the work goes on."""
    if not task.request.id or task.request.is_eager:
        return
    meta = {"done": job.steps_done, "total": job.steps_total, "runs": job.runs, "pid": os.getpid()}
    try:
        task.update_state(state="PROGRESS", meta=meta)
    except (RedisError, KombuError, BackendError) as error:
        logger.warning("progress of %s is not told: %s", job, error)


@shared_task
def cpu(seconds: float = 2.0) -> dict[str, Any]:
    """Search primes for `seconds` of processor time: shows as one busy core."""
    deadline = time.process_time() + max(0.0, min(float(seconds), CPU_SECONDS_MAX))
    primes: list[int] = [2]
    candidate = 3
    while time.process_time() < deadline:
        if all(candidate % prime for prime in primes if prime * prime <= candidate):
            primes.append(candidate)
        candidate += 2
    return {"primes": len(primes), "largest": primes[-1], "pid": os.getpid()}


@shared_task
def fail(message: str = "asked to fail") -> None:
    """Raises; its state becomes FAILURE, and the worker goes on with the next message."""
    raise ValueError(message[:200])


@shared_task(ignore_result=True)
def record_change(
    *, key: str, action: str, on_book: bool, subject_id: int, row_count: int, sample_ids: list[int]
) -> None:
    """Count again what a change of authorships touched, and write one line of audit.

    With few rows the ids are known and only they are counted; with many, all are, still by one UPDATE.
    """
    others = sample_ids if row_count == len(sample_ids) else None
    books, authors = ([subject_id], others) if on_book else (others, [subject_id])
    with transaction.atomic():
        counters.recount_books(books)
        counters.recount_authors(authors)
        Change.objects.get_or_create(
            key=key,
            defaults={
                "action": action,
                "on_book": on_book,
                "subject_id": subject_id,
                "row_count": row_count,
                "sample_ids": sample_ids,
                "worker": f"pid {os.getpid()}",
            },
        )


@shared_task(ignore_result=True)
def refresh_stats() -> None:
    """Beat's task: a heartbeat with today's numbers, the counters put right, and old rows removed."""
    wrong = counters.recount_authors() + counters.recount_books()
    if wrong:
        logger.warning("corrected %d counters", wrong)
    numbers = {
        "at": timezone.now(),
        "authors": Author.objects.count(),
        "books": Book.objects.count(),
        "authorships": Authorship.objects.count(),
    }
    with transaction.atomic():
        Heartbeat.objects.update_or_create(name="beat", defaults=numbers)
        Heartbeat.objects.filter(name="beat").update(beats=F("beats") + 1)
    forget_old_rows()


def forget_old_rows() -> None:
    """Keep the newest CHANGES_KEPT lines of audit, and jobs of the last day."""
    oldest_kept = Change.objects.values_list("pk", flat=True)[CHANGES_KEPT - 1 : CHANGES_KEPT].first()
    if oldest_kept is not None:
        Change.objects.filter(pk__lt=oldest_kept).delete()
    Job.objects.filter(updated__lt=timezone.now() - JOBS_KEPT_FOR).delete()
