"""The JSON Schema (draft 2020-12) of a config file, for editors: completion, texts, and most mistakes as one types.

It is made of the same models that the loader checks with, so the two cannot drift apart.  What needs this machine
(users, files, addresses) or several pools at once (`after`) only the loader can tell.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from supervisor_d.config.keys import FileKeys
from supervisor_d.config.pools import POOL_NAME
from supervisor_d.config.schema import defaults_model, model_of, pool_model
from supervisor_d.core.units import format_duration, format_size
from supervisor_d.programs.base import Program
from supervisor_d.programs.registry import PROGRAMS

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(programs: Mapping[str, Program] = PROGRAMS) -> dict[str, Any]:
    """The schema, as what json.dumps takes."""
    defs: dict[str, Any] = {}
    whole = _plain(model_of(FileKeys).model_json_schema(), defs)
    whole["properties"]["defaults"] = _plain(defaults_model().model_json_schema(), defs)
    whole["properties"]["pools"] |= {
        "minProperties": 1,
        "propertyNames": {"pattern": f"^{POOL_NAME.pattern}$"},
        "additionalProperties": _pool(programs, defs),
    }
    whole["required"] = ["version", "pools"]
    return {"$schema": DIALECT, "title": "supervisor-d config", **_tidy(whole), "$defs": _tidy(defs)}


def schema_text(programs: Mapping[str, Program] = PROGRAMS) -> str:
    """The schema as the text of a file."""
    return json.dumps(json_schema(programs), indent=2, ensure_ascii=False) + "\n"


def _pool(programs: Mapping[str, Program], defs: dict[str, Any]) -> dict[str, Any]:
    """A pool: its `program` decides which keys it has."""
    branches = []
    for name, program in programs.items():
        defs[f"{name}-pool"] = _plain(pool_model(program).model_json_schema(), defs)
        properties = defs[f"{name}-pool"]["properties"]
        properties["program"] = {"const": name, "description": properties["program"]["description"]}
        branches.append(
            {"if": {"properties": {"program": {"const": name}}}, "then": {"$ref": f"#/$defs/{name}-pool"}},
        )
    return {
        "type": "object",
        "required": ["program"],
        "properties": {"program": {"enum": list(programs), "description": "What kind of process this is."}},
        "allOf": branches,
    }


def _plain(schema: dict[str, Any], defs: dict[str, Any]) -> dict[str, Any]:
    """A model's schema, its definitions moved to the common ones."""
    defs.update(schema.pop("$defs", {}))
    return schema


def _tidy(value: Any) -> Any:
    """Without what only Python means: titles made of names, and defaults that a file could not say in this way."""
    if isinstance(value, list):
        return [_tidy(item) for item in value]
    if not isinstance(value, dict):
        return value
    tidy = {key: _tidy(item) for key, item in value.items() if not (key == "title" and isinstance(item, str))}
    if "default" in tidy and "description" in tidy:
        tidy["default"] = _written_default(tidy)
        if tidy["default"] in (None, []):
            del tidy["default"]
    return tidy


def _written_default(schema: Mapping[str, Any]) -> Any:
    """A default as a file would say it: `30s`, `64MiB`, `0660`."""
    default, examples = schema["default"], schema.get("examples", [])
    if isinstance(default, bool) or not isinstance(default, int | float) or schema.get("type") != "string":
        return default
    if "64MiB" in examples:
        return format_size(int(default))
    if "30s" in examples:
        return format_duration(default)
    return f"{int(default):04o}"
