"""A canary: whatever is wrong with a config, no value of `env` and of env files is ever shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor_d.config.diff import compare
from supervisor_d.config.nodes import Place
from supervisor_d.config.problems import Problems
from tests.config.support import PLAIN_USER, load_pool, load_text, problems_of

CANARY = "canary-hunter2"
POOL = "version: 1\npools:\n  web:\n    program: command\n    command: sleep 60\n    env:\n"


@pytest.mark.parametrize(
    "value",
    [
        f"[{CANARY}]",
        f"[[{CANARY}]]",
        f"{{{CANARY}: x}}",
        f"{{{CANARY}: {{{CANARY}: 1, {CANARY}: 2}}}}",
        f"{{from_env: {CANARY}, more: {CANARY}}}",
        f"{{from_env: [{CANARY}]}}",
        f"!{CANARY} x",
        f"!!{CANARY} x",
        f"*{CANARY}",
        f"&{CANARY}",
        f"'{CANARY}",
        f'"{CANARY}',
        f'"{CANARY}\\0"',
        f'"{CANARY}\\q"',
        f"{CANARY}: x",
        f"@{CANARY}",
        f"`{CANARY}",
        f"%{CANARY}",
        f"{{{CANARY}",
        f"[{CANARY}",
        f"|{CANARY}",
        f"- {CANARY}",
        f"? {CANARY}",
        f"\t{CANARY}\n\t{CANARY}",
        f"{CANARY}\n    stop: 5",
        f"{{007: {CANARY}}}",
        f"[007, {CANARY}]",
        f"{CANARY}\n      PASSWORD: {CANARY}",
        f"{CANARY}\x07",
    ],
)
def test_no_problem_shows_a_value(tmp_path: Path, value: str) -> None:
    found = problems_of(tmp_path, f"{POOL}      PASSWORD: {value}\n")
    assert found
    assert CANARY not in "\n".join(map(str, found))


@pytest.mark.parametrize("line", [f"PASSWORD {CANARY}", f"A='{CANARY}", f"A-B={CANARY}", f"A={CANARY}\0", CANARY])
def test_no_problem_shows_a_line_of_an_env_file(tmp_path: Path, line: str) -> None:
    (tmp_path / ".env").write_text(line)
    found = problems_of(tmp_path, POOL.replace("    env:\n", "    env_files: [.env]\n"))
    assert found
    assert CANARY not in "\n".join(map(str, found))


def test_no_change_shows_a_value(tmp_path: Path) -> None:
    command = "program: command\ncommand: sleep 60\n"
    old = load_pool(tmp_path, command + "env: {A: old-canary}")
    new = load_pool(tmp_path, command + "env: {A: {from_env: SECRET}}", environ={"SECRET": CANARY})
    assert "canary" not in str(compare({"web": old}, {"web": new}))


def test_a_config_does_not_show_its_texts(tmp_path: Path) -> None:
    config = load_text(tmp_path, f"# {CANARY}\n{POOL}      A: x\n", euid=PLAIN_USER)
    assert CANARY in "".join(config.texts.values())
    assert CANARY not in repr(config)


@given(st.text(alphabet=" \n[]{}:,-&*!|>'\"#%@`~?\t", max_size=12), st.text(alphabet=" \n[]{}:,-'\"#", max_size=6))
def test_whatever_stands_around_it(tmp_path_factory: pytest.TempPathFactory, before: str, after: str) -> None:
    text = f"{POOL}      PASSWORD: {before}{CANARY}{after}\n"
    path = Path("/nowhere")
    # A value that falls out of `env` by its indentation becomes a key of the pool: that is no value any more.
    if "\n" not in before:
        assert CANARY not in "\n".join(map(str, problems_of(path, text)))


def test_the_collector_tells_each_problem_once() -> None:
    problems = Problems()
    problems.take([Place("f").problem("a", "m"), Place("f").problem("b", "m")])
    assert len(problems) == 1
    assert problems


@pytest.mark.parametrize(
    "lease",
    [f"[{CANARY}]", f"{{url: {CANARY}}}", CANARY, f"redis:/{CANARY}", f"{{url: redis://{CANARY}, ttl: {CANARY}}}"],
)
def test_no_problem_shows_the_url_of_a_lease(tmp_path: Path, lease: str) -> None:
    found = problems_of(
        tmp_path, f"version: 1\npools:\n  beat:\n    program: celery-beat\n    app: shop\n    lease: {lease}\n"
    )
    assert found
    assert f"redis://{CANARY}" not in "\n".join(map(str, found))
    assert CANARY not in "\n".join(str(each) for each in found if "ttl" not in str(each))
