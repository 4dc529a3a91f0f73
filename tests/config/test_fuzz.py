"""Whatever a config says, it is accepted or refused with places: nothing else is ever raised."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor_d.config.loader import load_copy
from supervisor_d.errors import ConfigError, Problem

ROOT = Path(__file__).parents[2]
SEEDS = [
    re.sub(r"\s+#.*", "", (ROOT / "configs" / name).read_text(encoding="utf-8"))
    for name in ("full.yaml", "minimal.yaml", "sample.yaml")
]
WORDS = ["", "~", "no", "true", "x", "é", "x" * 300, "KILL", "TERM 1s, KILL", "30s", "64MiB", "4096d", "1000000TiB"]
NUMBERS = ["5", "-1", "0", "1.5", "007", "'5'", "999999999999999999999", "1e400"]
PLACES = ["/", "..", "~/x", "unix:", "unix:@a", ":0", "[::]:1", '"a\\0b"', "'\"'"]
SHAPES = ["[]", "{}", "[[]]", "[~]", "[1, [2]]", "{a: 1}", "{~: 1}", "[never]", "{when: []}", "{address: []}"]
OTHERS = ["{from_env: X}", "{from_env: ''}", "{exec: []}", "{exec: ''}", "{notify: true}", "*a", "!x y"]
VALUES = WORDS + NUMBERS + PLACES + SHAPES + OTHERS
TOKEN = re.compile(r"(?<=: )\S[^\n]*|(?<=- )\S[^\n]*|^ *\w+(?=:)", re.MULTILINE)


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A good config with some of its values, or keys, replaced by something odd."""
    text = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(1, 4))):
        tokens = list(TOKEN.finditer(text))
        token = draw(st.sampled_from(tokens))
        text = text[: token.start()] + draw(st.sampled_from(VALUES)) + text[token.end() :]
    return text


@settings(max_examples=300)
@given(mutated(), st.sampled_from([0, 65534]))
def test_a_mutated_config_is_taken_or_refused(text: str, euid: int) -> None:
    path = str(ROOT / "configs" / "mutated.yaml")
    for problem in _problems(path, text, euid):
        assert problem.line >= 1
        assert problem.column >= 1
        assert problem.key
        assert "\n" not in str(problem)


def _problems(path: str, text: str, euid: int) -> tuple[Problem, ...]:
    try:
        assert load_copy(path, {path: text}, environ={"HOME": "/"}, euid=euid).pools
    except ConfigError as error:
        return error.problems
    return ()


def test_the_mutations_reach_values_and_keys() -> None:
    found = {token[0].strip() for token in TOKEN.finditer(SEEDS[0])}
    assert {"127.0.0.1:9180", "gunicorn", "stop", "TERM 31s, QUIT 3s, KILL"} <= found


@pytest.mark.parametrize("seed", SEEDS, ids=["full", "minimal", "sample"])
def test_the_seeds_are_whole(seed: str) -> None:
    assert "program:" in seed
