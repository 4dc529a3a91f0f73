"""Pages, API and probes: what they answer, what they refuse, and in how many queries."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any
from unittest import mock

from django.db import DatabaseError, connection
from django.test import Client, SimpleTestCase, TestCase
from django.urls import reverse
from kombu.exceptions import OperationalError
from library import served, tasks
from library.models import Author, Authorship, Book, Change, Heartbeat
from library.views import api
from sample.celery import app


def library_of(authors: int) -> None:
    """So many authors, each with three books of the one before, of its own and of the next."""
    Author.objects.bulk_create(Author(name=f"Author {n:04}") for n in range(authors))
    Book.objects.bulk_create(Book(isbn=str(n), title=f"Book {n:04}") for n in range(authors + 2))
    people, books = list(Author.objects.all()), list(Book.objects.all())
    Authorship.objects.bulk_create(
        Authorship(author=person, book=books[n + step]) for n, person in enumerate(people) for step in range(3)
    )


class QueryCountTests(TestCase):
    """Two queries: one for authors, one for all their books; for one author as for a thousand."""

    def check(self, authors: int) -> None:
        library_of(authors)
        with self.assertNumQueries(2):
            page = self.client.get(reverse("library:authors"), {"size": 1000})
        assert page.content.count(b'<article class="card">') == authors
        assert page.content.count(b"<li><a href") == 3 * authors
        with self.assertNumQueries(2):
            answer = self.client.get(reverse("library:api-authors"), {"size": 1000}).json()
        assert len(answer["authors"]) == authors
        assert {len(author["books"]) for author in answer["authors"]} == {3}

    def test_one_author(self) -> None:
        self.check(1)

    def test_a_thousand_authors(self) -> None:
        self.check(1_000)

    def test_books_with_their_authors(self) -> None:
        library_of(50)
        with self.assertNumQueries(2):
            self.client.get(reverse("library:books"), {"size": 1000})


class PageTests(TestCase):
    def setUp(self) -> None:
        patched = mock.patch.object(tasks.record_change, "delay")
        self.delay = patched.start()
        self.addCleanup(patched.stop)
        library_of(5)
        self.book = Book.objects.all()[0]
        self.author = Author.objects.all()[4]

    def post(self, name: str, data: dict[str, Any], client: Client | None = None) -> Any:
        with self.captureOnCommitCallbacks(execute=True):
            return (client or self.client).post(reverse(name, args=[self.book.pk]), data)

    def test_every_page_says_who_answered(self) -> None:
        for url in ("/", "/authors", "/books", f"/books/{self.book.pk}", "/nowhere"):
            response = self.client.get(url)
            assert response["X-Served-Pid"] == str(served.me().pid)
            assert response["X-Served-Generation"] == "no supervisor"
        assert f"pid {served.me().pid}" in self.client.get("/").content.decode()

    def test_pages_load_nothing_from_elsewhere(self) -> None:
        for url in ("/", "/authors", "/books", f"/books/{self.book.pk}"):
            page = self.client.get(url).content.decode().replace("http://www.w3.org/2000/svg", "")
            assert "//" not in page.replace("://", "//") or "http" not in page, url

    def test_paging(self) -> None:
        first = self.client.get("/authors", {"size": 2}).content.decode()
        last = self.client.get("/authors", {"size": 2, "page": 3}).content.decode()

        assert "page=2" in first
        assert "Author 0004" in last
        assert 'rel="next"' not in last
        assert self.client.get("/authors", {"page": "x"}).status_code == 400
        assert self.client.get("/authors", {"size": 1001}).status_code == 400

    def test_add_and_remove_an_author(self) -> None:
        added = self.post("library:add-author", {"author": self.author.name, "contribution": "editor"})
        assert added.status_code == 302
        assert Authorship.objects.get(book=self.book, author=self.author).contribution == "editor"
        assert "is an author of this book" in self.client.get(added["Location"]).content.decode()

        self.post("library:remove-author", {"author": self.author.pk})
        assert not Authorship.objects.filter(book=self.book, author=self.author).exists()
        assert [call.kwargs["action"] for call in self.delay.call_args_list] == ["add", "remove"]

    def test_nobody_of_that_name(self) -> None:
        response = self.post("library:add-author", {"author": "<b>Nobody</b>"})

        page = self.client.get(response["Location"]).content.decode()
        assert "There is no author called “&lt;b&gt;Nobody&lt;/b&gt;”." in page

    def test_refused_forms(self) -> None:
        assert self.post("library:add-author", {"author": "x", "contribution": "king"}).status_code == 400
        for nobody in ("", "x", "0", "99999999999999999999", "²"):
            assert self.post("library:remove-author", {"author": nobody}).status_code == 404
        assert self.client.get(reverse("library:add-author", args=[self.book.pk])).status_code == 405

    def test_forms_need_the_csrf_token(self) -> None:
        strict = Client(enforce_csrf_checks=True)
        name = self.author.name
        assert self.post("library:add-author", {"author": name}, strict).status_code == 403
        assert self.post("library:remove-author", {"author": self.author.pk}, strict).status_code == 403

        page = strict.get(f"/books/{self.book.pk}")
        token = page.content.decode().split('name="csrfmiddlewaretoken" value="')[1].split('"')[0]
        assert (
            self.post("library:add-author", {"author": name, "csrfmiddlewaretoken": token}, strict).status_code == 302
        )
        assert Authorship.objects.filter(book=self.book, author=self.author).exists()

    def test_a_foreign_host_name_is_refused(self) -> None:
        assert self.client.get("/healthz", headers={"host": "evil.example"}).status_code == 400


class AuthorshipApiTests(TestCase):
    def setUp(self) -> None:
        patched = mock.patch.object(tasks.record_change, "delay")
        self.delay = patched.start()
        self.addCleanup(patched.stop)
        library_of(5)
        self.book = Book.objects.all()[0]
        self.ids = list(Author.objects.values_list("pk", flat=True))
        self.url = reverse("library:api-book-authors", args=[self.book.pk])
        self.client = Client(enforce_csrf_checks=True)

    def send(self, method: str, body: Any, content_type: str = "application/json") -> tuple[int, Any]:
        text = body if isinstance(body, str) else json.dumps(body)
        with self.captureOnCommitCallbacks(execute=True):
            response = self.client.generic(method, self.url, text, content_type=content_type)
        return response.status_code, response.json()

    def test_add_and_remove_many_at_once(self) -> None:
        status, book = self.send("POST", {"author_ids": self.ids, "contribution": "translator"})
        assert status == 200
        parts = {each["author"]["id"]: each["contribution"] for each in book["authorships"]}
        assert parts == {self.ids[0]: "writer"} | dict.fromkeys(self.ids[1:], "translator")

        status, book = self.send("DELETE", {"author_ids": self.ids[1:]})
        assert (status, [each["author"]["id"] for each in book["authorships"]]) == (200, self.ids[:1])
        assert book == self.client.get(reverse("library:api-book", args=[self.book.pk])).json()
        assert [call.kwargs["row_count"] for call in self.delay.call_args_list] == [4, 4]

    def test_refusals(self) -> None:
        good = {"author_ids": self.ids}
        assert self.send("POST", good, "text/plain")[0] == 415
        assert self.send("POST", "{")[0] == 400
        assert self.send("POST", [1])[0] == 400
        for ids in (None, [], "1", [True], [1.5], ["1"], [0], [2**63], list(range(1, api.IDS_MAX + 2))):
            assert self.send("POST", {"author_ids": ids})[0] == 400, ids
        assert self.send("POST", good | {"contribution": "king"})[0] == 400
        assert self.send("POST", good | {"contribution": ["writer"]})[0] == 400
        status, answer = self.send("POST", {"author_ids": [*self.ids, 10**9]})
        assert (status, answer) == (404, {"error": "cannot add authors: there is none with the id 1000000000"})
        assert Authorship.objects.filter(book=self.book).count() == 1
        assert self.client.get(self.url).status_code == 405


class TaskApiTests(TestCase):
    def submit(self, body: Any) -> tuple[int, Any]:
        response = self.client.post("/api/tasks", json.dumps(body), content_type="application/json")
        return response.status_code, response.json()

    def test_submit(self) -> None:
        task_id = str(uuid.uuid4())
        with mock.patch.object(tasks.long, "apply_async", return_value=mock.Mock(id=task_id)) as queue:
            status, answer = self.submit({"task": "long", "arguments": {"steps": 3, "key": "k"}})

        queue.assert_called_once_with(kwargs={"key": "k", "steps": 3, "step_seconds": 0.5})
        assert status == 202
        assert (answer["id"], answer["url"]) == (task_id, f"/api/tasks/{task_id}")

    def test_every_task_can_be_submitted(self) -> None:
        for name, (task, _) in api.SUBMITTABLE.items():
            with mock.patch.object(task, "apply_async", return_value=mock.Mock(id=str(uuid.uuid4()))):
                assert self.submit({"task": name})[0] == 202

    def test_each_long_task_is_work_of_its_own(self) -> None:
        with mock.patch.object(tasks.long, "apply_async", return_value=mock.Mock(id=str(uuid.uuid4()))) as queue:
            self.submit({"task": "long"})
            self.submit({"task": "long"})

        first, second = (call.kwargs["kwargs"]["key"] for call in queue.call_args_list)
        assert first != second

    def test_refusals(self) -> None:
        for body in (
            {},
            {"task": "refresh_stats"},
            {"task": ["short"]},
            {"task": "short", "arguments": [1]},
            {"task": "short", "arguments": {"x": "one"}},
            {"task": "short", "arguments": {"x": 0.5}},
            {"task": "short", "arguments": {"x": True}},
            {"task": "cpu", "arguments": {"seconds": 61}},
            {"task": "cpu", "arguments": {"seconds": float("nan")}},
            {"task": "long", "arguments": {"steps": 0}},
            {"task": "long", "arguments": {"key": ""}},
            {"task": "fail", "arguments": {"message": "x" * 201}},
        ):
            status, answer = self.submit(body)
            assert (status, answer["error"][:7]) == (400, "cannot "), body

    def test_a_broker_that_is_away(self) -> None:
        with mock.patch.object(tasks.short, "apply_async", side_effect=OperationalError("refused")):
            status, answer = self.submit({"task": "short"})

        assert (status, answer) == (503, {"error": "cannot queue the task: the broker does not answer"})

    def test_really_no_broker(self) -> None:
        """Against a port where nobody listens: an answer within the publishing policy, not a hang of 19 s."""
        began = time.monotonic()
        assert self.submit({"task": "short"})[0] == 503
        assert time.monotonic() - began < 5

    def result(self, meta: dict[str, Any]) -> dict[str, Any]:
        with mock.patch.object(app.backend, "get_task_meta", return_value=meta):
            answer: dict[str, Any] = self.client.get(f"/api/tasks/{uuid.UUID(int=1)}").json()
        return answer

    def test_results(self) -> None:
        there = {"id": str(uuid.UUID(int=1))}
        progress = {"done": 1, "total": 2}
        assert self.result({"status": "PENDING", "result": None}) == there | {"state": "PENDING"}
        assert self.result({"status": "PROGRESS", "result": progress}) == there | {
            "state": "PROGRESS",
            "progress": progress,
        }
        assert self.result({"status": "SUCCESS", "result": {"sum": 3}}) == there | {
            "state": "SUCCESS",
            "result": {"sum": 3},
        }
        assert self.result({"status": "FAILURE", "result": ValueError("no")}) == there | {
            "state": "FAILURE",
            "error": "ValueError: no",
        }

    def test_results_while_redis_is_away(self) -> None:
        with mock.patch.object(app.backend, "get_task_meta", side_effect=ConnectionError):
            assert self.client.get(f"/api/tasks/{uuid.uuid4()}").status_code == 503


class StatusApiTests(TestCase):
    def test_before_and_after_the_first_beat(self) -> None:
        assert self.client.get("/api/status").json()["heartbeat"] is None
        Heartbeat.objects.create(name="beat", beats=3)
        for number in range(api.CHANGES_SHOWN + 1):
            Change.objects.create(key=f"{number:032x}", action="add", on_book=True, subject_id=9, row_count=2)

        with self.assertNumQueries(2):
            answer = self.client.get("/api/status").json()
        assert answer["heartbeat"]["beats"] == 3
        assert len(answer["changes"]) == api.CHANGES_SHOWN
        assert answer["changes"][0]["text"] == "book 9: added 2"


class ProbeTests(TestCase):
    def test_healthz(self) -> None:
        with self.assertNumQueries(1):
            response = self.client.get("/healthz")
        assert (response.status_code, response.json()["status"]) == (200, "ok")
        assert "no-store" in response["Cache-Control"]

    def test_healthz_without_a_database(self) -> None:
        with mock.patch.object(connection, "cursor", side_effect=DatabaseError("gone")):
            response = self.client.get("/healthz")
        assert (response.status_code, response.json()) == (503, {"status": "unavailable", "error": "DatabaseError"})

    def test_slow_waits_as_long_as_it_is_told(self) -> None:
        with mock.patch("library.views.probes.time.sleep") as sleep:
            assert self.client.get("/slow", {"seconds": "2.5"}).json()["slept_seconds"] == 2.5
        sleep.assert_called_once_with(2.5)

    def test_slow_is_bounded(self) -> None:
        for seconds in ("-1", "31", "nan", "inf", "x", ""):
            with mock.patch("library.views.probes.time.sleep") as sleep:
                assert self.client.get("/slow", {"seconds": seconds}).status_code == 400
            sleep.assert_not_called()


class ServedByTests(SimpleTestCase):
    def test_the_generation_is_the_masters_name(self) -> None:
        assert served.master_name(["gunicorn", "-w", "2", "--name", "web-g3", "sample.wsgi"]) == "web-g3"
        assert served.master_name(["manage.py", "runserver"]) == "no supervisor"
