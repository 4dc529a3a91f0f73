"""seed_data: repeatable, deterministic, and careful with what is there."""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import TestCase
from django.test.utils import CaptureQueriesContext
from library.management.commands.seed_data import author_name, isbn
from library.models import Author, Authorship, Book


def seed(**options: int) -> str:
    out = StringIO()
    call_command("seed_data", stdout=out, **options)
    return out.getvalue()


def library() -> list[tuple[str, str, str, str]]:
    """Everything in it, without ids."""
    rows = Authorship.objects.order_by("book__isbn", "author__name")
    return [
        (isbn, title, name, f"{part} {day}")
        for isbn, title, name, part, day in rows.values_list(
            "book__isbn", "book__title", "author__name", "contribution", "date_joined"
        )
    ]


class SeedTests(TestCase):
    def test_again_adds_nothing(self) -> None:
        assert "added 30 authors, 40 books" in seed(authors=30, books=40)
        first = library()

        assert "added 0 authors, 0 books, 0 authorships" in seed(authors=30, books=40)
        assert library() == first

    def test_the_same_seed_makes_the_same_library(self) -> None:
        seed(authors=30, books=40, seed=7)
        first = library()
        Book.objects.all().delete()
        Author.objects.all().delete()

        seed(authors=30, books=40, seed=7)
        assert library() == first

    def test_another_seed_makes_another(self) -> None:
        seed(authors=30, books=40, seed=7)
        first = library()
        Book.objects.all().delete()

        seed(authors=30, books=40, seed=8)
        assert library() != first

    def test_more_adds_to_what_is_there(self) -> None:
        seed(authors=10, books=10)
        before = set(library())
        seed(authors=20, books=25)

        assert before < set(library())
        assert (Author.objects.count(), Book.objects.count()) == (20, 25)

    def test_what_was_changed_by_hand_stays(self) -> None:
        seed(authors=10, books=10)
        Authorship.objects.filter(book__isbn=isbn(0)).delete()
        Book.objects.filter(isbn=isbn(1)).update(title="Renamed")
        seed(authors=10, books=10)

        assert not Authorship.objects.filter(book__isbn=isbn(0)).exists()
        assert Book.objects.get(isbn=isbn(1)).title == "Renamed"

    def test_counters_are_right(self) -> None:
        seed(authors=10, books=30)

        for book in Book.objects.prefetch_related("authors"):
            assert book.author_count == len(book.authors.all()) >= 1
        for author in Author.objects.prefetch_related("books"):
            assert author.book_count == len(author.books.all())

    def test_books_without_authors_and_nothing_at_all(self) -> None:
        seed(authors=0, books=3)
        assert (Book.objects.count(), Authorship.objects.count()) == (3, 0)
        seed(authors=0, books=0)

    def test_the_number_of_queries_does_not_grow_with_the_rows(self) -> None:
        with CaptureQueriesContext(connection) as few:
            seed(authors=2, books=2)
        with CaptureQueriesContext(connection) as many:
            seed(authors=100, books=100)
        assert len(few) == len(many) < 20

    def test_bounds(self) -> None:
        for options in ({"authors": -1}, {"books": 100_001}):
            with pytest.raises(CommandError, match="say a number from 0 to 100000"):
                seed(**options)

    def test_names_are_all_different(self) -> None:
        assert len({author_name(index) for index in range(5_000)}) == 5_000
