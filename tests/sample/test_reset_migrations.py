"""reset_migrations, run for real in a copy of the project that has all it must not touch around and inside it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from library.management.commands.reset_migrations import is_own

MODULE = "from django.db import migrations\nclass Migration(migrations.Migration):\n    dependencies = []\n"
SETTINGS = """
from sample.settings import *
INSTALLED_APPS += ["vendored", "linked", "outside", "plain"]
"""


class Project:
    """A copy of sample_app in a directory with a blank, and apps of others in reach.

    vendored: installed in a virtual environment inside the project; linked: a link in the project to an app outside;
    outside: on the path only; plain: the project's own, without migrations.
    """

    def __init__(self, directory: Path, source: Path) -> None:
        self.root = directory / "a project"
        shutil.copytree(source, self.root, ignore=shutil.ignore_patterns("__pycache__", ".mypy_cache"))
        self.site_packages = self.root / ".venv" / "lib" / "python3" / "site-packages"
        self.elsewhere = directory / "elsewhere"
        self.data = directory / "data"
        self.data.mkdir()
        make_app(self.site_packages / "vendored")
        make_app(self.elsewhere / "outside")
        make_app(directory / "far" / "linked")
        (self.root / "linked").symlink_to(directory / "far" / "linked")
        (self.root / "plain").mkdir()
        (self.root / "plain" / "__init__.py").touch()
        (self.root / "other_settings.py").write_text(SETTINGS)
        self.migrations = self.root / "library" / "migrations"

    def manage(self, *args: str, answer: str = "") -> subprocess.CompletedProcess[str]:
        env = os.environ | {
            "DJANGO_SETTINGS_MODULE": "other_settings",
            "PYTHONPATH": f"{self.site_packages}:{self.elsewhere}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "SAMPLE_DATA_DIR": str(self.data),
            "DATABASE_URL": "",
        }
        return subprocess.run(
            [sys.executable, "manage.py", *args],
            cwd=self.root, env=env, input=answer, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def files(self) -> set[str]:
        """Everything there is, in the project and around it."""
        top = self.root.parent
        return {str(path.relative_to(top)) for path in top.rglob("*") if not path.is_relative_to(self.data)}


def make_app(path: Path) -> None:
    (path / "migrations").mkdir(parents=True)
    for name in ("__init__.py", "migrations/__init__.py"):
        (path / name).touch()
    (path / "migrations" / "0001_initial.py").write_text(MODULE)


@pytest.fixture
def project(tmp_path: Path, sample_app: Path) -> Project:
    return Project(tmp_path, sample_app)


OWN = "a project/library/migrations/0001_initial.py"


def test_deletes_own_migrations_and_nothing_else(project: Project) -> None:
    (project.migrations / "_data.py").touch()
    (project.migrations / "0002_old.pyc").touch()
    (project.migrations / "notes.txt").touch()
    (project.migrations / "linked_dir").mkdir()
    before = project.files()

    done = project.manage("reset_migrations", "--yes")
    assert done.returncode == 0, done.stderr
    assert before - project.files() == {OWN, "a project/library/migrations/0002_old.pyc"}
    assert project.files() <= before
    assert "python manage.py makemigrations library" in done.stdout
    assert "vendored" not in done.stdout


def test_a_library_in_the_real_site_packages_is_not_touched(project: Project) -> None:
    import django.contrib.contenttypes.migrations as theirs

    (directory,) = (Path(each) for each in theirs.__path__)
    before = sorted(path.name for path in directory.iterdir())
    done = project.manage("reset_migrations", "--yes")

    assert done.returncode == 0
    assert sorted(path.name for path in directory.iterdir()) == before
    assert "contenttypes" not in done.stdout


def test_dry_run_deletes_nothing(project: Project) -> None:
    before = project.files()
    done = project.manage("reset_migrations", "--dry-run")

    assert done.returncode == 0
    assert f"would delete: {project.migrations}/0001_initial.py" in done.stdout
    assert project.files() == before


@pytest.mark.parametrize("answer", ["no\n", "\n", "y\n"])
def test_asks_first(project: Project, answer: str) -> None:
    before = project.files()
    done = project.manage("reset_migrations", answer=answer)

    assert done.returncode == 1
    assert "Delete these 1 files? Type 'yes':" in done.stdout
    assert "nothing was deleted" in done.stderr
    assert project.files() == before


def test_without_a_terminal_it_says_how(project: Project) -> None:
    before = project.files()
    done = project.manage("reset_migrations")

    assert done.returncode == 1
    assert "say --yes" in done.stderr
    assert project.files() == before


def test_yes_by_hand(project: Project) -> None:
    before = project.files()
    done = project.manage("reset_migrations", answer="yes\n")

    assert done.returncode == 0
    assert before - project.files() == {OWN}


def test_links_are_left_and_named(project: Project) -> None:
    """A linked migration, and a whole migrations directory that leads out of the project."""
    real = project.elsewhere / "0002_shared.py"
    real.write_text(MODULE)
    (project.migrations / "0002_shared.py").symlink_to(real)
    shutil.move(project.root / "plain", project.root / "plain_was")
    (project.root / "plain").mkdir()
    (project.root / "plain" / "__init__.py").touch()
    (project.root / "plain" / "migrations").symlink_to(project.elsewhere / "outside" / "migrations")
    before = project.files()

    done = project.manage("reset_migrations", "--yes")
    assert done.returncode == 0, done.stderr
    assert before - project.files() == {OWN}
    assert f"left, a symbolic link: {project.migrations}/0002_shared.py" in done.stdout


def test_again_there_is_nothing_to_delete(project: Project) -> None:
    project.manage("reset_migrations", "--yes")
    done = project.manage("reset_migrations")

    assert (done.returncode, done.stdout) == (0, "No migration files to delete.\n")


def test_the_next_commands_work_on_a_database_that_has_the_tables(project: Project) -> None:
    assert project.manage("migrate").returncode == 0
    assert project.manage("seed_data", "--authors", "3", "--books", "3").returncode == 0
    told = project.manage("reset_migrations", "--yes").stdout

    commands = [line.split()[2:] for line in told.splitlines() if line.startswith("  python manage.py ")]
    assert ["migrate"] in commands
    for command in commands:
        if command != ["migrate"]:
            done = project.manage(*command)
            assert done.returncode == 0, (command, done.stderr)
    assert "added 0 authors, 0 books" in project.manage("seed_data", "--authors", "3", "--books", "3").stdout
    assert "No changes detected" in project.manage("makemigrations", "library", "--check").stdout


def test_is_own(tmp_path: Path) -> None:
    base = tmp_path / "project"
    for name in ("app", ".venv/lib/python3/site-packages/app", "usr/lib/python3/dist-packages/app"):
        (base / name).mkdir(parents=True)
    (tmp_path / "project-two").mkdir()
    (base / "out").symlink_to(tmp_path / "project-two")
    (tmp_path / "in").symlink_to(base / "app")

    assert is_own(base / "app", base)
    assert is_own(tmp_path / "in", base), "a link that leads into the project"
    assert not is_own(base / "out", base)
    assert not is_own(tmp_path / "project-two", base), "a name that only begins alike"
    assert not is_own(base / ".venv/lib/python3/site-packages/app", base)
    assert not is_own(base / "usr/lib/python3/dist-packages/app", base)
