"""`manage.py seed_data`: authors, books and who wrote what.  The same numbers always make the same library.

Running it again adds what is missing and touches nothing else: a book that is there keeps its authors, also those that
somebody has added or removed since.
"""

from __future__ import annotations

import datetime as dt
import random
from argparse import ArgumentParser
from itertools import islice
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from library import counters
from library.models import Author, Authorship, Book

MOST = 100_000
BATCH = 1_000
AUTHORS_OF_A_BOOK = (1, 1, 1, 2, 2, 3)

# fmt: off
FIRST_NAMES = (
    "Ada", "Alan", "Barbara", "Claude", "Donald", "Edsger", "Frances", "Grace", "Hedy", "Joan",
    "John", "Kathleen", "Ken", "Leslie", "Margaret", "Niklaus", "Radia", "Robin", "Shafi", "Tim",
)
LAST_NAMES = (
    "Allen", "Antonelli", "Bell", "Booth", "Clarke", "Dijkstra", "Elion", "Franklin", "Hamilton", "Hopper",
    "Jemison", "Knuth", "Lamarr", "Lovelace", "Milner", "Noether", "Perlman", "Shannon", "Turing", "Wirth",
)
KINDS = ("Quiet", "Hidden", "Patient", "Paper", "Winter", "Silver", "Distant", "Common", "Restless", "Last")
THINGS = (
    "Garden", "Harbour", "Lantern", "Library", "Machine", "Mirror",
    "Orchard", "River", "Signal", "Station", "Tower", "Voyage",
)
# fmt: on


class Command(BaseCommand):
    """Fills the library."""

    help = "Fill the library with authors and books. Repeatable: adds what is missing, changes nothing that is there."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """How many, and of which library."""
        parser.add_argument("--authors", type=int, default=60, metavar="N", help="how many authors (default 60)")
        parser.add_argument("--books", type=int, default=120, metavar="N", help="how many books (default 120)")
        parser.add_argument("--seed", type=int, default=1, metavar="N", help="another seed, other links (default 1)")

    def handle(self, *args: Any, authors: int, books: int, seed: int, **options: Any) -> None:
        """Create what is missing, in one transaction."""
        for name, value in (("--authors", authors), ("--books", books)):
            if not 0 <= value <= MOST:
                raise CommandError(f"cannot seed {name} {value}: say a number from 0 to {MOST}")
        before = (Author.objects.count(), Book.objects.count(), Authorship.objects.count())
        with transaction.atomic():
            people = self._authors(authors)
            new = self._books(books, seed)
            self._authorships(new, people, seed)
            # bulk_create sends no signals, and needs none here: the counters are brought up to date at once.
            counters.recount_authors()
            counters.recount_books()
        after = (Author.objects.count(), Book.objects.count(), Authorship.objects.count())
        added = [now - then for now, then in zip(after, before, strict=True)]
        self.stdout.write(
            f"added {added[0]} authors, {added[1]} books, {added[2]} authorships; "
            f"now {after[0]}, {after[1]}, {after[2]}"
        )

    def _authors(self, count: int) -> list[int]:
        """The ids of the first `count` authors, made where they are missing."""
        names = [author_name(index) for index in range(count)]
        Author.objects.bulk_create((Author(name=name) for name in names), BATCH, ignore_conflicts=True)
        ids = dict(Author.objects.values_list("name", "pk"))
        return [ids[name] for name in names]

    def _books(self, count: int, seed: int) -> dict[int, int]:
        """Make the missing ones of the first `count` books; number -> id of those made now."""
        there = set(Book.objects.values_list("isbn", flat=True))
        missing = [number for number in range(count) if isbn(number) not in there]
        Book.objects.bulk_create((_book(number, seed) for number in missing), BATCH)
        ids = dict(Book.objects.values_list("isbn", "pk"))
        return {number: ids[isbn(number)] for number in missing}

    def _authorships(self, books: dict[int, int], people: list[int], seed: int) -> None:
        """Give new books their authors; one author is enough for a book, where there are no more."""
        if not people:
            return
        rows = (row for number, pk in books.items() for row in _authorships(number, pk, people, seed))
        while batch := list(islice(rows, BATCH)):
            Authorship.objects.bulk_create(batch, ignore_conflicts=True)


def author_name(index: int) -> str:
    """Name number `index`, unlike all others."""
    number, first = divmod(index, len(FIRST_NAMES))
    number, last = divmod(number, len(LAST_NAMES))
    # Going round by one more each time, neighbours in the list do not share their last name.
    name = f"{FIRST_NAMES[first]} {LAST_NAMES[(last + first) % len(LAST_NAMES)]}"
    return f"{name} {number + 1}" if number else name


def isbn(number: int) -> str:
    """A number that no bookshop has; it names the book in the library."""
    return f"979{number:010d}"


def _book(number: int, seed: int) -> Book:
    chance = random.Random(f"book {seed} {number}")
    title = f"The {chance.choice(KINDS)} {chance.choice(THINGS)} {number + 1}"
    return Book(isbn=isbn(number), title=title, published=_published(number, seed))


def _authorships(number: int, pk: int, people: list[int], seed: int) -> list[Authorship]:
    chance = random.Random(f"authors {seed} {number}")
    chosen = chance.sample(people, min(chance.choice(AUTHORS_OF_A_BOOK), len(people)))
    parts = [Authorship.Contribution.WRITER, *(chance.choice(Authorship.Contribution.values) for _ in chosen[1:])]
    day = _published(number, seed)
    return [
        Authorship(book_id=pk, author_id=author, contribution=part, date_joined=day)
        for author, part in zip(chosen, parts, strict=True)
    ]


def _published(number: int, seed: int) -> dt.date:
    days = random.Random(f"day {seed} {number}").randrange(60 * 365)
    return dt.date(1960, 1, 1) + dt.timedelta(days=days)
