"""The tables of docs/config.md, made from the keys themselves.

    python -m supervisor_d.config.reference docs/config.md

writes them into the file, between `<!-- keys: NAME -->` and `<!-- end -->`; what stands around them is left alone.  A
test holds that nothing is to be written.
"""

from __future__ import annotations

import dataclasses
import re
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union

from supervisor_d.config.digest import LIVE_KEYS
from supervisor_d.config.keys import (
    BindKeys,
    CommonKeys,
    ControlKeys,
    DaemonKeys,
    FileKeys,
    LimitKeys,
    LogKeys,
    MetricsKeys,
    OneOrMany,
    ReadyKeys,
    RestartKeys,
    RolloutKeys,
    Written,
)
from supervisor_d.core.units import PathName, Unit, format_duration, format_size
from supervisor_d.programs.beat import LeaseKeys
from supervisor_d.programs.registry import PROGRAMS

_BLOCK = re.compile(r"(<!-- keys: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_OWN_TABLE = {BindKeys, RestartKeys, ReadyKeys, RolloutKeys, LogKeys, LimitKeys, ControlKeys, MetricsKeys, DaemonKeys}

SECTIONS: Mapping[str, type] = {
    "file": FileKeys,
    "daemon": DaemonKeys,
    "control": ControlKeys,
    "metrics": MetricsKeys,
    "pool": CommonKeys,
    "bind": BindKeys,
    "ready": ReadyKeys,
    "restart": RestartKeys,
    "rollout": RolloutKeys,
    "log": LogKeys,
    "limits": LimitKeys,
    **{name: program.keys_type for name, program in PROGRAMS.items()},
    "lease": LeaseKeys,
}
"""The tables, by the name in the file."""


def table(name: str) -> str:
    """One table of the reference."""
    with_change = name == "pool"
    head = ("Key", "Value", "Default", "A change", "Meaning") if with_change else ("Key", "Value", "Default", "Meaning")
    rows = [head, tuple("---" for _ in head), *_rows(SECTIONS[name], with_change=with_change)]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows) + "\n"


def written(text: str) -> str:
    """The text of docs/config.md with every table as it should be."""
    return _BLOCK.sub(lambda found: f"{found[1]}{table(found[2])}{found[3]}", text)


def _rows(keys: type, *, with_change: bool) -> Iterator[tuple[str, ...]]:
    hints = typing.get_type_hints(keys, include_extras=True)
    for field in sorted(dataclasses.fields(keys), key=lambda field: field.name != "program"):
        hint = hints[field.name]
        change = ("live" if field.name in LIVE_KEYS else "rolls",) if with_change else ()
        yield (
            f"`{field.name}`",
            _value(hint),
            _default(field, hint),
            *change,
            str(field.metadata["doc"]).replace(".  ", ". "),
        )


def _value(hint: Any) -> str:
    """How a value is written, in words."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _marked(args[0], args[1:])
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_value(member) for member in args if member is not type(None)))
    if origin is Literal:
        return ", ".join(f"`{str(word).lower() if word is True else word}`" for word in args)
    if origin is tuple:
        return "list" if args[0] is str else f"list of {_value(args[0])}"
    if isinstance(hint, type) and hint in _OWN_TABLE:
        return "keys"
    return {str: "text", int: "number", float: "number", bool: "true, false"}.get(hint, "mapping")


def _marked(hint: Any, markers: tuple[Any, ...]) -> str:
    for marker in markers:
        if isinstance(marker, Unit):
            return marker.kind
        if isinstance(marker, PathName):
            return "path"
        if isinstance(marker, Written):
            return f"like `{marker.example}`"
        if isinstance(marker, OneOrMany):
            item = typing.get_args(hint)[0]
            return "text or list" if item is str else f"{_value(item)}, one or a list"
    return _value(hint)


def _default(field: dataclasses.Field[Any], hint: Any) -> str:
    if field.metadata.get("default"):
        return str(field.metadata["default"])
    if field.default is dataclasses.MISSING or field.name == "program":
        return "" if field.default_factory is not dataclasses.MISSING else "required"
    if field.default in (None, (), ""):
        return ""
    return f"`{_shown(field.default, hint)}`"


def _shown(value: Any, hint: Any) -> str:
    unit = next((marker for marker in _markers(hint) if isinstance(marker, Unit)), None)
    if unit is not None:
        return format_duration(value) if unit.kind == "duration" else format_size(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _markers(hint: Any) -> Iterator[Any]:
    if typing.get_origin(hint) is Annotated:
        yield from typing.get_args(hint)[1:]
    for member in typing.get_args(hint):
        yield from _markers(member)


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(written(file.read_text(encoding="utf-8")), encoding="utf-8")
