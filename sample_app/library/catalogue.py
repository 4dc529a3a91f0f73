"""Reading and changing the catalogue: what pages and API share.

The list of authors with their books takes two queries, for one author as for a thousand: the authors, then all their
books through the join table (`prefetch_related`).  A page knows whether there is another by asking for one author
more than it shows, not by counting them all.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Generic, TypeVar

from django.db import IntegrityError, models, transaction
from django.db.models import QuerySet

from library.models import Author, Authorship, Book

PAGE_SIZE = 24
PAGE_SIZE_MAX = 1_000
PAGE_MAX = 100_000

Row = TypeVar("Row", bound=models.Model)


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """Some rows, and whether there are more.  Pages are counted from 1."""

    rows: list[Row]
    number: int
    has_next: bool


def authors_with_books(number: int = 1, size: int = PAGE_SIZE) -> Page[Author]:
    """Authors by name, each with its books in `author.books.all()`: two queries."""
    return _page(Author.objects.prefetch_related("books"), number, size)


def books_with_authors(number: int = 1, size: int = PAGE_SIZE) -> Page[Book]:
    """Books by title, each with its authors in `book.authors.all()`: two queries."""
    return _page(Book.objects.prefetch_related("authors"), number, size)


def authorships_of(book: Book) -> QuerySet[Authorship]:
    """A book's authors with their parts, in one query."""
    return book.authorships.select_related("author").order_by("author__name")


def join(book: Book, author_ids: Collection[int], contribution: str = Authorship.Contribution.WRITER) -> None:
    """Add authors to a book; those who are there already stay as they are.

    Where two requests add the same author at once, PostgreSQL lets both look before either writes: the loser's
    IntegrityError is answered by looking again.  (SQLite's IMMEDIATE transactions come one after the other.)
    Raises IntegrityError when an author vanished meanwhile.
    """
    for last in (False, True):
        try:
            with transaction.atomic():
                book.authors.add(*author_ids, through_defaults={"contribution": contribution})
            return
        except IntegrityError:
            if last:
                raise


def leave(book: Book, author_ids: Collection[int]) -> None:
    """Remove authors from a book; those who are not there do not matter."""
    with transaction.atomic():
        book.authors.remove(*author_ids)


def _page(rows: QuerySet[Row], number: int, size: int) -> Page[Row]:
    start = (number - 1) * size
    found = list(rows[start : start + size + 1])
    return Page(found[:size], number, len(found) > size)
