"""The many-to-many relation, used as Django's documentation writes it, and the indexes behind it."""

from __future__ import annotations

import datetime as dt
from typing import Any
from unittest import mock

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models import QuerySet
from django.test import TestCase
from django.utils import timezone
from library import tasks
from library.models import Author, Authorship, Book


def author(name: str) -> Author:
    return Author.objects.create(name=name)


def book(number: int) -> Book:
    return Book.objects.create(isbn=str(number), title=f"Book {number}")


class RelationTests(TestCase):
    def setUp(self) -> None:
        quiet = mock.patch.object(tasks.record_change, "delay")
        quiet.start()
        self.addCleanup(quiet.stop)
        self.first, self.second, self.third = author("A"), author("B"), author("C")
        self.book = book(1)

    def test_add_without_through_defaults_takes_the_columns_defaults(self) -> None:
        self.book.authors.add(self.first, self.second)

        rows = Authorship.objects.filter(book=self.book)
        assert set(rows.values_list("author", flat=True)) == {self.first.pk, self.second.pk}
        assert set(rows.values_list("contribution", flat=True)) == {"writer"}
        assert set(rows.values_list("date_joined", flat=True)) == {timezone.localdate()}

    def test_add_with_through_defaults(self) -> None:
        day = dt.date(2001, 2, 3)
        self.book.authors.add(self.first, through_defaults={"contribution": "editor", "date_joined": day})

        row = Authorship.objects.get()
        assert (row.contribution, row.date_joined) == ("editor", day)

    def test_add_again_changes_nothing(self) -> None:
        self.book.authors.add(self.first, through_defaults={"contribution": "editor"})
        self.book.authors.add(self.first, self.second)

        assert Authorship.objects.count() == 2
        assert Authorship.objects.get(author=self.first).contribution == "editor"

    def test_remove_clear_and_set(self) -> None:
        self.book.authors.add(self.first, self.second)
        self.book.authors.remove(self.first)
        assert list(self.book.authors.all()) == [self.second]

        self.book.authors.set([self.first, self.third])
        assert list(self.book.authors.all()) == [self.first, self.third]

        self.book.authors.set([self.second], clear=True, through_defaults={"contribution": "translator"})
        assert Authorship.objects.get().contribution == "translator"

        self.book.authors.clear()
        assert not self.book.authors.exists()

    def test_the_other_side(self) -> None:
        other = book(2)
        self.first.books.add(self.book, other)
        assert list(self.first.books.all()) == [self.book, other]

        self.first.books.remove(self.book)
        assert list(self.first.books.all()) == [other]

        self.first.books.set([self.book], through_defaults={"contribution": "illustrator"})
        assert Authorship.objects.get().contribution == "illustrator"

        self.first.books.clear()
        assert not Authorship.objects.exists()

    def test_create_through_the_relation(self) -> None:
        part = {"contribution": "editor"}
        # django-stubs takes the argument for a field of Author.
        made = self.book.authors.create(name="D", through_defaults=part)  # type: ignore[misc]

        assert list(made.books.all()) == [self.book]

    def test_twice_the_same_author_is_refused_by_the_database(self) -> None:
        Authorship.objects.create(book=self.book, author=self.first)

        with pytest.raises(IntegrityError), transaction.atomic():
            Authorship.objects.create(book=self.book, author=self.first)


def plan(rows: QuerySet[Any, Any]) -> str:
    """What SQLite would do, as EXPLAIN QUERY PLAN says it."""
    return rows.explain()


@pytest.mark.skipif(connection.vendor != "sqlite", reason="reads SQLite's EXPLAIN QUERY PLAN")
class IndexTests(TestCase):
    """Enough rows and ANALYZE, so that the planner has reasons."""

    @classmethod
    def setUpTestData(cls) -> None:
        Author.objects.bulk_create(Author(name=f"Author {n:04}") for n in range(400))
        Book.objects.bulk_create(Book(isbn=str(n), title=f"Book {n:04}") for n in range(400))
        authors, books = list(Author.objects.all()), list(Book.objects.all())
        Authorship.objects.bulk_create(
            Authorship(author=authors[n], book=books[(n + step) % 400]) for n in range(400) for step in range(5)
        )
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")

    def test_books_of_an_author(self) -> None:
        author = Author.objects.all()[7]

        assert "COVERING INDEX authorship_by_author (author_id=?)" in plan(author.books.all())

    def test_authors_of_a_book(self) -> None:
        book = Book.objects.all()[7]

        told = plan(book.authors.all())
        assert "authorship_once" in told or "sqlite_autoindex_library_authorship" in told
        assert "SCAN library_authorship" not in told

    def test_books_of_many_authors_as_prefetch_related_asks(self) -> None:
        page = list(Author.objects.all()[:24])

        told = plan(Book.objects.filter(authors__in=page))
        assert "COVERING INDEX authorship_by_author (author_id=?)" in told

    def test_one_authorship(self) -> None:
        told = plan(Authorship.objects.filter(book=3, author=5))

        assert "SEARCH library_authorship" in told
        assert "(book_id=? AND author_id=?)" in told

    def test_pages_are_read_in_the_order_of_an_index(self) -> None:
        assert "USE TEMP B-TREE" not in plan(Author.objects.all()[:25])
        assert "SCAN library_book USING INDEX book_by_title" in plan(Book.objects.all()[:25])

    def test_what_a_clear_counts_first(self) -> None:
        told = plan(Authorship.objects.filter(book_id=3).order_by("author_id").values_list("author_id"))

        assert "SEARCH library_authorship" in told
        assert "USE TEMP B-TREE" not in told

    def test_without_the_index_the_test_would_fail(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute("DROP INDEX authorship_by_author")

        assert "authorship_by_author" not in plan(Author.objects.all()[7].books.all())
