"""Problems, collected until all are known, each once; and pydantic's errors in an operator's words, with their places.

No text here quotes a value of `env`: it may be a secret.
"""

from __future__ import annotations

import typing
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from supervisor_d.config.nodes import Place, Scalar, Spot, key_text
from supervisor_d.config.suggest import did_you_mean
from supervisor_d.errors import ConfigError, Problem

MAX_PROBLEMS = 200


class Problems:
    """What is wrong so far."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, int, int, str], Problem] = {}
        self._left_out = 0

    def __bool__(self) -> bool:
        return bool(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def concern(self, key: str) -> bool:
        """Whether there is a problem with a key, or with one below it."""
        below = (f"{key}.", f"{key}[")
        return any(problem.key == key or problem.key.startswith(below) for problem in self._found.values())

    def take(self, problems: Iterable[Problem]) -> None:
        """Add problems; one at the same place with the same words is known already."""
        for problem in problems:
            if len(self._found) < MAX_PROBLEMS:
                key = (problem.path, problem.line, problem.column, problem.message)
                self._found.setdefault(key, problem)
            else:
                self._left_out += 1

    def at_value(self, spot: Spot, message: str) -> None:
        """A problem with a value."""
        self.take([spot.node.place.problem(key_text(spot.path), message)])

    def at_key(self, spot: Spot, message: str, *below: str) -> None:
        """A problem with a key, or with what is missing `below` it."""
        self.take([spot.place.problem(key_text((*spot.path, *below)), message)])

    def in_order(self) -> tuple[Problem, ...]:
        """What was taken, the first line first."""
        return tuple(sorted(self._found.values(), key=lambda problem: (problem.path, problem.line, problem.column)))

    def raise_any(self) -> None:
        """Raise ConfigError when there is a problem, the first line first."""
        if not self._found:
            return
        found = list(self.in_order())
        if self._left_out:
            more = f"{self._left_out} more problems are not shown: mend these first"
            found.append(Place(found[-1].path).problem("file", more))
        raise ConfigError(tuple(found))


def check(
    model: type[BaseModel],
    data: Mapping[str, Any],
    spot: Spot,
    problems: Problems,
    elsewhere: Mapping[str, str] | None = None,
    fallback: type[BaseModel] | None = None,
) -> BaseModel | None:
    """`data`, which was read at `spot`, as a model, with every problem taken.

    Keys with a problem are left out of the model, so that what the others say can still be checked.  Where that leaves
    too little, the smaller model `fallback` is made of what is left, or None.
    `elsewhere` says of keys that do not belong where they stand where they do: "queues" -> "it is a key of celery".
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        for found in error.errors(include_url=False, include_input=False):
            _take(found, model, spot, problems, elsewhere or {})
        bad = {found["loc"][0] for found in error.errors(include_url=False, include_input=False) if found["loc"]}
    good = {key: value for key, value in data.items() if key not in bad}
    try:
        return model.model_validate(good)
    except ValidationError:
        if fallback is None:
            return None
        return fallback.model_validate({key: good[key] for key in fallback.model_fields if key in good})


def _take(error: Any, model: type[BaseModel], spot: Spot, problems: Problems, elsewhere: Mapping[str, str]) -> None:
    *above, last = error["loc"] or ("",)
    if error["type"] == "missing":
        inner = model_at(model, above)
        description = (inner.model_fields[last].description or "").partition(".  ")[0].rstrip(".")
        problems.at_key(spot.find(above), f"missing: {description}", last)
    elif error["type"] == "extra_forbidden":
        known = model_at(model, above).model_fields
        hint = did_you_mean(last, known)
        place = key_text(error["loc"])
        if place in elsewhere:
            hint = f" here: {elsewhere[place]}"
        problems.at_key(spot.find(error["loc"]), f"unknown key{hint}")
    else:
        found = spot.find(error["loc"])
        problems.at_value(found, _words(error, found))


def model_at(model: type[BaseModel], path: Iterable[str | int]) -> type[BaseModel]:
    """The model that describes the mapping at a path."""
    for step in path:
        if isinstance(step, str) and step in model.model_fields:
            model = _inner_model(model.model_fields[step].annotation) or model
    return model


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_inner_model, typing.get_args(annotation))), None)


def _words(error: Any, spot: Spot) -> str:
    """What is wrong with a value."""
    kind, context = error["type"], error.get("ctx", {})
    scalar = spot.node if isinstance(spot.node, Scalar) else None
    if scalar is not None and scalar.value is None:
        return "is empty: give a value, or remove the key"
    if kind == "string_type":
        return _not_text(scalar, spot)
    if kind == "literal_error":
        return _not_listed(scalar, str(context["expected"]))
    if kind in ("greater_than_equal", "less_than_equal"):
        side, bound = ("least", context.get("ge")) if kind == "greater_than_equal" else ("most", context.get("le"))
        return f"must be at {side} {bound:g}"
    wanted = {
        "int": "must be a whole number",
        "float": "must be a number",
        "bool": "must be true or false",
        "tuple": "must be a list, like [a, b]",
        "dict": "must be a mapping of keys and values",
        "model": "must be a mapping of keys and values",
    }
    return wanted.get(kind.partition("_")[0], str(error["msg"]))


def _not_text(scalar: Scalar | None, spot: Spot) -> str:
    if scalar is None:
        return "must be text, not a list or a mapping"
    if isinstance(scalar.value, bool):
        return f"must be text, and YAML reads a plain {scalar.raw} as {str(scalar.value).lower()}: quote it"
    return "must be text: quote it" if "env" in spot.path else f'must be text: quote it, "{scalar.raw}"'


def _not_listed(scalar: Scalar | None, expected: str) -> str:
    """`expected` is pydantic's own list: 'always', 'on-failure' or 'never'."""
    known = expected.replace("'", "").replace("True", "true")
    if scalar is None:
        return f"must be {known}"
    words = known.replace(" or ", ", ").split(", ")
    return f"must be {known}{did_you_mean(scalar.raw, words)}"
