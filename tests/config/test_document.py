from __future__ import annotations

import time
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from supervisor_d.config import document
from supervisor_d.config.document import MAX_NODES, MAX_PROBLEMS, MAX_TEXT_BYTES, parse
from supervisor_d.config.nodes import Mapping, Scalar, Sequence, Spot, WrittenInt, key_text, plain


def read(text: str) -> Any:
    found = parse(text, "f.yaml")
    assert found.root is not None
    assert found.problems == []
    return plain(found.root)


def told(text: str) -> list[str]:
    return [str(problem) for problem in parse(text, "f.yaml").problems]


def test_values_and_places() -> None:
    found = parse("a: 1\nb:\n  - x\n  - {c: 'd e'}\n", "f.yaml")
    assert isinstance(found.root, Mapping)
    spot = Spot(found.root.place, found.root, ()).find(["b", 1, "c"])
    assert (spot.node.place.line, spot.node.place.column) == (4, 9)
    assert (spot.place.line, spot.place.column) == (4, 6)
    assert plain(found.root) == {"a": 1, "b": ["x", {"c": "d e"}]}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("-5", -5),
        ("0x1F", 31),
        ("0o17", 15),
        ("1.5", 1.5),
        (".5e1", 5.0),
        ("true", True),
        ("No", False),
        ("on", True),
        ("~", None),
        ("", None),
        ("null", None),
        ("'5'", "5"),
        ('"no"', "no"),
        ("! no", "no"),
        ("!!str 5", "5"),
        ("!!int 5", 5),
        ("12:30", "12:30"),
        ("2026-01-01", "2026-01-01"),
        ("1_000", "1_000"),
        (".inf", ".inf"),
        ("1" * 41, "1" * 41),
        ("|\n  two\n  lines", "two\nlines"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    assert read(f"a: {text}") == {"a": value}
    assert type(read(f"a: {text}")["a"]) is type(value) or isinstance(value, int | float)


def test_numbers_remember_how_they_were_written() -> None:
    number = read("a: 0x1F")["a"]
    assert isinstance(number, WrittenInt)
    assert number.raw == "0x1F"


def test_aliases_are_the_same_value() -> None:
    assert read("a: &x {b: 1}\nc: *x\nd: [*x, *x]") == {"a": {"b": 1}, "c": {"b": 1}, "d": [{"b": 1}, {"b": 1}]}


def test_an_alias_may_be_a_key() -> None:
    assert read("a: &x k\nb: {*x : 1}") == {"a": "k", "b": {"k": 1}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "f.yaml:1:1: file: is empty"),
        ("# only this\n", "f.yaml:1:1: file: is empty"),
        ("a: 1\na: 2", "f.yaml:2:1: a: stands twice: first in line 1, column 1"),
        ("a: {b: 1, b: 2}", "f.yaml:1:11: a.b: stands twice: first in line 1, column 5"),
        ("a: !!python/name:os.system x", "f.yaml:1:4: a: tags are refused"),
        ("a: !!set {x}", "f.yaml:1:4: a: tags are refused"),
        ("a: !!map [x]", "f.yaml:1:4: a: tags are refused"),
        ("a: !!int x", "f.yaml:1:4: a: is no int, as its tag says"),
        ("a: [1, 007]", "f.yaml:1:8: a[1]: a leading zero"),
        ("a: *b", "f.yaml:1:4: a: an alias has no anchor"),
        ("a: &a [*a]", "f.yaml:1:8: a[0]: an alias holds itself"),
        ("a: 1\n---\nb: 1", "f.yaml:2:1: file: holds a second document"),
        ("a: {<<: {b: 1}}", "f.yaml:1:5: a.<<: merge keys"),
        ("? [a]\n: 1", "f.yaml:1:3: file: a key must be a word"),
        ("{~: 1}", "f.yaml:1:2: file: a key must be a word"),
        ("a:\n\tb: 1", "f.yaml:2:1: file: a tab may not indent"),
        ("a:\n  \tb: 1", "f.yaml:2:3: file: a tab may not indent"),
        ("a: \x07", "f.yaml:1:4: file: holds a control character"),
        ("a: 1\nb: \ud800", "f.yaml:2:4: file: holds a control character"),
        ("a: b: c", "f.yaml:1:5: file: is not YAML: mapping values are not allowed"),
        ("a: 'x", "f.yaml:1:6: file: is not YAML: found unexpected end of stream"),
        ("%YAML 9.9\n---\na: 1", "f.yaml:1:1: file: is not YAML"),
        ("[" * 40, "f.yaml:1:33: [0]"),
    ],
)
def test_what_is_refused(text: str, expected: str) -> None:
    assert told(text)[0].startswith(expected)


