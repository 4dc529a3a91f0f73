"""Frozen dataclasses of keys, made into pydantic models that check YAML and give the dataclasses back.

The dataclasses are plain (the core and the programs know no pydantic); a model is made of one when it is first needed,
and kept.  Values are taken strictly: text is text, a number is a number.  Two kindnesses: a number stands for the text
it was written as in lists of text and in `env` (`args: [--port, 8000]`), and a whole number for one with a fraction.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Union

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict, WithJsonSchema, create_model
from pydantic_core import PydanticCustomError

from supervisor_d.config.keys import CommonKeys, DefaultKeys, FileKeys, FromEnv, OneOrMany, Written
from supervisor_d.config.nodes import WrittenFloat, WrittenInt
from supervisor_d.core.units import (
    PathName,
    Range,
    Short,
    Unit,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)
from supervisor_d.programs.base import Program

DURATION_PATTERN = r"^([0-9]+(\.[0-9]+)?(ms|[dhms]))+$"
SIZE_PATTERN = r"^[0-9]+(\.[0-9]+)? ?(B|kB|[KMGT]B|[KMGT]iB)$"

_CONFIG = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


def model_of(keys: type) -> type[BaseModel]:
    """The pydantic model of a dataclass of keys."""
    return _model(keys.__name__, (keys,))


def pool_model(program: Program) -> type[BaseModel]:
    """The model of a pool of that program: the common keys and the program's own, side by side."""
    return _model(f"{program.name}-pool", (CommonKeys, program.keys_type))


def defaults_model() -> type[BaseModel]:
    """The model of `defaults:`."""
    return model_of(DefaultKeys)


def file_model() -> type[BaseModel]:
    """The model of a whole file; the pools in it are checked one by one, by their programs."""
    return model_of(FileKeys)


def hints_of(keys: type) -> dict[str, Any]:
    """The annotations of a dataclass, markers included."""
    return _hints(keys)


def build(keys: type, model: BaseModel) -> Any:
    """The dataclass of a checked model (of which it may take only some fields)."""
    return keys(**{field.name: getattr(model, field.name) for field in dataclasses.fields(keys)})


@functools.cache
def _hints(keys: Callable[..., Any]) -> dict[str, Any]:
    return typing.get_type_hints(keys, include_extras=True)


@functools.cache
def _model(name: str, parts: tuple[type, ...]) -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for part in parts:
        hints = hints_of(part)
        fields |= {field.name: (_type(hints[field.name]), _field(field)) for field in dataclasses.fields(part)}
    if "program" in fields:
        fields["program"] = (str, Field(description="What kind of process this is."))
    model: type[BaseModel] = create_model(name, __config__=_CONFIG, __doc__=parts[-1].__doc__, **fields)
    return model


def _field(field: dataclasses.Field[Any]) -> Any:
    description = field.metadata.get("doc", "")
    if field.default is not dataclasses.MISSING:
        return Field(default=field.default, description=description)
    if field.default_factory is not dataclasses.MISSING:
        return Field(default_factory=field.default_factory, description=description)
    return Field(description=description)


def _type(hint: Any) -> Any:
    """The pydantic type of a field's annotation."""
    origin = typing.get_origin(hint)
    if origin is Annotated:
        return _annotated(*typing.get_args(hint))
    if origin in (Union, types.UnionType):
        return _union(typing.get_args(hint))
    if origin is tuple:
        return tuple[_list_item(typing.get_args(hint)[0]), ...]  # type: ignore[misc]  # made at run time
    if origin in (dict, Mapping):
        return dict[str, _type(typing.get_args(hint)[1])]  # type: ignore[misc]  # made at run time
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return Annotated[model_of(hint), AfterValidator(functools.partial(build, hint))]
    if origin is Literal or hint is Any:
        return hint
    if hint is str:
        return Annotated[str, Strict(), AfterValidator(_without_nul)]
    return Annotated[hint, Strict()]


def _union(members: tuple[Any, ...]) -> Any:
    """`X | None` is X: null is never written.  Text or words is words; text or FromEnv is a variable's value."""
    members = tuple(member for member in members if member is not type(None))
    if len(members) == 1:
        return _type(members[0])
    if set(members) == {str, tuple[str, ...]}:
        from supervisor_d.config.grammar import split_words

        return _type(Annotated[tuple[str, ...], OneOrMany(split_words)])
    if set(members) == {str, FromEnv}:
        return Annotated[Any, AfterValidator(_env_value), WithJsonSchema(_env_schema())]
    raise TypeError(f"a config key cannot be {members}")


def _list_item(hint: Any) -> Any:
    if hint is str:
        return Annotated[_type(str), BeforeValidator(_as_written), WithJsonSchema({"type": ["string", "number"]})]
    return _type(hint)


