from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from supervisor_d.cli import find_socket as module
from supervisor_d.cli.find_socket import default_runtime_dir, find_config, find_socket, runtime_dir_in
from supervisor_d.errors import NotPermittedError, RequestError

ROOT_SOCKET = "/run/supervisor-d/control/control.sock"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "SYSTEM_CONFIG", str(tmp_path / "etc.yaml"))


def test_the_first_that_is_said_wins(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("daemon:\n  runtime_dir: run\n")
    environ = {"SUPERVISOR_D_SOCKET": "/env.sock", "SUPERVISOR_D_CONFIG": str(config)}
    assert find_socket("/given.sock", str(config), environ, 0) == "/given.sock"
    assert find_socket(None, str(config), environ, 0) == "/env.sock"
    del environ["SUPERVISOR_D_SOCKET"]
    assert find_socket(None, None, environ, 0) == str(tmp_path / "run/control/control.sock")
    assert find_socket(None, None, {}, 0) == ROOT_SOCKET


def test_the_config_is_the_one_here_then_the_systems(tmp_path: Path) -> None:
    assert find_config(None, {}) is None
    (tmp_path / "etc.yaml").touch()
    assert find_config(None, {}) == str(tmp_path / "etc.yaml")
    (tmp_path / "supervisor-d.yaml").touch()
    assert find_config(None, {}) == "supervisor-d.yaml"
    assert find_config(None, {"SUPERVISOR_D_CONFIG": "e"}) == "e"
    assert find_config("g", {"SUPERVISOR_D_CONFIG": "e"}) == "g"


def test_a_relative_directory_is_the_configs(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "c.yaml").write_text('daemon: {runtime_dir: "../run"}\n')
    assert find_socket(None, "sub/c.yaml", {}, 0) == str(tmp_path / "run/control/control.sock")


def test_a_directory_of_configs(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "a.yaml").write_text("pools: {}\n")
    (tmp_path / "conf" / "b.yaml").write_text("daemon:\n  runtime_dir: /r\n")
    assert find_socket(None, "conf", {}, 0) == "/r/control/control.sock"


def test_a_config_that_was_named_must_be_there() -> None:
    with pytest.raises(RequestError, match="cannot read the config"):
        find_socket(None, "missing.yaml", {}, 0)


def test_default_directories() -> None:
    assert default_runtime_dir({"XDG_RUNTIME_DIR": "/x"}, 0) == "/run/supervisor-d"
    assert default_runtime_dir({"XDG_RUNTIME_DIR": "/run/user/5"}, 5) == "/run/user/5/supervisor-d"
    assert default_runtime_dir({}, 61999) == "/tmp/supervisor-d-61999"


def test_a_strangers_directory_in_tmp_is_not_trusted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = os.lstat(tmp_path)
    monkeypatch.setattr(os, "lstat", lambda _: found)
    with pytest.raises(NotPermittedError, match="belongs to uid"):
        default_runtime_dir({}, found.st_uid + 1)


TEXTS = [
    ("pools: {}\n", None),
    ("daemon:\n  runtime_dir: /run/x\n", "/run/x"),
    (
        "version: 1\ndaemon:\n  # words\n\n  starts_at_once: 3\n  runtime_dir: '/run/a b'   # why\npools: {}\n",
        "/run/a b",
    ),
    ('daemon:\n    runtime_dir: "./r"\n', "./r"),
    ("daemon: {runtime_dir: /flow}\n", "/flow"),
    ("# runtime_dir: /not\ndaemon:\n  runtime_dir: /yes\n", "/yes"),
    ("pools:\n  a: {env: {runtime_dir: /no}}\n", None),
    ("daemon:\n  state_dir: /s\npools:\n  daemon:\n    runtime_dir: /no\n", None),
    ("daemon:\n  runtime_dir: &a /anchor\n", "/anchor"),
    ("daemon:\n  runtime_dir: [1]\n", None),
    ("daemon: 3\nruntime_dir: 4\n", None),
    ("runtime_dir: [unclosed", None),
    ("daemon:\n  runtime_dir: /last", "/last"),
]


@pytest.mark.parametrize(("text", "found"), TEXTS)
def test_the_directory_in_a_config(text: str, found: str | None) -> None:
    assert runtime_dir_in(text) == found


names = st.text("abc/._- ", min_size=1, max_size=12)


@given(names, st.sampled_from(["", "'", '"']), st.sampled_from(["  ", "    "]), st.booleans())
def test_the_short_way_says_what_yaml_says(name: str, quote: str, indent: str, other: bool) -> None:
    before = f"{indent}log_dir: /l\n" if other else ""
    text = f"daemon:\n{before}{indent}runtime_dir: {quote}{name}{quote}\npools: {{}}\n"
    try:
        expected = yaml.safe_load(text)["daemon"]["runtime_dir"]
    except (yaml.YAMLError, TypeError, KeyError):
        return
    if isinstance(expected, str) and expected:
        assert runtime_dir_in(text) == expected
