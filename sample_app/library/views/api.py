"""The JSON API.  Errors are `{"error": ...}`; lists are bounded; every number a client sends is checked."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any

import redis
from celery import Task, current_app
from celery.exceptions import BackendError
from django.db import IntegrityError
from django.http import HttpRequest, HttpResponseBase, JsonResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods, require_POST, require_safe
from kombu.exceptions import KombuError

from library import catalogue, served
from library import tasks as library_tasks
from library.models import Author, Authorship, Book, Change, Heartbeat
from library.views.parameters import RefusedError, json_object, number, refusals_as_json, whole, word

CHANGES_SHOWN = 10
IDS_MAX = 10_000
BROKER_ERRORS = (KombuError, BackendError, redis.RedisError, OSError)


@require_safe
@never_cache
def status(request: HttpRequest) -> HttpResponseBase:
    """What the front page shows live: who answers, the last heartbeat, the latest changes.  Two queries."""
    heartbeat = Heartbeat.objects.filter(name="beat").first()
    return JsonResponse(
        {
            "served": served.me().as_json(),
            "heartbeat": _heartbeat_json(heartbeat) if heartbeat else None,
            "changes": [_change_json(change) for change in Change.objects.all()[:CHANGES_SHOWN]],
        }
    )


@require_safe
@never_cache
@refusals_as_json
def authors(request: HttpRequest) -> HttpResponseBase:
    """Authors with their books, `?page=` and `?size=`.  Two queries."""
    page = whole(request.GET, "page", 1, 1, catalogue.PAGE_MAX)
    size = whole(request.GET, "size", 100, 1, catalogue.PAGE_SIZE_MAX)
    found = catalogue.authors_with_books(page, size)
    return JsonResponse(
        {
            "authors": [
                {
                    "id": author.pk,
                    "name": author.name,
                    "book_count": author.book_count,
                    "books": [{"id": book.pk, "title": book.title} for book in author.books.all()],
                }
                for author in found.rows
            ],
            "page": found.number,
            "has_next": found.has_next,
        }
    )


@require_safe
@never_cache
def book(request: HttpRequest, pk: int) -> HttpResponseBase:
    """One book with its authorships.  Two queries."""
    return JsonResponse(_book_json(get_object_or_404(Book, pk=pk)))


@csrf_exempt  # see json_object
@require_http_methods(["POST", "DELETE"])
@refusals_as_json
def book_authors(request: HttpRequest, pk: int) -> HttpResponseBase:
    """POST adds, DELETE removes: `{"author_ids": [1, 2], "contribution": "editor"}`.  Answers with the book."""
    body = json_object(request)
    ids = _author_ids(body)
    target = get_object_or_404(Book, pk=pk)
    if request.method == "DELETE":
        catalogue.leave(target, ids)
        return JsonResponse(_book_json(target))
    contribution = body.get("contribution", Authorship.Contribution.WRITER)
    if contribution not in Authorship.Contribution.values:
        raise RefusedError(f"cannot use this contribution: say one of {', '.join(Authorship.Contribution.values)}")
    unknown = sorted(ids - set(Author.objects.filter(pk__in=ids).values_list("pk", flat=True)))
    if unknown:
        raise RefusedError(f"cannot add authors: there is none with the id {unknown[0]}", 404)
    try:
        catalogue.join(target, ids, contribution)
    except IntegrityError as error:
        raise RefusedError("cannot add authors: the book or one of them was deleted meanwhile", 409) from error
    return JsonResponse(_book_json(target))


def _short(given: Mapping[str, Any]) -> dict[str, Any]:
    return {"x": whole(given, "x", 1, -(10**9), 10**9), "y": whole(given, "y", 1, -(10**9), 10**9)}


def _long(given: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "key": word(given, "key", uuid.uuid4().hex, 64),
        "steps": whole(given, "steps", 20, 1, library_tasks.STEPS_MAX),
        "step_seconds": number(given, "step_seconds", 0.5, 0.0, library_tasks.STEP_SECONDS_MAX),
    }


def _cpu(given: Mapping[str, Any]) -> dict[str, Any]:
    return {"seconds": number(given, "seconds", 2.0, 0.0, library_tasks.CPU_SECONDS_MAX)}


def _fail(given: Mapping[str, Any]) -> dict[str, Any]:
    return {"message": word(given, "message", "asked to fail", 200)}


SUBMITTABLE: Mapping[str, tuple[Task, Callable[[Mapping[str, Any]], dict[str, Any]]]] = {
    "short": (library_tasks.short, _short),
    "long": (library_tasks.long, _long),
    "cpu": (library_tasks.cpu, _cpu),
    "fail": (library_tasks.fail, _fail),
}
"""What may be queued from outside: a task, and the reader of its arguments."""


@csrf_exempt  # see json_object
@require_POST
@refusals_as_json
def tasks(request: HttpRequest) -> HttpResponseBase:
    """Queue one: `{"task": "long", "arguments": {"steps": 10}}`.  Answers 202 with the address of its result."""
    body = json_object(request)
    name, given = body.get("task"), body.get("arguments", {})
    if not isinstance(name, str) or name not in SUBMITTABLE:
        raise RefusedError(f"cannot queue this task: say one of {', '.join(SUBMITTABLE)}")
    if not isinstance(given, dict):
        raise RefusedError("cannot queue this task: arguments must be a JSON object")
    queued, read_arguments = SUBMITTABLE[name]
    arguments = read_arguments(given)
    try:
        task_id = queued.apply_async(kwargs=arguments).id
    except BROKER_ERRORS as error:
        raise RefusedError("cannot queue the task: the broker does not answer", 503) from error
    url = reverse("library:api-task", args=[task_id])
    answer = {"id": task_id, "task": name, "arguments": arguments, "url": url, "served": served.me().as_json()}
    return JsonResponse(answer, status=202, headers={"Location": url})


@require_safe
@never_cache
@refusals_as_json
def task(request: HttpRequest, task_id: uuid.UUID) -> HttpResponseBase:
    """State of a task and its progress, result or error.  Celery says PENDING of ids that it does not know, too."""
    try:
        meta = current_app.backend.get_task_meta(str(task_id))
    except BROKER_ERRORS as error:
        raise RefusedError("cannot read the result: Redis does not answer", 503) from error
    state, result = meta["status"], meta.get("result")
    answer: dict[str, Any] = {"id": str(task_id), "state": state}
    if state == "SUCCESS":
        answer["result"] = result
    elif state in {"PROGRESS", "STARTED"}:
        answer["progress"] = result
    elif result is not None:
        answer["error"] = f"{type(result).__name__}: {result}"
    return JsonResponse(answer)


def _author_ids(body: Mapping[str, Any]) -> set[int]:
    ids = body.get("author_ids")
    if (
        not isinstance(ids, list)
        or not 0 < len(ids) <= IDS_MAX
        or not all(type(each) is int and 0 < each < 2**63 for each in ids)
    ):
        raise RefusedError(f"cannot read author_ids: it must be a list of 1 to {IDS_MAX} ids")
    return set(ids)


def _book_json(book: Book) -> dict[str, Any]:
    return {
        "id": book.pk,
        "title": book.title,
        "isbn": book.isbn,
        "author_count": book.author_count,
        "authorships": [
            {
                "author": {"id": authorship.author_id, "name": authorship.author.name},
                "contribution": authorship.contribution,
                "date_joined": authorship.date_joined.isoformat(),
            }
            for authorship in catalogue.authorships_of(book)
        ],
    }


def _change_json(change: Change) -> dict[str, Any]:
    return {"id": change.pk, "at": change.at.isoformat(), "text": str(change), "worker": change.worker}


def _heartbeat_json(heartbeat: Heartbeat) -> dict[str, Any]:
    return {
        "at": heartbeat.at.isoformat(),
        "beats": heartbeat.beats,
        "authors": heartbeat.authors,
        "books": heartbeat.books,
        "authorships": heartbeat.authorships,
    }
