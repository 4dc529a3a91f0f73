"""What a command line's words mean: times, numbers of workers."""

from __future__ import annotations

import time

from supervisor_d.core.units import parse_duration
from supervisor_d.errors import RequestError

MAX_WORKERS = 10_000


def seconds_of(option: str, text: str) -> float:
    """A duration such as `30s` or `1m30s`.  Raises RequestError."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise RequestError(f"cannot read {option}: {error}") from None


def since_of(text: str) -> float:
    """Unix seconds of `10m` (ago) or of a local date and time such as `2031-05-01T12:00`.  Raises RequestError."""
    if text[:4].isdigit() and "-" in text:
        from datetime import datetime

        try:
            return datetime.fromisoformat(text).timestamp()
        except ValueError as error:
            raise RequestError(f"cannot read --since: {error}", hint="write it like 10m or 2031-05-01T12:00") from None
    return max(0.0, time.time() - seconds_of("--since", text))


def sizes_of(words: tuple[str, ...]) -> dict[str, int | None]:
    """`web=6` and `web=config` as pool and number; None for the config's own.  Raises RequestError."""
    sizes: dict[str, int | None] = {}
    for word in words:
        pool, equals, number = word.partition("=")
        if not pool or not equals:
            raise RequestError(
                f"cannot scale {word!r}: it is not POOL=NUMBER", hint="write it like web=6 or web=config"
            )
        if pool in sizes:
            raise RequestError(f"cannot scale {pool}: it is named twice")
        if number != "config" and not (number.isascii() and number.isdigit() and int(number) <= MAX_WORKERS):
            raise RequestError(
                f"cannot scale {pool} to {number!r}: 0 to {MAX_WORKERS} workers can be wanted",
                hint=f"{pool}=config gives it back to its config",
            )
        sizes[pool] = None if number == "config" else int(number)
    return sizes
