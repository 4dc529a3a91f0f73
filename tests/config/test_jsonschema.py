from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from supervisor_d.config.jsonschema import json_schema, schema_text

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
COMMENT = re.compile(r"# yaml-language-server: \$schema=(\S+)\n")


def problems(data: Any) -> list[str]:
    return [error.message for error in Draft202012Validator(json_schema()).iter_errors(data)]


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.name)
def test_it_takes_every_config_of_ours(file: Path) -> None:
    assert problems(yaml.safe_load(file.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("name", ["full.yaml", "minimal.yaml"])
def test_the_comment_for_editors_leads_to_it(name: str) -> None:
    file = ROOT / "configs" / name
    comment = COMMENT.match(file.read_text(encoding="utf-8"))
    assert comment, "the first line of the file is the comment"
    assert (file.parent / comment[1]).resolve() == ROOT / "docs/config.schema.json"


def test_the_file_in_docs_is_what_is_exported() -> None:
    written = (ROOT / "docs/config.schema.json").read_text(encoding="utf-8")
    assert written == schema_text(), "write it anew: supervisor-d schema >docs/config.schema.json"


def pool(**keys: Any) -> dict[str, Any]:
    return {"version": 1, "pools": {"web": {"program": "command", "command": "sleep 60", **keys}}}


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"version": 2, "pools": {}},
        {"version": 1, "pools": {}},
        {"version": 1, "pools": {"web.1": pool()["pools"]["web"]}},
        {"version": 1, "pools": {"web": {"command": "sleep 60"}}},
        {"version": 1, "pools": {"web": {"program": "comand", "command": "sleep 60"}}},
        {"version": 1, "pools": {"web": {"program": "gunicorn", "bind": "127.0.0.1:80"}}},
        {**pool(), "pool": {}},
        {**pool(), "defaults": {"workers": 1}},
        {**pool(), "defaults": {"start_timeout": 60}},
        {**pool(), "daemon": {"starts_at_once": 0}},
        pool(start_timeout=60),
        pool(start_timeout="60sec"),
        pool(log={"max_size": "64M"}),
        pool(queues=["celery"]),
        pool(workers=-1),
        pool(workers="2"),
        pool(restart="alwys"),
        pool(restart={"wen": "always"}),
        pool(limits={"umask": 22}),
        pool(limits={"umask": "rwx"}),
        pool(env={"A": ["x"]}),
        pool(env={"A": {"fromenv": "x"}}),
        pool(bind=[{"addres": "127.0.0.1:80"}]),
        pool(ready={"notify": False}),
    ],
)
def test_it_finds_what_the_loader_finds(data: Any) -> None:
    assert problems(data)


@pytest.mark.parametrize(
    "data",
    [
        pool(),
        pool(restart="never", stop="TERM 1s, KILL", after="web", ready={"tcp": "x:1"}, bind="127.0.0.1:80"),
        pool(restart={"when": "never"}, stop=["TERM 1s", "KILL"], after=["web"], ready=[{"exec": "x"}], bind=["x:1"]),
        pool(command=["sleep", 60], env={"A": 1, "B": "x", "C": {"from_env": "X"}}, env_files=".env"),
    ],
)
def test_it_takes_what_the_loader_takes(data: Any) -> None:
    assert problems(data) == []


def test_every_key_is_explained_and_defaults_are_as_people_write_them() -> None:
    schema = json_schema()
    gunicorn = schema["$defs"]["gunicorn-pool"]["properties"]
    assert all(key["description"] for key in gunicorn.values())
    assert gunicorn["start_timeout"]["default"] == "1m"
    assert schema["$defs"]["LogKeys"]["properties"]["max_size"]["default"] == "64MiB"
    assert schema["$defs"]["LimitKeys"]["properties"]["umask"]["default"] == "0022"
    assert "title" not in gunicorn["app"]
