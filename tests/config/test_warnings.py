"""Warnings stand beside a config that is accepted, each with its place, and only where they are asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor_d.config.loader import load
from supervisor_d.errors import ConfigError
from tests.config.support import HOME, PLAIN_USER

TEXT = """version: 1
pools:
  web:
    program: gunicorn
    app: shop.wsgi
    bind: 127.0.0.1:8000
    python: venv/bin/python
    worker_class: gthread
    threads: 4
    keep_alive: 5s
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    python = tmp_path / "venv/bin/python"
    python.parent.mkdir(parents=True)
    python.touch(mode=0o755)
    (tmp_path / "venv/pyvenv.cfg").write_text("home = /usr/bin\n")
    (tmp_path / "venv/lib/python3.11/site-packages/gunicorn-26.0.0.dist-info").mkdir(parents=True)
    path = tmp_path / "shop.yaml"
    path.write_text(TEXT)
    return path


def test_each_with_its_place_the_first_line_first(path: Path) -> None:
    warnings = load(path, environ=HOME, euid=PLAIN_USER, advise=True).warnings
    assert [(each.line, each.column, each.key) for each in warnings] == [
        (7, 13, "pools.web.python"),
        (10, 17, "pools.web.keep_alive"),
    ]
    assert "its gunicorn 26.0.0 can drop requests" in warnings[0].message


def test_none_where_nobody_asks(path: Path) -> None:
    assert load(path, environ=HOME, euid=PLAIN_USER).warnings == ()


def test_mistakes_come_first(path: Path) -> None:
    path.write_text(TEXT.replace("gthread", "sync"))
    with pytest.raises(ConfigError) as caught:
        load(path, environ=HOME, euid=PLAIN_USER, advise=True)
    assert [problem.key for problem in caught.value.problems] == ["pools.web.threads"]
