"""Durations and sizes as people write them, and the markers that say which key of a config holds one.

A duration is one or more numbers with a unit, largest first: `500ms`, `30s`, `1m30s`, `2h`, `1.5s`.
A size is one number with a unit: `512B`, `10MB` (10 * 1000**2), `64MiB` (64 * 1024**2).  A bare number is refused in
both: nobody can tell 30 seconds from 30 milliseconds by looking.

A dataclass that holds config keys says `stop_after: Duration` or `threads: Annotated[int, Range(1, 4096)]`; the markers
are plain objects, and only the config layer gives them an effect.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Literal

MAX_DURATION_SECONDS = 366 * 86400.0
MAX_SIZE_BYTES = 2**60
_MAX_TEXT = 64

_DURATION_UNITS = {
    "d": Decimal(86400),
    "h": Decimal(3600),
    "m": Decimal(60),
    "s": Decimal(1),
    "ms": Decimal("0.001"),
}
_BINARY_UNITS = {"TiB": 2**40, "GiB": 2**30, "MiB": 2**20, "KiB": 2**10}
_DECIMAL_UNITS = {"TB": 10**12, "GB": 10**9, "MB": 10**6, "KB": 10**3, "B": 1}
_SIZE_UNITS = {**_BINARY_UNITS, **_DECIMAL_UNITS, "kB": 10**3}

_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_DURATION_PART = re.compile(rf"({_NUMBER})(ms|[dhms])", re.ASCII)
_DURATION = re.compile(rf"(?:{_NUMBER}(?:ms|[dhms]))+", re.ASCII)
_SIZE = re.compile(rf"({_NUMBER}) ?([A-Za-z]+)", re.ASCII)
_BARE = re.compile(_NUMBER, re.ASCII)


@dataclass(frozen=True, slots=True)
class Unit:
    """Marks a key whose value is written with a unit: a duration (seconds, float) or a size (bytes, int)."""

    kind: Literal["duration", "size"]


@dataclass(frozen=True, slots=True)
class Range:
    """Marks the lowest and highest number a key may have, both included; None is no bound.  Seconds or bytes."""

    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True, slots=True)
class PathName:
    """Marks a key that names a file or directory; a relative one starts at the directory of the config file."""


@dataclass(frozen=True, slots=True)
class Short:
    """Marks a mapping that may be written as the bare value of one of its keys."""

    key: str


Duration = Annotated[float, Unit("duration"), Range(0, MAX_DURATION_SECONDS)]
"""Seconds; written `30s`."""
PositiveDuration = Annotated[float, Unit("duration"), Range(0.001, MAX_DURATION_SECONDS)]
"""Seconds, at least a millisecond."""
Size = Annotated[int, Unit("size"), Range(0, MAX_SIZE_BYTES)]
"""Bytes; written `64MiB`."""
PositiveSize = Annotated[int, Unit("size"), Range(1, MAX_SIZE_BYTES)]
"""Bytes, at least one."""
FilePath = Annotated[str, PathName()]
"""An absolute path, once the config is loaded; empty when the key is not given."""


def parse_duration(text: str) -> float:
    """Seconds of `1m30s`, `500ms`, `2h`.

    Raises ValueError, its text fit for an operator, for a bare number, an unknown or repeated unit, units out of
    order, and for more than 366 days.
    """
    text = text.strip()
    if not text or len(text) > _MAX_TEXT:
        raise ValueError("is not a duration: write it like 500ms, 30s or 1m30s")
    if _BARE.fullmatch(text):
        raise ValueError(f"give a unit: {text}s")
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is not a duration: write it like 500ms, 30s or 1m30s")
    parts = _DURATION_PART.findall(text)
    order = [list(_DURATION_UNITS).index(unit) for _, unit in parts]
    if any(later <= earlier for earlier, later in itertools.pairwise(order)):
        raise ValueError(f"{text!r} has its units out of order: write the largest first, each once, like 1m30s")
    seconds = float(sum(Decimal(number) * _DURATION_UNITS[unit] for number, unit in parts))
    if seconds > MAX_DURATION_SECONDS:
        raise ValueError(f"{text!r} is longer than 366 days")
    return seconds


def format_duration(seconds: float) -> str:
    """The shortest usual spelling, exact to the millisecond: 90.0 is `1m30s`, 0.25 is `250ms`, 0 is `0s`."""
    left = round(abs(seconds) * 1000)
    parts = ["-"] if seconds < 0 and left else []
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def parse_size(text: str) -> int:
    """Bytes of `64MiB`, `10MB`, `512KiB`, `100B`.

    Raises ValueError, its text fit for an operator, for a bare number, an unknown unit, a part of a byte, and for more
    than 2**60 bytes.
    """
    text = text.strip()
    if not text or len(text) > _MAX_TEXT:
        raise ValueError("is not a size: write it like 64MiB, 512KiB or 10MB")
    if _BARE.fullmatch(text):
        raise ValueError(f"give a unit: {text}MiB, {text}KiB or {text}B")
    match = _SIZE.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is not a size: write it like 64MiB, 512KiB or 10MB")
    number, unit = match.groups()
    if unit not in _SIZE_UNITS:
        known = "B, KiB, MiB, GiB, TiB or KB, MB, GB, TB"
        raise ValueError(f"{text!r} has no known unit: use {known}{_meant(number, unit)}")
    size = Decimal(number) * _SIZE_UNITS[unit]
    if size != int(size):
        raise ValueError(f"{text!r} is not a whole number of bytes")
    if size > MAX_SIZE_BYTES:
        raise ValueError(f"{text!r} is more than 1024 PiB")
    return int(size)


def format_size(size_bytes: int) -> str:
    """The largest unit that says it exactly: 67108864 is `64MiB`, 10000000 is `10MB`, 1025 is `1025B`."""
    for units in (_BINARY_UNITS, _DECIMAL_UNITS):
        for unit, factor in units.items():
            if size_bytes and size_bytes % factor == 0 and unit != "B":
                return f"{size_bytes // factor}{unit}"
    return f"{size_bytes}B"


def _meant(number: str, unit: str) -> str:
    """The known unit with the same letters, or with the same first letter: `64M` was meant as `64MiB`."""
    folded = {known.lower(): known for known in _SIZE_UNITS if known != "kB"}
    meant = folded.get(unit.lower()) or folded.get(f"{unit.lower()[0]}ib")
    return f", did you mean {number}{meant}?" if meant else ""
