"""`manage.py reset_migrations`: delete the migration files of this project's own apps, to start again with one each.

What is deleted is exactly what Django would load as a migration: the modules in the migrations package of an app,
but those whose name begins with `_` or `~`.  `__init__.py`, helpers such as `_data.py`, and whatever else lies there
stay.

An app is the project's own when its package, all symbolic links followed, lies below BASE_DIR and not in a directory
of installed packages; the same is asked of its migrations package.  So a library's app, a virtual environment inside
the project and a link that leads out of it are never touched.  A migration that is itself a symbolic link is left,
and named.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from django.apps import AppConfig, apps
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db.migrations.loader import MigrationLoader

INSTALLED = frozenset({"site-packages", "dist-packages"})
SUFFIXES = frozenset({".py", ".pyc"})
"""Django finds a migration by import, so a lone .pyc beside the sources counts as well."""


@dataclass(frozen=True, slots=True)
class AppMigrations:
    """What would be deleted of one app, and which links are left."""

    label: str
    files: tuple[Path, ...]
    links: tuple[Path, ...]


class Command(BaseCommand):
    """Deletes migration files, after asking."""

    help = "Delete the migration files of this project's own apps (never a library's), to make them anew."
    # It must work where the models and the migrations do not fit any more.
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Ask, don't ask, or only tell."""
        parser.add_argument("--yes", action="store_true", help="do not ask")
        parser.add_argument("--dry-run", action="store_true", help="say what would be deleted, and delete nothing")

    def handle(self, *args: Any, yes: bool, dry_run: bool, **options: Any) -> None:
        """Show, ask, delete, and say how it goes on."""
        found = [each for each in map(app_migrations, project_apps(Path(settings.BASE_DIR))) if each]
        files = [file for each in found for file in each.files]
        for link in (link for each in found for link in each.links):
            self.stdout.write(f"left, a symbolic link: {link}")
        if not files:
            self.stdout.write("No migration files to delete.")
            return
        for file in files:
            self.stdout.write(f"{'would delete' if dry_run else 'delete'}: {file}")
        if dry_run:
            return
        if not yes:
            self._ask(len(files))
        for file in files:
            file.unlink()
        self._say_next([each.label for each in found if each.files], len(files))

    def _ask(self, count: int) -> None:
        try:
            answer = input(f"Delete these {count} files? Type 'yes': ")
        except EOFError:
            raise CommandError("cannot ask: there is no terminal. To delete without asking, say --yes") from None
        if answer.strip().lower() != "yes":
            raise CommandError("nothing was deleted")

    def _say_next(self, labels: list[str], count: int) -> None:
        names = " ".join(labels)
        self.stdout.write(f"Deleted {count} files. Next:")
        self.stdout.write(f"  python manage.py makemigrations {names}")
        self.stdout.write("then, for an empty database:")
        self.stdout.write("  python manage.py migrate")
        self.stdout.write("or, for a database that has the tables already:")
        for label in labels:
            self.stdout.write(f"  python manage.py migrate {label} --prune")
        self.stdout.write("  python manage.py migrate --fake-initial")


def project_apps(base_dir: Path) -> list[AppConfig]:
    """The apps that belong to the project."""
    return [config for config in apps.get_app_configs() if is_own(Path(config.path), base_dir)]


def is_own(path: Path, base_dir: Path) -> bool:
    """Whether a path, all links followed, lies below the project and not among installed packages."""
    real, base = path.resolve(), base_dir.resolve()
    return real.is_relative_to(base) and not INSTALLED & set(real.relative_to(base).parts)


def app_migrations(config: AppConfig) -> AppMigrations | None:
    """What there is to delete of an app; None without migrations of its own, or when they lie outside the project."""
    module, _ = MigrationLoader.migrations_module(config.label)
    spec = find_spec(module) if module else None
    if spec is None or spec.submodule_search_locations is None:
        return None
    directories = [Path(each) for each in spec.submodule_search_locations]
    own = [each for each in directories if is_own(each, Path(settings.BASE_DIR))]
    modules = sorted(_modules(own))
    return AppMigrations(
        config.label,
        tuple(path for path in modules if not path.is_symlink() and path.is_file()),
        tuple(path for path in modules if path.is_symlink()),
    )


def _modules(directories: Iterable[Path]) -> Iterable[Path]:
    for directory in directories:
        for path in directory.iterdir():
            if path.suffix in SUFFIXES and path.stem != "__init__" and path.name[0] not in "_~":
                yield path
