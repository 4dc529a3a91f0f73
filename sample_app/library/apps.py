"""Connects the signal receivers once all models are there."""

from __future__ import annotations

from django.apps import AppConfig


class LibraryConfig(AppConfig):
    """The one app of this project."""

    name = "library"

    def ready(self) -> None:
        """Importing the module connects its receivers."""
        from library import receivers  # noqa: F401
