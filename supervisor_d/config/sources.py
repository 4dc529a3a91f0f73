"""A pool as it was written: its program found, the values of `defaults:` beside its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from supervisor_d.config.keys import CommonKeys, DefaultKeys
from supervisor_d.config.nodes import Entry, Scalar, Spot
from supervisor_d.config.nodes import Mapping as MappingNode
from supervisor_d.config.problems import Problems
from supervisor_d.config.suggest import did_you_mean
from supervisor_d.programs.base import Program

_DEFAULTS = frozenset(field.name for field in dataclasses.fields(DefaultKeys))
ELSEWHERE = {
    f"defaults.{field.name}": "each pool says it for itself"
    for field in dataclasses.fields(CommonKeys)
    if field.name not in _DEFAULTS
}
"""Keys that do not belong under `defaults:`, and where they do."""


@dataclass(frozen=True, slots=True)
class Source:
    """A pool: `spot` holds its keys, those of `defaults:` merged in."""

    name: str
    spot: Spot
    program: Program
    elsewhere: Mapping[str, str]
    """Keys of other programs: whose they are."""


def source_of(
    name: str, spot: Spot, defaults: Spot | None, programs: Mapping[str, Program], problems: Problems
) -> Source | None:
    """The pool at `spot`; None, with the problem taken, when it has no program that we know."""
    if not isinstance(spot.node, MappingNode):
        problems.at_value(spot, "must be a mapping of keys and values, `program:` the first")
        return None
    stated = spot.step("program")
    if stated is None:
        problems.at_key(spot, f"missing: say what kind of process this is: {', '.join(programs)}", "program")
        return None
    word = stated.node.raw if isinstance(stated.node, Scalar) else ""
    program = programs.get(word)
    if program is None:
        hint = did_you_mean(word, programs) or f": there are {', '.join(programs)}"
        problems.at_value(stated, f"unknown program{hint}")
        return None
    return Source(name, _with_defaults(spot, spot.node, defaults, problems), program, _elsewhere(program, programs))


def _with_defaults(spot: Spot, own: MappingNode, defaults: Spot | None, problems: Problems) -> Spot:
    """The pool's keys, and those of `defaults:` that it does not say; of `env`, variable by variable.

    A default that is wrong was told as such, and is no fault of the pool's.
    """
    if defaults is None or not isinstance(defaults.node, MappingNode):
        return spot
    known = {key: entry for key, entry in defaults.node.entries.items() if _is_good(key, problems)}
    merged = MappingNode(own.place, entries={**known, **own.entries})
    own_env, default_env = own.entries.get("env"), known.get("env")
    if own_env and default_env:
        merged.entries["env"] = _merged_env(own_env, default_env)
    return Spot(spot.place, merged, spot.path)


def _is_good(key: str, problems: Problems) -> bool:
    return key in _DEFAULTS and not problems.concern(f"defaults.{key}")


def _merged_env(own: Entry, default: Entry) -> Entry:
    if not isinstance(own.node, MappingNode) or not isinstance(default.node, MappingNode):
        return own
    return Entry(own.place, MappingNode(own.node.place, entries={**default.node.entries, **own.node.entries}))


def _elsewhere(program: Program, programs: Mapping[str, Program]) -> dict[str, str]:
    owners: dict[str, list[str]] = {}
    for other in programs.values():
        if other is not program:
            for field in dataclasses.fields(other.keys_type):
                owners.setdefault(field.name, []).append(other.name)
    return {key: f"it is a key of {' and '.join(names)}" for key, names in owners.items()}
