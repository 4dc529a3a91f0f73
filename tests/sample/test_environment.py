"""What the environment makes of the settings."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from django.test import TestCase
from sample import environment


def test_flags() -> None:
    assert environment.flag({}, "DEBUG", default=True)
    assert environment.flag({"DEBUG": "Yes"}, "DEBUG", default=False)
    assert not environment.flag({"DEBUG": "0"}, "DEBUG", default=True)
    with pytest.raises(ImproperlyConfigured, match="cannot read DEBUG='maybe'"):
        environment.flag({"DEBUG": "maybe"}, "DEBUG", default=True)


def test_words() -> None:
    assert environment.words({}, "HOSTS", default=["a"]) == ["a"]
    assert environment.words({"HOSTS": " a, b ,"}, "HOSTS", default=[]) == ["a", "b"]


def test_sqlite_is_the_default_also_below_a_blank(tmp_path: Path) -> None:
    config = environment.database({}, tmp_path / "a b")

    assert config["ENGINE"] == "django.db.backends.sqlite3"
    assert config["NAME"] == f"{tmp_path}/a b/sample.sqlite3"
    assert config["OPTIONS"]["transaction_mode"] == "IMMEDIATE"


def test_sqlite_by_url_has_the_same_options(tmp_path: Path) -> None:
    config = environment.database({"DATABASE_URL": f"sqlite:///{tmp_path}/other.sqlite3"}, tmp_path)

    assert config["NAME"] == f"{tmp_path}/other.sqlite3"
    assert config["OPTIONS"] == environment.SQLITE_OPTIONS


def test_postgresql_by_url(tmp_path: Path) -> None:
    config = environment.database({"DATABASE_URL": "postgres://me:a%20b@127.0.0.1:5433/library"}, tmp_path)

    assert config["ENGINE"] == "django.db.backends.postgresql"
    assert (config["HOST"], config["PORT"], config["NAME"]) == ("127.0.0.1", 5433, "library")
    assert (config["USER"], config["PASSWORD"]) == ("me", "a b")
    assert config["CONN_HEALTH_CHECKS"]
    assert "OPTIONS" not in config or "init_command" not in config["OPTIONS"]


def test_a_given_key_is_taken(tmp_path: Path) -> None:
    assert environment.secret_key({"SECRET_KEY": "given"}, tmp_path) == "given"
    assert not list(tmp_path.iterdir())


def test_a_generated_key_stays_and_is_private(tmp_path: Path) -> None:
    key = environment.secret_key({}, tmp_path)

    assert len(key) >= 50
    assert environment.secret_key({}, tmp_path) == key
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_processes_that_start_together_share_one_key(tmp_path: Path, sample_app: Path) -> None:
    code = (
        "import pathlib, sys; from sample import environment as e; print(e.secret_key({}, pathlib.Path(sys.argv[1])))"
    )
    racers = [
        subprocess.Popen([sys.executable, "-c", code, tmp_path], cwd=sample_app, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    keys = {racer.communicate(timeout=60)[0] for racer in racers}
    assert len(keys) == 1
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.skipif(connection.vendor != "sqlite", reason="SQLite's pragmas")
class PragmaTests(TestCase):
    def test_what_a_connection_really_has(self) -> None:
        assert pragma("journal_mode") == "wal"
        assert pragma("busy_timeout") == environment.BUSY_TIMEOUT_SECONDS * 1000
        assert pragma("synchronous") == 1
        assert connection.settings_dict["OPTIONS"]["transaction_mode"] == "IMMEDIATE"


def pragma(name: str) -> object:
    with connection.cursor() as cursor:
        cursor.execute(f"PRAGMA {name}")
        return cursor.fetchone()[0]