def test_all_that_can_be_told_is_told_at_once() -> None:
    assert len(told("a: 1\na: 2\nb: !x y\nc: 01\n")) == 3


def test_problems_have_a_bound() -> None:
    assert len(told("\n".join(f"- 0{number}" for number in range(5000)))) == MAX_PROBLEMS
    assert len(told("\t\n" * 5000)) == MAX_PROBLEMS


def test_a_merge_key_in_quotes_is_a_key() -> None:
    assert read("{'<<': 1}") == {"<<": 1}


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (bomb(30), "too large with its aliases"),
        (f"a: &a {'x' * 500_000}\nb: [{', '.join(['*a'] * 10)}]", "too large with its aliases"),
        ("- " * 400_000, "nested deeper"),
        ("[" * 400_000, "nested deeper"),
        ("{a: " * 200_000, "nested deeper"),
        ("x" * (MAX_TEXT_BYTES + 1), "larger than"),
        ("é" * (MAX_TEXT_BYTES // 2 + 1), "larger than"),
    ],
)
def test_hostile_texts_cost_nothing(text: str, words: str) -> None:
    began = time.process_time()
    found = told(text)
    assert words in found[-1]
    assert time.process_time() - began < 0.05


def test_aliases_may_be_deep_only_together() -> None:
    nest = "{a: " * 20 + "1" + "}" * 20
    assert "nested deeper" in told(f"a: &a {nest}\nb: {'[' * 20}*a{']' * 20}")[0]


def test_many_values_are_refused() -> None:
    assert "too large" in told("a: [" + ",".join("1" for _ in range(MAX_NODES)) + "]")[0]


def test_without_libyaml_the_same_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "a: [1, no, 'x', ! y]\nb: &b {c: |\n    d\n  }\n"
    quick = parse("a: [1, no, 'x', ! y]\nb: &b {c: d}\n", "f")
    monkeypatch.setattr(document, "_LOADER", yaml.SafeLoader)
    slow = parse("a: [1, no, 'x', ! y]\nb: &b {c: d}\n", "f")
    assert slow == quick
    assert parse(text, "f").problems[0].message.startswith("is not YAML")
    assert told("a: \x07")
    assert told("a: b: c")


def test_keys_below_a_variable_are_left_out() -> None:
    assert key_text(["pools", "web", "env", "A", "hunter2", 0]) == "pools.web.env.A"
    assert key_text(["pools", "web", "ready", 0, "http"]) == "pools.web.ready[0].http"
    assert key_text([]) == "file"


def test_keys_in_messages_are_one_printable_line() -> None:
    assert key_text(["a\x1b[31m\nb"]) == "a?[31m?b"
    assert len(key_text(["x" * 500])) < 210


def test_nothing_of_a_value_is_quoted() -> None:
    for value in ("!hunter2 x", "*hunter2", "!!hunter2", "'hunter2", "[hunter2", "{hunter2", "@hunter2"):
        assert "hunter2" not in "\n".join(told(f"P: {value}")), value


STRUCTURE = [": ", ":", "- ", "? ", "[", "]", "{", "}", ", ", "\n", "\n  ", "\n    ", "#", "%", "---\n", "...\n"]
VALUES = ["a", "b", "&x ", "*x", "!!str ", "!!python/x ", "!", "'", '"', "|", ">", "<<", "~", "no", "007", "1e9"]
ODD = ["\t", "\x00", "\ufeff", "\u2028", "\x85", "é", "\ud800"]
YAML_BITS = st.sampled_from(STRUCTURE + VALUES + ODD)
SCALARS = st.one_of(st.text(), st.integers(), st.booleans(), st.none())
TREES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(min_size=1), inner, max_size=4)),
    max_leaves=20,
)


@given(st.one_of(st.text(), st.lists(YAML_BITS, max_size=40).map("".join)))
@example("? ")
@example("&x")
@example("- - - a\n- b: c")
def test_no_text_raises(text: str) -> None:
    found = parse(text, "f.yaml")
    assert found.root is not None or found.problems
    for problem in found.problems:
        assert problem.line >= 1
        assert problem.column >= 1
        assert "\n" not in str(problem)
    if found.root is not None:
        assert isinstance(found.root, Mapping | Sequence | Scalar)
        plain(found.root)


@given(TREES)
def test_what_is_dumped_reads_back(value: Any) -> None:
    text = yaml.safe_dump({"value": value})
    found = parse(text, "f.yaml")
    if not found.problems:
        assert found.root is not None
        assert plain(found.root) == {"value": value}
