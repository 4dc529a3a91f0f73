"""What `check` warns of in a gunicorn pool, by version and keys."""

from __future__ import annotations

from typing import Any

import pytest

from supervisor_d.core.spec import Listener, PoolSpec
from supervisor_d.programs.gunicorn import GunicornKeys
from supervisor_d.programs.registry import PROGRAMS


def warned(version: str = "27.0.1", *, python: str = "", backlog: int = 2048, **keys: Any) -> list[tuple[str, str]]:
    listeners = (Listener("127.0.0.1:8000", backlog=backlog),)
    spec = PoolSpec("web", "gunicorn", 2, GunicornKeys("shop.wsgi", **keys), listeners=listeners, python=python)
    return list(PROGRAMS["gunicorn"].warnings(spec, {"gunicorn": version}.__getitem__))


@pytest.mark.parametrize(
    "keys",
    [{}, {"worker_class": "gevent"}, {"worker_class": "gthread"}, {"worker_class": "gthread", "keep_alive": 75.0}],
)
def test_the_newest_needs_no_advice(keys: dict[str, Any]) -> None:
    assert warned(**keys) == []


@pytest.mark.parametrize(
    ("version", "keys", "key", "words"),
    [
        ("25.2.0", {}, "program", "its gunicorn 25.2.0 is older than 25.3"),
        ("25.0.3", {"python": "/venv/bin/python"}, "python", "has no control socket"),
        ("25.3.0", {"worker_class": "gthread"}, "program", "27.0.1 does not"),
        ("27.0.1", {"worker_class": "gevent", "agent": False}, "worker_class", "what they serve is lost"),
        ("27.0.1", {"worker_class": "asgi"}, "worker_class", "cuts the queue of the socket to 100"),
        ("27.0.1", {"worker_class": "gthread", "keep_alive": 5.0}, "keep_alive", "5s is shorter than a proxy's"),
        ("27.0.1", {"worker_class": "gthread", "keep_alive": 5.0}, "keep_alive", "(nginx: 1m)"),
        ("27.0.1", {"worker_class": "asgi", "backlog": 50, "keep_alive": 75.0}, "keep_alive", "(30s): say less"),
    ],
)
def test_a_warning(version: str, keys: dict[str, Any], key: str, words: str) -> None:
    ((place, text),) = warned(version, **keys)
    assert place == key
    assert words in text


def test_what_is_no_reason_for_a_warning() -> None:
    assert warned("", worker_class="gthread") == [], "a version that cannot be seen is not judged"
    assert warned("25.3.0") == [], "sync loses nothing with it"
    assert warned(worker_class="gthread", keep_alive=0.0) == [], "no connection is kept"
    assert warned(worker_class="asgi", backlog=100) == []
