"""Versions as far as programs compare them: their leading numbers."""

from __future__ import annotations

import re

_NUMBERS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9}){0,9}", re.ASCII)


def older(version: str, than: str) -> bool:
    """Whether `version` comes before `than`; one that is not known does not.  A pre-release counts as its release."""
    found = _NUMBERS.match(version)
    return found is not None and _parts(found[0]) < _parts(than)


def _parts(version: str) -> tuple[int, ...]:
    """27.0.0 and 27.0 are one version."""
    numbers = [int(part) for part in version.split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
