"""YAML text to a tree in which every value knows its line and column.

Theory of operation.  The text becomes YAML events (libyaml where PyYAML has it), and the events become nodes, one at a
time and without recursion, so that a hostile file is refused as soon as it oversteps a bound and before it costs
anything.  An alias is the same node in two places, never a copy; each node knows the size and the depth that it would
have written out in full, so an alias bomb is refused by adding numbers, not by expanding it:

    a: &a [x, x, x]        3 nodes and itself: size 4
    b: &b [*a, *a, *a]     3 * 4 and itself: 13
    c: &c [*b, *b, *b]     40, ... : the twelfth such line oversteps MAX_NODES, after some microseconds

What is read is YAML 1.2's core schema.  YAML 1.1's other words for true and false (yes, no, on, off) are booleans here
as well, so that a plain `no` where text belongs is found to be a mistake; numbers with a leading zero, which mean
different things in 1.1 and 1.2, are refused.  So are duplicate keys, tags that are not YAML's own, merge keys, tabs
that indent, and a second document.

Everything that is wrong is collected: a `Document` carries its problems, and may lack its root when nothing could be
made of the text.  No problem quotes a value, an alias or a tag: text that was meant to be a password could be any of
them (`PASSWORD: !hunter2`).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from supervisor_d.config.nodes import (
    Entry,
    Mapping,
    Node,
    Place,
    Scalar,
    Sequence,
    WrittenFloat,
    WrittenInt,
    key_text,
)
from supervisor_d.errors import Problem

MAX_TEXT_BYTES = 1024 * 1024
MAX_NODES = 100_000
MAX_DEPTH = 32
MAX_EXPANDED_CHARS = 4 * 1024 * 1024
MAX_PROBLEMS = 200
_MAX_NUMBER_CHARS = 40

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CORE_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "seq", "map")}
_STR_TAG = "tag:yaml.org,2002:str"
_TRUE = frozenset(f(word) for word in ("true", "yes", "on") for f in (str.lower, str.upper, str.title))
_FALSE = frozenset(f(word) for word in ("false", "no", "off") for f in (str.lower, str.upper, str.title))
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+|0o[0-7]+", re.ASCII)
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+", re.ASCII)
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What YAML 1.2 (5.1, c-printable) leaves out."""
_TAB_INDENT = re.compile(r"^ *\t", re.MULTILINE)


@dataclass(slots=True)
class Document:
    """What was made of one file."""

    root: Node | None
    problems: list[Problem]


class _Refused(Exception):  # noqa: N818  it ends the reading, and is no error that anyone else could see
    """Nothing more can be read."""

    def __init__(self, place: Place, message: str) -> None:
        super().__init__(message)
        self.place = place


def parse(text: str, path: str) -> Document:
    """The tree of a YAML text.  Raises nothing: what is wrong stands in `Document.problems`."""
    unreadable = _unreadable(text, path)
    if unreadable:
        return Document(None, unreadable)
    builder = _Builder(path)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.take(event)
    except _Refused as error:
        builder.problem(error.place, str(error))
        return Document(None, builder.problems)
    except yaml.YAMLError as error:
        builder.problems.append(_syntax_problem(error, path))
        return Document(None, builder.problems)
    if builder.root is None:
        builder.problem(Place(path), "is empty: say at least `version: 1` and `pools:`")
    return Document(builder.root, builder.problems)


