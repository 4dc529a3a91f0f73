"""What happens when a book's authors change: one Celery task for one change, queued once the change is committed.

Django sends `m2m_changed` twice for a change, before and after, and from either side:

    book.authors.add(a, b)      pre_add, post_add        instance: the book,   pk_set: ids of authors, reverse: False
    author.books.remove(x)      pre_remove, post_remove  instance: the author, pk_set: ids of books,   reverse: True
    book.authors.clear()        pre_clear, post_clear    pk_set is None: nobody says what there was
    book.authors.set([...])     a remove and an add, where there is something to remove and to add

What is told of a change is what really changes:

- add: `pk_set` holds only the ids that were not there before, and is empty when nothing is new;
- remove: `pk_set` holds all that was asked for, there or not, so the rows are counted before they go;
- clear: after it nothing is left to count, so the rows are counted before they go.

The cost does not grow with the change: at most two indexed queries before it (a count, the first few ids), one message
after it with the count and at most `SAMPLE_SIZE` ids.  Nothing is queued for a change of nothing, nor for a
transaction that is rolled back.
"""

from __future__ import annotations

import heapq
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.db import models, transaction
from django.db.models.signals import m2m_changed
from django.dispatch import receiver

from library.models import Author, Authorship, Book, Change
from library.tasks import record_change

SAMPLE_SIZE = 50
"""The most ids that one message carries: it stays under a kilobyte, whether 50 rows change or 10,000."""

_PENDING = "_authorship_change"
"""Where a change waits between its pre and post signal: on the instance, with which it also goes away."""


@dataclass(frozen=True, slots=True)
class Touched:
    """How many rows a change touches, and the lowest ids among them."""

    row_count: int
    sample_ids: tuple[int, ...]


@receiver(m2m_changed, sender=Book.authors.through, dispatch_uid="library.authors_changed")
def authors_changed(
    sender: type[Authorship],
    instance: Author | Book,
    action: str,
    reverse: bool,
    model: type[models.Model],
    pk_set: set[int] | None,
    using: str,
    **kwargs: Any,
) -> None:
    """Remember before, queue after."""
    when, _, what = action.partition("_")
    if when == "pre":
        instance.__dict__[_PENDING] = _touched(what, instance, pk_set, using)
        return
    touched: Touched | None = instance.__dict__.pop(_PENDING, None)
    if touched is None or not touched.row_count:
        return
    message = {
        "key": str(uuid.uuid4()),
        "action": Change.Action(what).value,
        "on_book": not reverse,
        "subject_id": instance.pk,
        "row_count": touched.row_count,
        "sample_ids": list(touched.sample_ids),
    }

    def queue() -> None:  # not a partial: Django logs a failure by the function's name, which a partial has not
        record_change.delay(**message)

    # robust: the change is saved already.  When Redis is away, the request must not fail for it: the error is logged,
    # the line of audit is missing, and beat's task `refresh_stats` puts the counters right.
    transaction.on_commit(queue, using=using, robust=True)


def _touched(what: str, instance: Author | Book, pk_set: set[int] | None, using: str) -> Touched:
    if what == "add":
        return _sample(len(pk_set or ()), pk_set or ())
    # The columns themselves: ordering by `author` would mean by the author's name, through a join.
    here, there = ("book_id", "author_id") if isinstance(instance, Book) else ("author_id", "book_id")
    rows = Authorship.objects.using(using).filter(**{here: instance.pk})
    if what == "remove":
        rows = rows.filter(**{f"{there}__in": pk_set or ()})
    ids = list(rows.order_by(there).values_list(there, flat=True)[: SAMPLE_SIZE + 1])
    # Few rows, the usual case, need no second query.
    return _sample(len(ids) if len(ids) <= SAMPLE_SIZE else rows.count(), ids)


def _sample(row_count: int, ids: Iterable[int]) -> Touched:
    return Touched(row_count, tuple(heapq.nsmallest(SAMPLE_SIZE, ids)))
