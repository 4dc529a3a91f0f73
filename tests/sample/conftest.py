"""Django for these tests alone: its settings, its own test database, in this process.

The database is a file with WAL, or PostgreSQL where DATABASE_URL says so.  No test here needs a broker: tasks run
eagerly or are only looked at; tests/sample/test_redelivery.py starts a real Redis and a real worker.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

SAMPLE_APP = Path(__file__).resolve().parents[2] / "sample_app"
DATA_DIR = Path(tempfile.mkdtemp(prefix="sample-app-test-"))

# Before any test module is imported: models need configured settings.
sys.path.insert(0, str(SAMPLE_APP))
os.environ["DJANGO_SETTINGS_MODULE"] = "sample.settings"
os.environ["SAMPLE_DATA_DIR"] = str(DATA_DIR)
# Nobody listens there: a task that would really be queued fails at once instead of finding somebody's Redis.
os.environ["REDIS_URL"] = "redis://127.0.0.1:1/0"

import django  # noqa: E402

django.setup()


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


@pytest.fixture
def sample_app() -> Path:
    return SAMPLE_APP
