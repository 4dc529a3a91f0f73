"""What the process's environment says, parsed once: the only place that reads os.environ for the settings.

Every function takes the environment as an argument, so that a test can hand in its own.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dj_database_url
from django.core.exceptions import ImproperlyConfigured

TRUE = frozenset({"1", "true", "yes", "on"})
FALSE = frozenset({"", "0", "false", "no", "off"})

BUSY_TIMEOUT_SECONDS = 20
"""How long a writer waits for SQLite's single write lock before "database is locked"."""

SQLITE_OPTIONS: dict[str, Any] = {
    # IMMEDIATE: a transaction takes the write lock at its start and waits for it there.  The default, DEFERRED, takes
    # it at the first write, where SQLite cannot wait once another process has written (SQLITE_BUSY at once).
    "transaction_mode": "IMMEDIATE",
    "timeout": BUSY_TIMEOUT_SECONDS,
    # WAL: readers and the one writer do not block each other.  synchronous=NORMAL is safe against a crash of any
    # process in WAL mode; only a power cut may undo the last commits.  https://www.sqlite.org/wal.html
    "init_command": (
        f"PRAGMA busy_timeout={BUSY_TIMEOUT_SECONDS * 1000}; PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
    ),
}


def flag(environ: Mapping[str, str], name: str, *, default: bool) -> bool:
    """A yes or no; ImproperlyConfigured for anything else."""
    text = environ.get(name)
    if text is None:
        return default
    if text.lower() in TRUE:
        return True
    if text.lower() in FALSE:
        return False
    raise ImproperlyConfigured(f"cannot read {name}={text!r}: say 1 or 0")


def words(environ: Mapping[str, str], name: str, *, default: list[str]) -> list[str]:
    """A list separated by commas, blanks around each entry dropped; unset means `default`."""
    text = environ.get(name)
    if text is None:
        return default
    return [word for word in (part.strip() for part in text.split(",")) if word]


def database(environ: Mapping[str, str], data_dir: Path) -> dict[str, Any]:
    """DATABASE_URL, else an SQLite file in `data_dir`; SQLite always gets SQLITE_OPTIONS.

    Connections are kept for a minute and checked before they are used again: a database that restarts costs no request.
    """
    url = environ.get("DATABASE_URL", "")
    if url:
        config: dict[str, Any] = dict(dj_database_url.parse(url))
    else:
        config = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(data_dir / "sample.sqlite3")}
    config |= {"CONN_MAX_AGE": 60, "CONN_HEALTH_CHECKS": True}
    if config["ENGINE"].endswith("sqlite3"):
        config["OPTIONS"] = {**config.get("OPTIONS", {}), **SQLITE_OPTIONS}
        # A file as in real life, not the tests' usual memory: WAL and locking are then the real ones.
        config["TEST"] = {"NAME": str(data_dir / "test.sqlite3")}
    return config


def secret_key(environ: Mapping[str, str], data_dir: Path) -> str:
    """SECRET_KEY, else a key made once and kept in `data_dir`, 0600, for development on one machine.

    Several processes start at the same time and must end with one key: each writes its own file, and the first to link
    it into place wins.
    """
    given = environ.get("SECRET_KEY", "")
    if given:
        return given
    path = data_dir / "secret_key"
    if not path.exists():
        own = path.with_name(f".{path.name}.{os.getpid()}")
        own.unlink(missing_ok=True)
        with os.fdopen(os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(50))
        try:
            os.link(own, path)
        except FileExistsError:
            pass
        finally:
            own.unlink()
    return path.read_text()
