"""Django for these tests alone: its settings, its own test database, in this process.

The database is a file with WAL, or PostgreSQL where SAMPLE_TEST_DATABASE_URL says so.  No test here needs a broker:
tasks are run eagerly or only looked at; test_redelivery.py starts a real Redis and a real worker.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import django
import pytest

SAMPLE_APP = Path(__file__).resolve().parents[2] / "sample_app"
DATA_DIR = Path(tempfile.mkdtemp(prefix="sample-app-test-"))


def set_up_django() -> None:
    """Configure Django, and leave the environment, the time zone and the logging of this process as they were."""
    with mock.patch.dict(os.environ):
        # Settings of another project in this shell must not reach its database.
        for name in ("SECRET_KEY", "DEBUG", "ALLOWED_HOSTS", "DATABASE_URL"):
            os.environ.pop(name, None)
        if "SAMPLE_TEST_DATABASE_URL" in os.environ:
            os.environ["DATABASE_URL"] = os.environ["SAMPLE_TEST_DATABASE_URL"]
        os.environ["DJANGO_SETTINGS_MODULE"] = "sample.settings"
        os.environ["SAMPLE_DATA_DIR"] = str(DATA_DIR)
        # Nobody listens there: a task that would really be queued fails at once instead of finding somebody's Redis.
        os.environ["REDIS_URL"] = "redis://127.0.0.1:1/0"
        root = logging.getLogger()
        handlers, level = root.handlers[:], root.level
        django.setup()
        root.handlers[:] = handlers
        root.setLevel(level)
    time.tzset()


# Before any test module is imported: models need configured settings.
sys.path.insert(0, str(SAMPLE_APP))
set_up_django()


@pytest.fixture(scope="session", autouse=True)
def django_databases() -> Iterator[None]:
    from django.test.utils import setup_databases, setup_test_environment, teardown_databases, teardown_test_environment

    setup_test_environment()
    # Parallel runs of the tests have a data directory each, but would share a PostgreSQL.
    databases = setup_databases(verbosity=0, interactive=False)
    yield
    teardown_databases(databases, verbosity=0)
    teardown_test_environment()
    shutil.rmtree(DATA_DIR, ignore_errors=True)


@pytest.fixture(autouse=True)
def shop_is_the_current_app() -> None:
    """Shared tasks belong to Celery's current app, and that is whichever was made last in this process."""
    from sample.celery import app

    app.set_default()
    app.set_current()


@pytest.fixture
def sample_app() -> Path:
    return SAMPLE_APP
