"""Pages for people, an API for programs, and what a supervisor asks."""

from __future__ import annotations

from django.urls import path

from library.views import api, pages, probes

app_name = "library"
urlpatterns = [
    path("", pages.index, name="index"),
    path("authors", pages.authors, name="authors"),
    path("books", pages.books, name="books"),
    path("books/<int:pk>", pages.book, name="book"),
    path("books/<int:pk>/add", pages.add_author, name="add-author"),
    path("books/<int:pk>/remove", pages.remove_author, name="remove-author"),
    path("api/status", api.status, name="api-status"),
    path("api/authors", api.authors, name="api-authors"),
    path("api/books/<int:pk>", api.book, name="api-book"),
    path("api/books/<int:pk>/authors", api.book_authors, name="api-book-authors"),
    path("api/tasks", api.tasks, name="api-tasks"),
    path("api/tasks/<uuid:task_id>", api.task, name="api-task"),
    path("slow", probes.slow, name="slow"),
    path("healthz", probes.healthz, name="healthz"),
]
