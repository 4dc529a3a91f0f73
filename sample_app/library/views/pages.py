"""The pages.  Each is one template over catalogue.py; what is live in them comes from the API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.db import IntegrityError
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from library import catalogue
from library.models import Author, Authorship, Book
from library.views.parameters import RefusedError, whole

SUGGESTIONS = 200
"""Author names that the form of a book's page suggests."""


@require_safe
@never_cache
def index(request: HttpRequest) -> HttpResponse:
    """The front page: numbers, who answers, tasks, changes."""
    numbers = {
        "authors": Author.objects.count(),
        "books": Book.objects.count(),
        "authorships": Authorship.objects.count(),
    }
    return render(request, "library/index.html", {"numbers": numbers})


@require_safe
@never_cache
def authors(request: HttpRequest) -> HttpResponseBase:
    """Authors with their books: two queries, however many there are on the page."""
    return _list(request, "library/authors.html", catalogue.authors_with_books)


@require_safe
@never_cache
def books(request: HttpRequest) -> HttpResponseBase:
    """Books with their authors: two queries as well."""
    return _list(request, "library/books.html", catalogue.books_with_authors)


@require_safe
@never_cache
def book(request: HttpRequest, pk: int) -> HttpResponse:
    """One book, its authors' parts, and a form to add one."""
    found = get_object_or_404(Book, pk=pk)
    context = {
        "book": found,
        "authorships": catalogue.authorships_of(found),
        "contributions": Authorship.Contribution.choices,
        "suggestions": Author.objects.exclude(books=found).values_list("name", flat=True)[:SUGGESTIONS],
    }
    return render(request, "library/book.html", context)


@require_POST
def add_author(request: HttpRequest, pk: int) -> HttpResponse:
    """The form's `author` (a name) joins the book."""
    found = get_object_or_404(Book, pk=pk)
    contribution = request.POST.get("contribution", Authorship.Contribution.WRITER)
    if contribution not in Authorship.Contribution.values:
        return HttpResponseBadRequest("cannot use this contribution")
    name = request.POST.get("author", "").strip()
    author = Author.objects.filter(name=name).first()
    if author is None:
        messages.error(request, f"There is no author called “{name[:100]}”.")
        return redirect("library:book", pk=pk)
    try:
        catalogue.join(found, [author.pk], contribution)
        messages.success(request, f"{author} is an author of this book.")
    except IntegrityError:
        messages.error(request, "The book or the author was deleted meanwhile.")
    return redirect("library:book", pk=pk)


@require_POST
def remove_author(request: HttpRequest, pk: int) -> HttpResponse:
    """The form's `author` (an id) leaves the book."""
    found = get_object_or_404(Book, pk=pk)
    author = get_object_or_404(Author, pk=_id(request.POST.get("author", "")))
    catalogue.leave(found, [author.pk])
    messages.success(request, f"{author} is not an author of this book any more.")
    return redirect("library:book", pk=pk)


def _list(request: HttpRequest, template: str, read: Callable[[int, int], catalogue.Page[Any]]) -> HttpResponseBase:
    try:
        number = whole(request.GET, "page", 1, 1, catalogue.PAGE_MAX)
        size = whole(request.GET, "size", catalogue.PAGE_SIZE, 1, catalogue.PAGE_SIZE_MAX)
    except RefusedError as error:
        return HttpResponseBadRequest(str(error), content_type="text/plain; charset=utf-8")
    return render(request, template, {"page": read(number, size), "size": size})


def _id(text: str) -> int:
    """An id that exists nowhere, 0, for what is no id."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0
