"""The tree that YAML becomes: every value with its place, and the numbers with the text they were written as."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from supervisor_d.errors import Problem


class WrittenInt(int):
    """An integer that remembers how it was written: where text is wanted, `0x1F` stays `0x1F`."""

    raw: str


class WrittenFloat(float):
    """A floating point number that remembers how it was written."""

    raw: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands; lines and columns count from 1, columns in characters."""

    path: str
    line: int = 1
    column: int = 1

    def problem(self, key: str, message: str) -> Problem:
        """A problem at this place."""
        return Problem(self.path, self.line, self.column, key, message)


@dataclass(slots=True)
class Node:
    """A value with its place; `size`, `depth` and `chars` are what it would have, written out without aliases."""

    place: Place
    size: int = 1
    depth: int = 1
    chars: int = 0


@dataclass(slots=True)
class Scalar(Node):
    """A single value.  `raw` is its text; `plain` says that it stands without quotes."""

    raw: str = ""
    plain: bool = True
    value: Any = None


@dataclass(slots=True)
class Sequence(Node):
    """A list."""

    items: list[Node] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of a mapping, where the key stands, and its value."""

    place: Place
    node: Node


@dataclass(slots=True)
class Mapping(Node):
    """Keys, always text, in the order of the file."""

    entries: dict[str, Entry] = field(default_factory=dict)


def plain(node: Node) -> Any:
    """The tree as dicts, lists, text, numbers, booleans and None; numbers remember their text."""
    if isinstance(node, Mapping):
        return {key: plain(entry.node) for key, entry in node.entries.items()}
    if isinstance(node, Sequence):
        return [plain(item) for item in node.items]
    assert isinstance(node, Scalar)  # noqa: S101  there are three kinds of nodes
    return node.value


@dataclass(frozen=True, slots=True)
class Spot:
    """A value found in the tree: where its key stands, the value itself, and the keys that lead there."""

    place: Place
    node: Node
    path: tuple[str | int, ...]

    def find(self, steps: Iterable[str | int]) -> Spot:
        """Go down as far as the tree goes: a step that leads nowhere ends at what was reached."""
        spot = self
        for step in steps:
            below = spot.step(step)
            if below is None:
                # A single value may stand for a list of one: `bind: x` has no [0], and the next step goes on from x.
                if step == 0 and not isinstance(spot.node, Sequence):
                    continue
                break
            spot = below
        return spot

    def step(self, step: str | int) -> Spot | None:
        """One step down, or None where there is nothing."""
        if isinstance(self.node, Mapping) and step in self.node.entries:
            entry = self.node.entries[str(step)]
            return Spot(entry.place, entry.node, (*self.path, step))
        if isinstance(self.node, Sequence) and isinstance(step, int) and step < len(self.node.items):
            item = self.node.items[step]
            return Spot(item.place, item, (*self.path, step))
        return None


def key_text(path: Iterable[str | int]) -> str:
    """The keys that lead to a value, as people write them: `pools.web.ready[0].http`; `file` when there are none.

    What lies below a variable of `env` is left out: it can only be a value.
    """
    parts = list(path)
    if "env" in parts:
        parts = parts[: parts.index("env") + 2]
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return _printable(text.removeprefix(".")) or "file"


def _printable(text: str) -> str:
    """One line that no terminal takes for a command."""
    shown = "".join(character if character.isprintable() else "?" for character in text)
    return shown if len(shown) <= 200 else f"{shown[:200]}..."
