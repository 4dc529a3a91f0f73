"""What makes a new generation, and what does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor_d.config.digest import LIVE_KEYS
from tests.config.support import load_pool, load_text

COMMAND = "program: command\ncommand: sleep 60\n"


@pytest.mark.parametrize(
    "keys",
    [
        "workers: 5",
        "stop: TERM 99s, KILL",
        "restart: never",
        "rollout: {max_surge: 3}",
        "ready: {notify: true}",
        "start_timeout: 99s",
    ],
)
def test_live_keys_make_no_generation(tmp_path: Path, keys: str) -> None:
    assert keys.partition(":")[0] in LIVE_KEYS
    assert load_pool(tmp_path, COMMAND).digest == load_pool(tmp_path, COMMAND + keys).digest


def test_after_makes_no_generation(tmp_path: Path) -> None:
    text = (
        "version: 1\npools:\n  a: {program: command, command: sleep 1}\n  b: {program: command, command: sleep 2%s}\n"
    )
    one, other = (load_text(tmp_path, text % after).pools["b"] for after in ("", ", after: a"))
    assert one.digest == other.digest
    assert one.after != other.after


@pytest.mark.parametrize(
    "keys",
    [
        "env: {A: 1}",
        "limits: {nice: 3}",
        "log: {keep: 1}",
        "bind: 127.0.0.1:80",
        "env: {A: {from_env: HOME}}",
        "env_files: a.env",
    ],
)
def test_other_keys_make_one(tmp_path: Path, keys: str) -> None:
    (tmp_path / "a.env").write_text("")
    assert load_pool(tmp_path, COMMAND).digest != load_pool(tmp_path, COMMAND + keys).digest


def test_keys_of_the_program_make_one(tmp_path: Path) -> None:
    assert load_pool(tmp_path, COMMAND).digest != load_pool(tmp_path, COMMAND.replace("60", "61")).digest


def test_the_order_of_keys_does_not_matter(tmp_path: Path) -> None:
    one = load_pool(tmp_path, "program: command\ncommand: sleep 60\nenv: {A: 1, B: 2}")
    other = load_pool(tmp_path, "env: {B: 2, A: 1}\ncommand: sleep 60\nprogram: command")
    assert one.digest == other.digest


def test_it_does_not_matter_whether_a_default_or_the_pool_says_it(tmp_path: Path) -> None:
    pool = "version: 1\npools:\n  web: {program: command, command: sleep 60%s}\n"
    own = load_text(tmp_path, pool % ", limits: {nice: 3}")
    default = load_text(tmp_path, pool % "" + "defaults: {limits: {nice: 3}}\n")
    assert own.pools["web"].digest == default.pools["web"].digest


def test_the_contents_of_env_files_count(tmp_path: Path) -> None:
    digests = set()
    for text in ("A=1\n", "A=2\n", "A=2\n# other\n"):
        (tmp_path / "a.env").write_text(text)
        digests.add(load_pool(tmp_path, COMMAND + "env_files: a.env").digest)
    assert len(digests) == 3


def test_values_from_the_environment_count(tmp_path: Path) -> None:
    keys = COMMAND + "env: {A: {from_env: X}}"
    assert load_pool(tmp_path, keys, environ={"X": "1"}).digest != load_pool(tmp_path, keys, environ={"X": "2"}).digest
    again = load_pool(tmp_path, keys, environ={"X": "1", "OTHER": "2"})
    assert again.digest == load_pool(tmp_path, keys, environ={"X": "1"}).digest


def test_a_new_release_behind_a_link_counts_and_where_the_link_lies_does_not(tmp_path: Path) -> None:
    for name in ("v1", "v2"):
        (tmp_path / name).mkdir()
    link = tmp_path / "current"
    digests = []
    for target in ("v1", "v2", "v1"):
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        digests.append(load_pool(tmp_path, COMMAND + "cwd: current").digest)
    assert digests[0] == digests[2] != digests[1]


def test_the_digest_of_the_whole_changes_with_any_text(tmp_path: Path) -> None:
    text = "version: 1\npools:\n  web: {program: command, command: sleep 60}\n"
    assert load_text(tmp_path, text).digest == load_text(tmp_path, text).digest
    assert load_text(tmp_path, text).digest != load_text(tmp_path, text + "# a comment\n").digest
