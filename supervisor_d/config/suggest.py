"""The nearest right spelling."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_MAX_LENGTH = 64
_CUTOFF = 0.6


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that looks most like `word`, whatever its case and with `-` as `_`; empty when none does."""
    if len(word) > _MAX_LENGTH:
        return ""
    folded = {_fold(name): name for name in known}
    found = difflib.get_close_matches(_fold(word), folded, n=1, cutoff=_CUTOFF)
    return folded[found[0]] if found else ""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`, did you mean web?` to end a sentence with, or nothing."""
    match = nearest(word, known)
    return f", did you mean {match}?" if match and match != word else ""


def _fold(word: str) -> str:
    return word.lower().replace("-", "_")
