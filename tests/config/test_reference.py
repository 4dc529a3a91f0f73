"""docs/config.md and configs/ cannot drift from the code."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from supervisor_d.config.digest import LIVE_KEYS
from supervisor_d.config.keys import CommonKeys, DefaultKeys
from supervisor_d.config.machine import Machine
from supervisor_d.config.reference import SECTIONS, table, written
from supervisor_d.core.spec import PoolSpec
from supervisor_d.programs.registry import PROGRAMS
from tests.config.support import load_text

ROOT = Path(__file__).parents[2]
REFERENCE = (ROOT / "docs/config.md").read_text(encoding="utf-8")
FULL = (ROOT / "configs/full.yaml").read_text(encoding="utf-8")


def test_the_tables_are_what_the_code_says() -> None:
    assert written(REFERENCE) == REFERENCE, "run: python -m supervisor_d.config.reference docs/config.md"


def test_every_table_stands_in_the_reference() -> None:
    assert set(re.findall(r"<!-- keys: (\S+) -->", REFERENCE)) == set(SECTIONS)
    assert set(PROGRAMS) <= set(SECTIONS)


def test_every_key_has_its_text() -> None:
    for name, keys in SECTIONS.items():
        for field in dataclasses.fields(keys):
            assert field.metadata.get("doc"), f"{name}: {field.name}"
            assert f"| `{field.name}` |" in table(name)


def test_live_keys_are_keys_and_are_marked() -> None:
    assert {field.name for field in dataclasses.fields(CommonKeys)} >= LIVE_KEYS
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| (live|rolls) \|", table("pool"), re.MULTILINE))
    assert {name for name, change in rows.items() if change == "live"} == LIVE_KEYS


def test_no_program_takes_the_name_of_a_common_key() -> None:
    common = {field.name for field in dataclasses.fields(CommonKeys)}
    for program in PROGRAMS.values():
        assert not common & {field.name for field in dataclasses.fields(program.keys_type)}, program.name


def test_every_spec_field_has_a_key() -> None:
    other = {"name", "keys", "digest", "listeners", "root", "start_timeout_seconds"}
    common = {field.name for field in dataclasses.fields(CommonKeys)}
    assert {field.name for field in dataclasses.fields(PoolSpec)} - other <= common


def _all_keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, below in value.items():
            yield key
            yield from _all_keys(below)
    elif isinstance(value, list):
        for item in value:
            yield from _all_keys(item)


def test_the_full_example_has_every_key() -> None:
    data = yaml.safe_load(FULL)
    for name, keys in SECTIONS.items():
        missing = {field.name for field in dataclasses.fields(keys)} - set(_all_keys(data))
        assert not missing, f"{name}: {missing}"
    assert set(data["defaults"]) | {"stop", "restart", "rollout"} == {
        field.name for field in dataclasses.fields(DefaultKeys)
    }
    assert {pool["program"] for pool in data["pools"].values()} == set(PROGRAMS)


def test_the_full_example_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Machine, "check_user", lambda *_: 33)
    monkeypatch.setattr(Machine, "check_group", lambda *_: 33)
    monkeypatch.setattr(Machine, "_check_trusted", lambda *_: None)
    (tmp_path / ".venv/bin").mkdir(parents=True)
    for name in ("python", "redis-server"):
        (tmp_path / ".venv/bin" / name).symlink_to("/bin/sh")
    (tmp_path / ".env").write_text("DEBUG=0\n")
    config = load_text(tmp_path, FULL, environ={"SHOP_SECRET_KEY": "x"}, euid=0, name="full.yaml")
    assert config.pools["web"].user == "www-data"
    assert config.pools["web"].env["SECRET_KEY"] == "x"


def test_the_minimal_example_loads_for_everyone(tmp_path: Path) -> None:
    text = (ROOT / "configs/minimal.yaml").read_text(encoding="utf-8")
    for euid in (0, 65534):
        assert list(load_text(tmp_path, text, euid=euid).pools) == ["clock"]
