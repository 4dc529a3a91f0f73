"""m2m_changed: what is queued for each kind of change, from both sides, and what it costs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from django.db import connection, transaction
from django.test import TestCase, TransactionTestCase
from django.test.utils import CaptureQueriesContext
from kombu.exceptions import OperationalError
from library import receivers, tasks
from library.models import Author, Authorship, Book, Change
from sample.celery import app

MANY = 10_000


class ReceiverTests(TestCase):
    def setUp(self) -> None:
        patched = mock.patch.object(tasks.record_change, "delay")
        self.delay = patched.start()
        self.addCleanup(patched.stop)
        self.authors = [Author.objects.create(name=name) for name in "ABC"]
        self.ids = [each.pk for each in self.authors]
        self.books = [Book.objects.create(isbn=str(n), title=f"Book {n}") for n in range(3)]
        self.book = self.books[0]

    def queued(self, change: Callable[[], Any]) -> list[dict[str, Any]]:
        """What is queued when the change is committed, without the keys, which are all different."""
        self.delay.reset_mock()
        with self.captureOnCommitCallbacks(execute=True):
            change()
            self.delay.assert_not_called()
        calls = [dict(call.kwargs) for call in self.delay.call_args_list]
        assert len({call.pop("key") for call in calls}) == len(calls)
        return calls

    def link(self, *authors: Author) -> None:
        with self.captureOnCommitCallbacks():
            self.book.authors.add(*authors)

    def test_add(self) -> None:
        assert self.queued(lambda: self.book.authors.add(*self.authors)) == [
            {"action": "add", "on_book": True, "subject_id": self.book.pk, "row_count": 3, "sample_ids": self.ids}
        ]

    def test_add_reports_only_who_was_not_there(self) -> None:
        self.link(self.authors[0])

        (call,) = self.queued(lambda: self.book.authors.add(*self.authors))
        assert (call["row_count"], call["sample_ids"]) == (2, self.ids[1:])
        assert self.queued(lambda: self.book.authors.add(*self.authors)) == []

    def test_remove_reports_only_who_was_there(self) -> None:
        self.link(*self.authors[:2])

        assert self.queued(lambda: self.book.authors.remove(*self.authors[1:])) == [
            {
                "action": "remove",
                "on_book": True,
                "subject_id": self.book.pk,
                "row_count": 1,
                "sample_ids": self.ids[1:2],
            }
        ]
        assert self.queued(lambda: self.book.authors.remove(self.authors[2])) == []

    def test_clear_knows_what_there_was(self) -> None:
        self.link(*self.authors)

        assert self.queued(self.book.authors.clear) == [
            {"action": "clear", "on_book": True, "subject_id": self.book.pk, "row_count": 3, "sample_ids": self.ids}
        ]
        assert self.queued(self.book.authors.clear) == []

    def test_set_is_a_remove_and_an_add(self) -> None:
        self.link(*self.authors[:2])

        calls = self.queued(lambda: self.book.authors.set(self.authors[1:]))
        assert [(call["action"], call["sample_ids"]) for call in calls] == [
            ("remove", self.ids[:1]),
            ("add", self.ids[2:]),
        ]

    def test_the_other_side(self) -> None:
        author, books = self.authors[0], [each.pk for each in self.books]

        (added,) = self.queued(lambda: author.books.add(*self.books))
        (removed,) = self.queued(lambda: author.books.remove(self.books[0]))
        (cleared,) = self.queued(author.books.clear)
        assert added == {
            "action": "add", "on_book": False, "subject_id": author.pk, "row_count": 3, "sample_ids": books,
        }  # fmt: skip
        assert (removed["action"], removed["on_book"], removed["sample_ids"]) == ("remove", False, books[:1])
        assert (cleared["action"], cleared["on_book"], cleared["sample_ids"]) == ("clear", False, books[1:])

    def test_create_through_the_relation(self) -> None:
        (call,) = self.queued(lambda: self.book.authors.create(name="D"))

        assert (call["action"], call["row_count"]) == ("add", 1)

    def test_nothing_is_remembered_after_the_change(self) -> None:
        before = set(self.book.__dict__)
        self.link(*self.authors)

        assert set(self.book.__dict__) - before <= {"_prefetched_objects_cache"}

    def test_a_change_that_is_rolled_back_queues_nothing(self) -> None:
        def change() -> None:
            with transaction.atomic():
                self.book.authors.add(*self.authors)
                transaction.set_rollback(True)

        assert self.queued(change) == []
        assert not self.book.authors.exists()

    def test_a_broker_that_is_away_fails_no_request(self) -> None:
        self.delay.side_effect = OperationalError("connection refused")

        with self.assertLogs("django", "ERROR") as logs, self.captureOnCommitCallbacks(execute=True):
            self.book.authors.add(*self.authors)
        assert "connection refused" in logs.output[0]
        assert self.book.authors.count() == 3


class LargeSetTests(TestCase):
    """10,000 rows: one task of bounded size, and no more queries of ours than for one row."""

    @classmethod
    def setUpTestData(cls) -> None:
        Author.objects.bulk_create(Author(name=f"Author {n}") for n in range(MANY))
        cls.ids = list(Author.objects.order_by("pk").values_list("pk", flat=True))
        cls.book = Book.objects.create(isbn="1", title="By everybody")

    ids: list[int]
    book: Book

    def one_call(self, change: Callable[[], Any]) -> dict[str, Any]:
        with (
            mock.patch.object(tasks.record_change, "delay") as delay,
            self.captureOnCommitCallbacks(execute=True) as callbacks,
        ):
            change()
        assert len(callbacks) == 1
        delay.assert_called_once()
        call = dict(delay.call_args.kwargs)
        assert len(json.dumps(call)) < 1_000
        assert (call["row_count"], call["sample_ids"]) == (MANY, self.ids[: receivers.SAMPLE_SIZE])
        return call

    def link_all(self) -> None:
        Authorship.objects.bulk_create(Authorship(book=self.book, author_id=each) for each in self.ids)

    def test_add(self) -> None:
        assert self.one_call(lambda: self.book.authors.add(*self.ids))["action"] == "add"

    def test_remove(self) -> None:
        self.link_all()

        assert self.one_call(lambda: self.book.authors.remove(*self.ids))["action"] == "remove"

    def test_clear_costs_two_queries_more(self) -> None:
        self.link_all()

        with CaptureQueriesContext(connection) as captured:
            assert self.one_call(self.book.authors.clear)["action"] == "clear"
        statements = [query["sql"] for query in captured if "SAVEPOINT" not in query["sql"]]
        assert [statement.split()[0] for statement in statements] == ["SELECT", "SELECT", "DELETE"]

    def test_the_task_itself_takes_a_fixed_number_of_queries(self) -> None:
        self.link_all()
        call = {
            "action": "add", "on_book": True, "subject_id": self.book.pk, "row_count": MANY,
            "sample_ids": self.ids[:50],
        }  # fmt: skip

        with CaptureQueriesContext(connection) as captured:
            tasks.record_change(key="00000000-0000-0000-0000-000000000001", **call)
        assert len([query for query in captured if "SAVEPOINT" not in query["sql"]]) <= 4
        assert not Author.objects.exclude(book_count=1).exists()
        self.book.refresh_from_db()
        assert self.book.author_count == MANY


@contextmanager
def eager_tasks() -> Iterator[None]:
    app.conf.task_always_eager = True
    try:
        yield
    finally:
        app.conf.task_always_eager = False


class CommitTests(TransactionTestCase):
    """With real commits: the task runs (eagerly) when, and only when, the change is saved."""

    def test_after_commit_the_counters_and_the_audit_are_right(self) -> None:
        author, book = Author.objects.create(name="A"), Book.objects.create(isbn="1", title="Book")
        with eager_tasks():
            with transaction.atomic():
                book.authors.add(author)
                assert not Change.objects.exists()
            change = Change.objects.get()
            assert str(change) == f"book {book.pk}: added 1"
            author.books.clear()

        author.refresh_from_db()
        book.refresh_from_db()
        assert (author.book_count, book.author_count) == (0, 0)
        assert [str(each) for each in Change.objects.all()] == [f"author {author.pk}: cleared 1", str(change)]
