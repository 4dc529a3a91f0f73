"""One line of a worker's log, and how it is shown: a coloured prefix, and no control over the reader's terminal."""

from __future__ import annotations

import re
from dataclasses import dataclass

LINE_BYTES = 64 * 1024
"""A longer line is told in pieces of this size."""

_PALETTE = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
_STYLE = re.compile(r"\x1b\[[0-9;:]*m")
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|.)?")
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a worker's log, with the slot's log it came from (`web.0`).

    `at` is when it was written, to the second (Unix seconds, for people only); None where no index tells.
    """

    source: str
    text: str
    at: float | None = None


def printable(text: str, *, colour: bool) -> str:
    """Worker's text without escape sequences and control characters, which could rewrite what a terminal shows.

    With `colour` its own colours (SGR sequences) are kept, and reset at the end.
    """
    if text.isprintable():
        return text
    if not colour:
        return _CONTROL.sub("", _ESCAPE.sub("", text))
    kept = _STYLE.findall(text)
    parts = [_CONTROL.sub("", _ESCAPE.sub("", part)) for part in _STYLE.split(text)]
    woven = parts[0] + "".join(style + part for style, part in zip(kept, parts[1:], strict=True))
    return woven + "\x1b[0m" if kept else woven


def prefixed(line: LogLine, width: int, *, colour: bool) -> str:
    """`web.0 | text`, the source padded to `width` and, with `colour`, always in the same colour for a slot."""
    source = f"{line.source:<{width}} |"
    if colour:
        import zlib

        source = f"\x1b[{_PALETTE[zlib.crc32(line.source.encode()) % len(_PALETTE)]}m{source}\x1b[0m"
    return f"{source} {printable(line.text, colour=colour)}"
