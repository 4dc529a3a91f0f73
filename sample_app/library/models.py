"""Authors and books, joined by an explicit table; and three small tables that Celery's tasks write.

`book.authors.add(author)` and its relatives work on an explicit through table because each extra column of it has a
default: `contribution` and `date_joined` need only be named (`through_defaults=...`) when they differ.
"""

from __future__ import annotations

import datetime as dt
from typing import ClassVar

from django.db import models
from django.utils import timezone


def today() -> dt.date:
    """The date now, in the project's time zone (a named function, so that a migration can refer to it)."""
    return timezone.localdate()


class Author(models.Model):
    """Somebody who wrote, drew or translated."""

    name = models.CharField(max_length=200, unique=True)
    book_count = models.PositiveIntegerField(default=0, editable=False)
    """How many books; kept by the task `record_change`, soon after each change."""

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class Book(models.Model):
    """A book may have many authors, and an author many books."""

    isbn = models.CharField(max_length=13, unique=True)
    title = models.CharField(max_length=200)
    published = models.DateField(default=today)
    author_count = models.PositiveIntegerField(default=0, editable=False)
    """How many authors; kept by the task `record_change`, soon after each change."""
    authors: models.ManyToManyField[Author, Authorship] = models.ManyToManyField(
        Author, through="Authorship", related_name="books"
    )

    class Meta:
        ordering = ("title", "id")
        indexes: ClassVar = [models.Index(fields=["title", "id"], name="book_by_title")]

    def __str__(self) -> str:
        return self.title


class Authorship(models.Model):
    """One author's part in one book.

    Two indexes serve every query: the unique constraint, by book first, and `authorship_by_author`, by author first.
    Both hold both keys, so the join table itself is never read to get from one side to the other, and the
    single-column indexes that Django would add by itself are switched off.
    """

    class Contribution(models.TextChoices):
        """What somebody did for a book."""

        WRITER = "writer", "Writer"
        EDITOR = "editor", "Editor"
        TRANSLATOR = "translator", "Translator"
        ILLUSTRATOR = "illustrator", "Illustrator"

    book = models.ForeignKey(Book, on_delete=models.CASCADE, related_name="authorships", db_index=False)
    author = models.ForeignKey(Author, on_delete=models.CASCADE, related_name="authorships", db_index=False)
    contribution = models.CharField(max_length=20, choices=Contribution.choices, default=Contribution.WRITER)
    date_joined = models.DateField(default=today)

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["book", "author"], name="authorship_once")]
        indexes: ClassVar = [models.Index(fields=["author", "book"], name="authorship_by_author")]

    def __str__(self) -> str:
        return f"{self.author_id} of {self.book_id}: {self.contribution}"


class Change(models.Model):
    """One line of the audit: one call of add, remove, clear or half a set, however many rows it touched."""

    class Action(models.TextChoices):
        """What was done to the relation."""

        ADD = "add", "added"
        REMOVE = "remove", "removed"
        CLEAR = "clear", "cleared"

    key = models.UUIDField(unique=True, editable=False)
    """Given when the change was made: a task that runs twice writes one line."""
    at = models.DateTimeField(default=timezone.now)
    action = models.CharField(max_length=10, choices=Action.choices)
    on_book = models.BooleanField()
    """True: a book's authors were changed; False: an author's books."""
    subject_id = models.BigIntegerField()
    row_count = models.PositiveIntegerField()
    sample_ids = models.JSONField(default=list)
    """The ids at the other side: all of them when they are few, the first of them when they are many."""
    worker = models.CharField(max_length=100, default="")

    class Meta:
        ordering = ("-id",)

    def __str__(self) -> str:
        side = "book" if self.on_book else "author"
        return f"{side} {self.subject_id}: {self.get_action_display()} {self.row_count}"


class Job(models.Model):
    """The checkpoint of one long task: which steps are done.  It outlives the worker that did them."""

    key = models.CharField(max_length=64, unique=True)
    steps_done = models.PositiveIntegerField(default=0)
    steps_total = models.PositiveIntegerField()
    runs = models.PositiveIntegerField(default=0)
    """How often a worker took the task up; more than once when it was handed back."""
    result = models.BigIntegerField(default=0)
    """What the steps add up to: each adds its number exactly once."""
    updated = models.DateTimeField(auto_now=True)

    class Meta:
        indexes: ClassVar = [models.Index(fields=["updated"], name="job_by_update")]

    def __str__(self) -> str:
        return f"{self.key}: {self.steps_done}/{self.steps_total}"


class Heartbeat(models.Model):
    """When beat's periodic task last ran, and what it counted then; one row."""

    name = models.CharField(max_length=50, unique=True)
    at = models.DateTimeField(default=timezone.now)
    beats = models.PositiveBigIntegerField(default=0)
    authors = models.PositiveIntegerField(default=0)
    books = models.PositiveIntegerField(default=0)
    authorships = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.name}: {self.beats}"