def _annotated(hint: Any, *markers: Any) -> Any:
    """A type with its markers.  Those that take text come first; the range is checked at the end."""
    found: dict[type, Any] = {type(marker): marker for marker in markers}
    if Unit in found:
        return _quantity(found[Unit], found.get(Range, Range()))
    if Written in found:
        written: Written = found[Written]
        schema: dict[str, Any] = {"type": "string", "examples": [written.example.strip('"')]}
        schema |= {"pattern": written.pattern} if written.pattern else {}
        return Annotated[Any, AfterValidator(_parser(written.parse)), WithJsonSchema(schema)]
    if OneOrMany in found:
        return _one_or_many(hint, found[OneOrMany])
    if Short in found:
        return _short(hint, found[Short])
    if PathName in found:
        return Annotated[str, Strict(), AfterValidator(_path)]
    inner = _type(hint)
    return Annotated[inner, Field(ge=found[Range].minimum, le=found[Range].maximum)] if Range in found else inner


def _problem(text: str) -> PydanticCustomError:
    return PydanticCustomError("problem", "{text}", {"text": text})


def _as_written(value: Any) -> Any:
    return value.raw if isinstance(value, WrittenInt | WrittenFloat) else value


def _text(value: Any) -> str:
    """The value, which must be text.  The caller of the model words the rest: it sees the YAML."""
    if not isinstance(value, str):
        raise PydanticCustomError("string_type", "must be text")
    return value


def _without_nul(value: str) -> str:
    """Nothing that the kernel takes as text may hold a NUL."""
    if "\0" in value:
        raise _problem("holds a NUL character")
    return value


def _path(value: str) -> str:
    if not value:
        raise _problem("must be a path")
    if value.startswith("~"):
        raise _problem("`~` is not expanded: write the path out")
    return _without_nul(value)


def _env_value(value: Any) -> Any:
    written = _as_written(value)
    if isinstance(written, dict):
        name = written.get("from_env")
        if len(written) != 1 or not isinstance(name, str) or not name:
            raise _problem("must be text, a number, or {from_env: NAME}")
        return FromEnv(name)
    return _without_nul(_text(written))


def _env_schema() -> dict[str, Any]:
    from_env = {
        "type": "object",
        "properties": {"from_env": {"type": "string"}},
        "required": ["from_env"],
        "additionalProperties": False,
    }
    return {"anyOf": [{"type": ["string", "number"]}, from_env]}


def _parser(parse: Callable[[str], Any]) -> Callable[[Any], Any]:
    def parsed(value: Any) -> Any:
        text = _text(_as_written(value))
        try:
            return parse(text)
        except ValueError as error:
            raise _problem(str(error)) from None

    return parsed


def _quantity(unit: Unit, bounds: Range) -> Any:
    duration = unit.kind == "duration"
    parse: Callable[[str], float] = parse_duration if duration else parse_size
    show: Callable[[Any], str] = format_duration if duration else format_size

    def quantity(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise _problem(f"must be a {unit.kind}, like {'30s' if duration else '64MiB'}")
        number = _parser(parse)(_as_written(value))
        if bounds.minimum is not None and number < bounds.minimum:
            raise _problem(f"must be at least {show(bounds.minimum)}")
        if bounds.maximum is not None and number > bounds.maximum:
            raise _problem(f"must be at most {show(bounds.maximum)}")
        return number

    schema = {
        "type": "string",
        "pattern": DURATION_PATTERN if duration else SIZE_PATTERN,
        "examples": ["30s", "500ms", "1m30s"] if duration else ["64MiB", "512KiB"],
    }
    return Annotated[Any, AfterValidator(quantity), WithJsonSchema(schema)]


def _one_or_many(hint: Any, marker: OneOrMany) -> Any:
    def as_list(value: Any) -> Any:
        if isinstance(value, list):
            return value
        if marker.split is not None and isinstance(value, str):
            return _parser(marker.split)(value)
        return value if value is None else [value]

    return Annotated[_type(hint), BeforeValidator(as_list), Field(json_schema_extra=_also_one)]


def _also_one(schema: dict[str, Any]) -> None:
    """An array's schema, or that of one of its items."""
    array = {key: schema.pop(key) for key in ("type", "items") if key in schema}
    item = array.get("items", {})
    schema["anyOf"] = [array, item]


def _short(hint: Any, marker: Short) -> Any:
    def as_mapping(value: Any) -> Any:
        return value if isinstance(value, dict) or value is None else {marker.key: value}

    words = _literals(typing.get_type_hints(hint)[marker.key])
    short = {"$comment": f"the same as {{{marker.key}: ...}}", **({"enum": words} if words else {"type": "string"})}

    def also_short(schema: dict[str, Any]) -> None:
        whole = {key: schema.pop(key) for key in ("$ref", "allOf") if key in schema}
        schema["anyOf"] = [short, whole]

    return Annotated[_type(hint), BeforeValidator(as_mapping), Field(json_schema_extra=also_short)]


def _literals(hint: Any) -> list[str]:
    """The words of a Literal, also of an optional one."""
    if typing.get_origin(hint) is Literal:
        return list(typing.get_args(hint))
    return [word for member in typing.get_args(hint) for word in _literals(member)]
