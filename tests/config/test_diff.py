from __future__ import annotations

from pathlib import Path

import pytest

from supervisor_d.config.diff import MAX_KEYS, compare
from supervisor_d.core.change import PoolChange
from tests.config.support import load_pool

COMMAND = "program: command\ncommand: sleep 60\n"
GUNICORN = "program: gunicorn\napp: shop.wsgi\nbind: 127.0.0.1:8000\n"
CELERY = "program: celery\napp: shop\nconcurrency: 2\nworkers: 4\n"
BEAT = "program: celery-beat\napp: shop\n"


def change(directory: Path, old: str, new: str) -> PoolChange:
    changes = compare({"web": load_pool(directory, old)}, {"web": load_pool(directory, new)})
    assert len(changes) == 1
    return changes[0]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (COMMAND, COMMAND, PoolChange("web", "keep")),
        (
            COMMAND,
            COMMAND + "start_timeout: 9s\nstop: TERM 1s, KILL",
            PoolChange(
                "web",
                "update",
                ("stop", "start_timeout"),
                "no process is touched; holds for those started from now on",
            ),
        ),
        (
            COMMAND,
            COMMAND + "workers: 3",
            PoolChange("web", "scale", ("workers",), "1 -> 3 workers: start 2 processes"),
        ),
        (COMMAND + "workers: 2", COMMAND, PoolChange("web", "scale", ("workers",), "2 -> 1 worker: stop 1 process")),
        (
            CELERY,
            CELERY.replace("4", "3"),
            PoolChange("web", "scale", ("workers",), "4 -> 3 workers, in the running process"),
        ),
        (
            GUNICORN,
            GUNICORN + "workers: 4",
            PoolChange("web", "scale", ("workers",), "1 -> 4 workers, in the running process"),
        ),
        (
            CELERY,
            CELERY + "prefetch: 2",
            PoolChange("web", "roll", ("prefetch",), "roll 2 processes: 1 more at a time, never fewer"),
        ),
        (
            COMMAND + "workers: 3",
            COMMAND + "workers: 3\nenv: {A: hunter2}",
            PoolChange("web", "roll", ("env.A",), "roll 3 processes: stops 1 of 3 at a time"),
        ),
        (
            COMMAND + "workers: 3",
            COMMAND + "workers: 3\nbind: 127.0.0.1:1\nrollout: {max_surge: 1, max_unavailable: 2}",
            PoolChange(
                "web",
                "roll",
                ("rollout", "bind"),
                "roll 3 processes: up to 1 more and 2 of 3 fewer at a time",
            ),
        ),
        (
            BEAT,
            BEAT + "loglevel: DEBUG",
            PoolChange(
                "web", "roll", ("loglevel",), "roll 1 process: stop it, then start the new one; none runs in between"
            ),
        ),
        (
            "program: oneshot\ncommand: sleep 1",
            "program: oneshot\ncommand: sleep 2",
            PoolChange("web", "roll", ("command",), "run again"),
        ),
        (
            GUNICORN,
            GUNICORN + "workers: 2\nthreads: 2\nworker_class: gthread",
            PoolChange(
                "web",
                "roll",
                ("workers", "worker_class", "threads"),
                "1 -> 2 workers; roll 1 process: 1 more at a time, never fewer",
            ),
        ),
    ],
)
def test_changes(tmp_path: Path, old: str, new: str, expected: PoolChange) -> None:
    assert change(tmp_path, old, new) == expected


def test_another_program_rolls(tmp_path: Path) -> None:
    found = change(tmp_path, COMMAND, GUNICORN)
    assert found.change == "roll"
    assert found.keys[0] == "program"


def test_a_new_release_says_so(tmp_path: Path) -> None:
    for name in ("v1", "v2"):
        (tmp_path / name).mkdir()
    (tmp_path / "current").symlink_to("v1")
    old = load_pool(tmp_path, COMMAND + "cwd: current")
    (tmp_path / "current").unlink()
    (tmp_path / "current").symlink_to("v2")
    found = compare({"web": old}, {"web": load_pool(tmp_path, COMMAND + "cwd: current")})[0]
    assert (found.change, found.keys) == ("roll", ())
    assert "what `cwd` leads to" in found.detail


def test_pools_come_and_go(tmp_path: Path) -> None:
    old, new = load_pool(tmp_path, GUNICORN + "workers: 4"), load_pool(tmp_path, COMMAND + "workers: 2")
    assert compare({"a": old, "b": new}, {"b": new, "c": new}) == (
        PoolChange("web", "keep"),
        PoolChange("web", "add", detail="start 2 processes"),
        PoolChange("a", "remove", detail="stop 1 process with 4 workers"),
    )


def test_names_of_variables_and_never_values_and_not_too_many(tmp_path: Path) -> None:
    many = ", ".join(f"V{number:02}: hunter2" for number in range(50))
    found = change(tmp_path, COMMAND, COMMAND + f"env: {{{many}}}")
    assert found.keys[:2] == ("env.V00", "env.V01")
    assert len(found.keys) == MAX_KEYS
    assert "hunter2" not in str(found)


def test_a_variable_that_left(tmp_path: Path) -> None:
    assert change(tmp_path, COMMAND + "env: {A: 1, B: 2}", COMMAND + "env: {B: 2}").keys == ("env.A",)


def test_a_pool_of_a_program_that_is_no_more(tmp_path: Path) -> None:
    old = load_pool(tmp_path, COMMAND)
    assert compare({"web": old}, {}, programs={})[0].change == "remove"