class _Builder:
    """Takes events, one at a time, and grows the tree."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.root: Node | None = None
        self.problems: list[Problem] = []
        self._open: list[Mapping | Sequence] = []
        self._anchor_of_open: list[str | None] = []
        self._keys: list[Scalar | None] = []
        self._anchors: dict[str, Node] = {}
        self._documents = 0
        self._count = 0

    def problem(self, place: Place, message: str, key: str = "") -> None:
        """Write a problem down, up to a bound, with the keys that lead to where the reading is."""
        if len(self.problems) < MAX_PROBLEMS:
            path = [*self._path(), *([key] if key else [])]
            self.problems.append(place.problem(key_text(path), message))

    def _path(self) -> Iterator[str | int]:
        for node, key in zip(self._open, self._keys, strict=True):
            if isinstance(node, Sequence):
                yield len(node.items)
            elif key is not None:
                yield key.raw

    def take(self, event: yaml.Event) -> None:
        """One event.  Raises _Refused at the first overstepped bound."""
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise _Refused(self._place(event), "holds a second document: write one document for each file")
        elif isinstance(event, yaml.AliasEvent):
            self._add(self._alias(event))
        elif isinstance(event, yaml.ScalarEvent):
            node = self._scalar(event)
            self._remember(event.anchor, node)
            self._add(node)
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            self._begin(event)
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            self._end()

    def _place(self, event: yaml.Event) -> Place:
        mark = event.start_mark
        return Place(self.path, mark.line + 1, mark.column + 1) if mark else Place(self.path)

    def _begin(self, event: yaml.CollectionStartEvent) -> None:
        place = self._place(event)
        kind, tag = (Mapping, "map") if isinstance(event, yaml.MappingStartEvent) else (Sequence, "seq")
        if event.tag not in (None, "!", f"tag:yaml.org,2002:{tag}"):
            self._bad_tag(place)
        if len(self._open) >= MAX_DEPTH:
            raise _Refused(place, f"is nested deeper than {MAX_DEPTH} levels")
        self._open.append(kind(place))
        self._anchor_of_open.append(event.anchor)
        self._keys.append(None)

    def _end(self) -> None:
        node, anchor = self._open.pop(), self._anchor_of_open.pop()
        self._keys.pop()
        self._remember(anchor, node)
        self._add(node)

    def _remember(self, anchor: str | None, node: Node) -> None:
        if anchor is not None:
            self._anchors[anchor] = node

    def _alias(self, event: yaml.AliasEvent) -> Node:
        place = self._place(event)
        if event.anchor in self._anchor_of_open:
            raise _Refused(place, "an alias holds itself; quote text that begins with `*`")
        if event.anchor not in self._anchors:
            raise _Refused(place, "an alias has no anchor before it; quote text that begins with `*`")
        return self._anchors[event.anchor]

    def _add(self, node: Node) -> None:
        """Put a finished node where it belongs: a mapping's key, its value, a list's item, the root."""
        self._count += 1
        if not self._open:
            self.root = node
            return
        parent = self._open[-1]
        if isinstance(parent, Sequence):
            parent.items.append(node)
        elif self._keys[-1] is None:
            self._keys[-1] = self._key(node)
        else:
            key, self._keys[-1] = self._keys[-1], None
            self._entry(parent, key, node)
        _grow(parent, node)

    def _key(self, node: Node) -> Scalar:
        if isinstance(node, Scalar) and node.raw not in _NULL:
            return node
        self.problem(node.place, "a key must be a word, not empty, a list or a mapping")
        return Scalar(node.place, raw="")

    def _entry(self, parent: Mapping, key: Scalar, node: Node) -> None:
        name = key.raw
        if name == "<<" and key.plain:
            self.problem(key.place, "merge keys are not supported: say it under `defaults:`, or write it out", name)
        elif name in parent.entries:
            first = parent.entries[name].place
            self.problem(key.place, f"stands twice: first in line {first.line}, column {first.column}", name)
        elif name:
            parent.entries[name] = Entry(key.place, node)

    def _scalar(self, event: yaml.ScalarEvent) -> Scalar:
        place, raw = self._place(event), event.value
        quoted = event.tag in ("!", _STR_TAG) or bool(event.style)
        value = raw if quoted else self._resolve(place, raw)
        if event.tag not in (None, "!", _STR_TAG):
            if event.tag not in _CORE_TAGS:
                self._bad_tag(place)
            elif event.tag != f"tag:yaml.org,2002:{_kind(value)}":
                self.problem(place, f"is no {event.tag.rpartition(':')[2]}, as its tag says")
        return Scalar(place, chars=len(raw), raw=raw, plain=not quoted, value=value)

    def _bad_tag(self, place: Place) -> None:
        self.problem(place, "tags are refused, but YAML's own plain types; quote text that begins with `!`")

    def _resolve(self, place: Place, raw: str) -> Any:
        if raw in _NULL:
            return None
        if raw in _TRUE or raw in _FALSE:
            return raw in _TRUE
        if len(raw) > _MAX_NUMBER_CHARS:
            return raw
        if _LEADING_ZERO.fullmatch(raw):
            self.problem(place, "a leading zero is octal to some and decimal to others: quote it, or drop the zero")
            return raw
        return _number(raw)


def _grow(parent: Node, child: Node) -> None:
    parent.size += child.size
    parent.chars += child.chars
    parent.depth = max(parent.depth, child.depth + 1)
    if parent.size > MAX_NODES or parent.chars > MAX_EXPANDED_CHARS:
        raise _Refused(parent.place, f"is too large with its aliases written out: more than {MAX_NODES} values")
    if parent.depth > MAX_DEPTH:
        raise _Refused(parent.place, f"is nested deeper than {MAX_DEPTH} levels")


def _number(raw: str) -> WrittenInt | WrittenFloat | str:
    number: WrittenInt | WrittenFloat
    if _INT.fullmatch(raw):
        number = WrittenInt(raw, 0)
    elif _FLOAT.fullmatch(raw):
        number = WrittenFloat(raw)
    else:
        return raw
    number.raw = raw
    return number


def _kind(value: Any) -> str:
    kinds = {bool: "bool", WrittenInt: "int", WrittenFloat: "float", type(None): "null"}
    return kinds.get(type(value), "str")


def _unreadable(text: str, path: str) -> list[Problem]:
    """What forbids even to begin: too much text, characters that YAML does not know, tabs that indent."""
    if len(text.encode(errors="replace")) > MAX_TEXT_BYTES:
        return [Place(path).problem("file", f"is larger than {MAX_TEXT_BYTES // 1024} KiB")]
    if match := _FORBIDDEN.search(text):
        message = "holds a control character, which YAML does not allow"
        return [_place_at(text, match.start(), path).problem("file", message)]
    tabs = itertools.islice(_TAB_INDENT.finditer(text), MAX_PROBLEMS)
    return [_place_at(text, tab.end() - 1, path).problem("file", "a tab may not indent: use spaces") for tab in tabs]


def _place_at(text: str, position: int, path: str) -> Place:
    return Place(path, text.count("\n", 0, position) + 1, position - text.rfind("\n", 0, position))


def _syntax_problem(error: yaml.YAMLError, path: str) -> Problem:
    """YAML's own words, without the piece of text that it quotes: that could be a secret."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark, begun = error.problem_mark or error.context_mark, error.context_mark
        place = Place(path, mark.line + 1, mark.column + 1) if mark else Place(path)
        message = f"is not YAML: {_friendly(error.problem or error.context or 'cannot be read')}"
        if begun and mark and begun.line != mark.line:
            message += f", {error.context} from line {begun.line + 1}, column {begun.column + 1}"
        return place.problem("file", message)
    return Place(path).problem("file", "is not YAML: it cannot be read")


def _friendly(problem: str) -> str:
    ways_out = {
        "mapping values are not allowed": "a colon stands where none may: quote text that holds `: `",
        "could not find expected ':'": "a key without its colon, or text that runs over a line: quote it",
        "did not find expected key": "the indentation does not fit the lines before, or a quote or bracket is amiss",
        "cannot start any token": "text may not start with this character: quote it",
        "unexpected end of stream": "a quote or bracket is never closed",
    }
    fix = next((fix for known, fix in ways_out.items() if known in problem), "")
    return f"{problem} ({fix})" if fix else problem
