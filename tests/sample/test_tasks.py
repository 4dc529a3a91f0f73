"""The tasks, each run twice where a message may come twice."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
from django.test import TestCase
from django.utils import timezone
from library import counters, tasks
from library.models import Author, Authorship, Book, Change, Heartbeat, Job
from redis.exceptions import ConnectionError as RedisConnectionError
from sample.celery import app


class LongTests(TestCase):
    def run_long(self, **arguments: Any) -> dict[str, Any]:
        result: dict[str, Any] = tasks.long.apply(kwargs={"key": "job", "step_seconds": 0, **arguments}).get()
        return result

    @contextmanager
    def as_delivered(self) -> Iterator[None]:
        tasks.long.push_request(id="an id", is_eager=False)
        try:
            yield
        finally:
            tasks.long.pop_request()

    def test_every_step_counts_once(self) -> None:
        result = self.run_long(steps=10)

        assert (result["steps"], result["runs"], result["result"]) == (10, 1, sum(range(10)))

    def test_a_delivery_after_a_death_goes_on_where_it_was(self) -> None:
        with (
            mock.patch("library.tasks.time.sleep", side_effect=[None, None, None, SystemExit]),
            pytest.raises(SystemExit),
        ):
            tasks.long(key="job", steps=10, step_seconds=0)
        assert Job.objects.get().steps_done == 3

        with mock.patch("library.tasks.time.sleep") as sleep:
            result = self.run_long(steps=10)
        assert sleep.call_count == 7
        assert (result["runs"], result["result"]) == (2, sum(range(10)))

    def test_a_delivery_after_the_end_does_nothing(self) -> None:
        first = self.run_long(steps=4)
        with mock.patch("library.tasks.time.sleep") as sleep:
            again = self.run_long(steps=4)

        sleep.assert_not_called()
        assert again["result"] == first["result"]

    def test_two_workers_at_once_do_no_step_twice(self) -> None:
        def overtaken(_pause: float) -> None:
            """While this worker sleeps, another one does its step, and every third time the next one as well."""
            done = Job.objects.get().steps_done
            for step in (done, done + 1)[: 2 if done % 3 == 0 else 1]:
                assert tasks.finish_step("job", step) == (step < 10)

        with mock.patch("library.tasks.time.sleep", side_effect=overtaken):
            result = self.run_long(steps=10)
        assert result["result"] == sum(range(10))
        assert Job.objects.get().steps_done == 10

    def test_a_step_is_done_by_one(self) -> None:
        Job.objects.create(key="job", steps_total=2)

        assert tasks.finish_step("job", 0)
        assert not tasks.finish_step("job", 0)
        assert not tasks.finish_step("job", 2)
        assert tasks.finish_step("job", 1)
        assert not tasks.finish_step("job", 2), "there are only two"
        assert Job.objects.get().steps_done == 2

    def test_progress_is_told(self) -> None:
        with self.as_delivered(), mock.patch.object(tasks.long, "update_state") as told:
            tasks.long.run(key="job", steps=3, step_seconds=0)

        assert [call.kwargs["meta"]["done"] for call in told.call_args_list] == [0, 1, 2]
        assert {call.kwargs["state"] for call in told.call_args_list} == {"PROGRESS"}

    def test_work_goes_on_while_redis_is_away(self) -> None:
        away = mock.patch.object(tasks.long, "update_state", side_effect=RedisConnectionError("refused"))
        with self.as_delivered(), away, self.assertLogs("library.tasks", "WARNING"):
            result = tasks.long.run(key="job", steps=3, step_seconds=0)

        assert result["result"] == sum(range(3))

    def test_its_length_is_bounded(self) -> None:
        with mock.patch("library.tasks.time.sleep") as sleep:
            result = self.run_long(steps=10**9, step_seconds=10**9)

        assert result["steps"] == tasks.STEPS_MAX
        assert sum(call.args[0] for call in sleep.call_args_list) == pytest.approx(tasks.LONG_SECONDS_MAX)


class SmallTaskTests(TestCase):
    def test_short(self) -> None:
        assert tasks.short.apply(kwargs={"x": 2, "y": 3}).get()["sum"] == 5

    def test_cpu_uses_processor_time(self) -> None:
        before = time.process_time()
        result = tasks.cpu.apply(kwargs={"seconds": 0.05}).get()

        assert time.process_time() - before >= 0.05
        assert result["largest"] > 2

    def test_fail(self) -> None:
        outcome = tasks.fail.apply(kwargs={"message": "on purpose"})

        assert outcome.state == "FAILURE"
        with pytest.raises(ValueError, match="on purpose"):
            outcome.get()


class RecordTests(TestCase):
    def setUp(self) -> None:
        self.author = Author.objects.create(name="A", book_count=7)
        self.other = Author.objects.create(name="B", book_count=7)
        self.book = Book.objects.create(isbn="1", title="Book")
        Authorship.objects.create(book=self.book, author=self.author)

    def record(self, **changed: Any) -> None:
        tasks.record_change(
            **{
                "key": "00000000-0000-0000-0000-000000000001",
                "action": "add",
                "on_book": True,
                "subject_id": self.book.pk,
                "row_count": 1,
                "sample_ids": [self.author.pk],
                **changed,
            }
        )

    def counts(self) -> tuple[int, int, int]:
        for row in (self.author, self.other, self.book):
            row.refresh_from_db()
        return self.author.book_count, self.other.book_count, self.book.author_count

    def test_twice_is_as_good_as_once(self) -> None:
        self.record()
        self.record()

        assert Change.objects.count() == 1
        assert self.counts() == (1, 7, 1)

    def test_more_rows_than_ids_counts_all(self) -> None:
        self.record(row_count=2)

        assert self.counts() == (1, 0, 1)

    def test_from_the_authors_side(self) -> None:
        self.record(on_book=False, subject_id=self.other.pk, sample_ids=[self.book.pk])

        assert self.counts() == (7, 0, 1)

    def test_of_a_book_that_is_gone(self) -> None:
        gone = self.book.pk
        self.book.delete()
        self.record(subject_id=gone)

        assert Change.objects.get().subject_id == gone


class StatsTests(TestCase):
    def test_beats_and_puts_counters_right(self) -> None:
        Author.objects.create(name="A", book_count=3)
        with self.assertLogs("library.tasks", "WARNING") as logs:
            tasks.refresh_stats()
        tasks.refresh_stats()

        beat = Heartbeat.objects.get()
        assert (beat.beats, beat.authors, beat.books, beat.authorships) == (2, 1, 0, 0)
        assert Author.objects.get().book_count == 0
        assert "corrected 1 counters" in logs.output[0]

    def test_counting_writes_only_what_differs(self) -> None:
        Author.objects.create(name="A", book_count=1)
        Author.objects.create(name="B")

        assert (counters.recount_authors(), counters.recount_authors()) == (1, 0)

    def test_old_rows_go(self) -> None:
        for number in range(5):
            Change.objects.create(key=f"{number:032x}", action="add", on_book=True, subject_id=1, row_count=1)
        Job.objects.create(key="new", steps_total=1)
        Job.objects.create(key="old", steps_total=1)
        Job.objects.filter(key="old").update(updated=timezone.now() - dt.timedelta(days=2))
        kept = list(Change.objects.all()[:3])

        with mock.patch.object(tasks, "CHANGES_KEPT", 3):
            tasks.forget_old_rows()
        assert list(Change.objects.all()) == kept
        assert Job.objects.get().key == "new"

    def test_beat_schedules_a_task_that_exists(self) -> None:
        app.loader.import_default_modules()

        for entry in app.conf.beat_schedule.values():
            assert entry["task"] in app.tasks


class CelerySettingsTests(TestCase):
    def test_a_message_survives_its_worker(self) -> None:
        assert app.conf.task_acks_late
        assert app.conf.task_reject_on_worker_lost
        assert app.conf.worker_prefetch_multiplier == 1

    def test_no_task_is_delivered_again_while_it_may_still_run(self) -> None:
        assert app.conf.broker_transport_options["visibility_timeout"] >= 2 * app.conf.task_time_limit
