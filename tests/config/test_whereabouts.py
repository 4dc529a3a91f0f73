"""The daemon's directories are found in a config that makes sense nowhere else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from supervisor_d.config.loader import load
from supervisor_d.config.whereabouts import named_in, whereabouts

GOOD = """\
version: 1
daemon:
  runtime_dir: run   # here
  state_dir: "state"
  allow_root: true
pools:
  one: {program: command, command: [sleep, "1"], env: {X: "1"}}
"""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (GOOD, {"runtime_dir": "run", "state_dir": "state"}),
        ("daemon: {runtime_dir: /a, log_dir: /b}\n", {"runtime_dir": "/a", "log_dir": "/b"}),
        ("daemon:\n  runtime_dir: /a\npools: [", {"runtime_dir": "/a"}),
        ("daemon: {runtime_dir: /a}\npools: }{", {"runtime_dir": "/a"}),
        ("}{\ndaemon:\n  runtime_dir: /a\n", {"runtime_dir": "/a"}),
        ("daemon:\n  runtime_dir:\n  state_dir: &x /s\n", {"state_dir": "/s"}),
        ("pools:\n  one:\n    env:\n      state_dir: /wrong\n", {}),
        ("pools:\n  one: {env: {runtime_dir: /wrong}}\ndaemon:\n  runtime_dir: /a\n", {"runtime_dir": "/a"}),
        ("daemon: [runtime_dir, /a]\n", {}),
        ("a: [1, 2, 3]\ndaemon: {runtime_dir: /a}\n", {"runtime_dir": "/a"}),
        ("[" * 5000, {}),
        ("", {}),
        ("\0\0", {}),
    ],
)
def test_what_a_text_names(text: str, found: dict[str, str]) -> None:
    assert named_in(text) == found


@pytest.mark.parametrize("euid", [0, 1000])
def test_they_are_where_the_loader_says(tmp_path: Path, euid: int) -> None:
    config = tmp_path / "supervisor-d.yaml"
    environ = {"HOME": "/home/x", "XDG_RUNTIME_DIR": "/run/user/1000"}
    for text in (GOOD, GOOD.replace('  state_dir: "state"\n', ""), GOOD.replace("  runtime_dir: run   # here\n", "")):
        config.write_text(text)
        spec = load(config, environ=environ, euid=euid).daemon
        found = whereabouts(config, environ=environ, euid=euid)
        assert (spec.runtime_dir, spec.state_dir, spec.log_dir) == tuple(
            map(str, (found.runtime_dir, found.state_dir, found.log_dir))
        )


def test_one_file_of_a_directory_names_them(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("pools: {broken")
    (tmp_path / "b.yaml").write_text("daemon:\n  runtime_dir: run\n")
    (tmp_path / "c.yaml").write_bytes(b"\xff\xfe")
    assert whereabouts(tmp_path, environ={}, euid=0).runtime_dir == tmp_path / "run"


def test_a_file_that_is_gone_names_none() -> None:
    assert whereabouts("/nowhere/x.yaml", environ={}, euid=0).runtime_dir == Path("/run/supervisor-d")


def test_a_plain_file_takes_no_yaml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert named_in(GOOD) == {"runtime_dir": "run", "state_dir": "state"}
