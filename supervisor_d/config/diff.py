"""What a reload would do to each pool, and how much capacity it costs meanwhile.

The verdict follows the rule by which the daemon acts: another digest (or program) is a new generation and rolls; else
another number of workers scales; else a changed key of LIVE_KEYS is an update, which touches no process.  Keys are
named, values never: they may be secrets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from supervisor_d.core.change import Change, PoolChange
from supervisor_d.core.spec import PoolSpec
from supervisor_d.programs.base import Program
from supervisor_d.programs.registry import PROGRAMS

MAX_KEYS = 20
_KEY_OF_FIELD = {"start_timeout_seconds": "start_timeout", "listeners": "bind"}
_NOT_KEYS = frozenset({"name", "keys", "env", "digest", "root"})


def compare(
    old: Mapping[str, PoolSpec], new: Mapping[str, PoolSpec], programs: Mapping[str, Program] = PROGRAMS
) -> tuple[PoolChange, ...]:
    """One change for every pool of either side: those of `new` in its order, then those that leave."""
    found = [_change(old.get(name), spec, programs) for name, spec in new.items()]
    gone = [PoolChange(name, "remove", detail=_stops(spec, programs)) for name, spec in old.items() if name not in new]
    return (*found, *gone)


def changed_keys(old: PoolSpec, new: PoolSpec) -> tuple[str, ...]:
    """The names of the keys that differ; for `env` those of the variables: `env.DEBUG`."""
    return tuple(_changed_keys(old, new))[:MAX_KEYS]


def _changed_keys(old: PoolSpec, new: PoolSpec) -> Iterator[str]:
    for field in dataclasses.fields(PoolSpec):
        if field.name not in _NOT_KEYS and getattr(old, field.name) != getattr(new, field.name):
            yield _KEY_OF_FIELD.get(field.name, field.name)
    if old.program == new.program and old.keys != new.keys:
        for field in dataclasses.fields(new.keys):
            if getattr(old.keys, field.name) != getattr(new.keys, field.name):
                yield field.name
    for name in sorted(old.env.keys() | new.env.keys()):
        if old.env.get(name) != new.env.get(name):
            yield f"env.{name}"


def _change(old: PoolSpec | None, new: PoolSpec, programs: Mapping[str, Program]) -> PoolChange:
    if old is None:
        return PoolChange(new.name, "add", detail=f"start {_amount(new, programs)}")
    keys = changed_keys(old, new)
    verdict: Change = "keep"
    detail = ""
    if old.digest != new.digest or old.program != new.program:
        verdict, detail = "roll", _roll(old, new, programs)
        if not keys:
            detail += "; no value differs: what `cwd` leads to, an env file's text, or the way a key is written"
    elif old.workers != new.workers:
        verdict, detail = "scale", _scale(old, new, programs)
    elif keys:
        verdict, detail = "update", "no process is touched; holds for those started from now on"
    return PoolChange(new.name, verdict, keys, detail)


def _sizes(spec: PoolSpec, programs: Mapping[str, Program]) -> tuple[int, ...]:
    program = programs.get(spec.program)
    return program.sizes(spec, spec.workers) if program else ()


def _amount(spec: PoolSpec, programs: Mapping[str, Program]) -> str:
    """`2 processes`, with their workers where those are something else."""
    sizes = _sizes(spec, programs)
    shown = _count(len(sizes), "process", "processes")
    return f"{shown} with {_count(sum(sizes), 'worker', 'workers')}" if sum(sizes) != len(sizes) else shown


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _stops(spec: PoolSpec, programs: Mapping[str, Program]) -> str:
    return f"stop {_amount(spec, programs)}"


def _scale(old: PoolSpec, new: PoolSpec, programs: Mapping[str, Program]) -> str:
    shown = f"{old.workers} -> {_count(new.workers, 'worker', 'workers')}"
    more = len(_sizes(new, programs)) - len(_sizes(old, programs))
    if more == 0:
        return f"{shown}, in the running process" if programs[new.program].traits.scale_in_place else shown
    return f"{shown}: {'start' if more > 0 else 'stop'} {_count(abs(more), 'process', 'processes')}"


def _roll(old: PoolSpec, new: PoolSpec, programs: Mapping[str, Program]) -> str:
    """How the new generation takes the old one's place, and what is missing meanwhile."""
    traits, count = programs[new.program].traits, len(_sizes(new, programs))
    if traits.oneshot:
        return "run again"
    shown = "" if old.workers == new.workers else f"{old.workers} -> {_count(new.workers, 'worker', 'workers')}; "
    shown += f"roll {_count(count, 'process', 'processes')}: "
    surge, fewer = new.rollout.max_surge, min(new.rollout.max_unavailable, count)
    if traits.exclusive:
        return f"{shown}stop it, then start the new one; none runs in between"
    if fewer == 0:
        return f"{shown}{surge} more at a time, never fewer"
    if surge == 0:
        return f"{shown}stops {fewer} of {count} at a time"
    return f"{shown}up to {surge} more and {fewer} of {count} fewer at a time"
