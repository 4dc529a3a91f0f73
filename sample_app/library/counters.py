"""The denormalised counters, `Author.book_count` and `Book.author_count`, brought up to date by one UPDATE each.

A counter is never incremented: it is counted again, so that a task may run twice, late or out of order and still leave
the truth behind.  Only rows that differ are written.
"""

from __future__ import annotations

from collections.abc import Collection

from django.db import models
from django.db.models import Count, F, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce

from library.models import Author, Authorship, Book


def recount_authors(ids: Collection[int] | None = None) -> int:
    """Count the books of these authors, or of all; returns how many rows were wrong."""
    rows = Author.objects.all() if ids is None else Author.objects.filter(pk__in=ids)
    counted = rows.annotate(counted=_count_of(Authorship.objects.filter(author=OuterRef("pk")), "author"))
    return counted.exclude(book_count=F("counted")).update(book_count=F("counted"))


def recount_books(ids: Collection[int] | None = None) -> int:
    """Count the authors of these books, or of all; returns how many rows were wrong."""
    rows = Book.objects.all() if ids is None else Book.objects.filter(pk__in=ids)
    counted = rows.annotate(counted=_count_of(Authorship.objects.filter(book=OuterRef("pk")), "book"))
    return counted.exclude(author_count=F("counted")).update(author_count=F("counted"))


def _count_of(rows: QuerySet[Authorship], by: str) -> Coalesce:
    counts = rows.order_by().values(by).annotate(total=Count("pk")).values("total")
    return Coalesce(Subquery(counts, output_field=models.PositiveIntegerField()), 0)
