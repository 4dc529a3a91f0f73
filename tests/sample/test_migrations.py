"""The migrations in the repository are those of the models."""

from __future__ import annotations

from django.core.management import call_command
from django.test import TestCase


class MigrationTests(TestCase):
    def test_nothing_is_missing(self) -> None:
        call_command("makemigrations", check=True, dry_run=True, verbosity=0)
