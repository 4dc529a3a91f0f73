"""The rules that tests/conftest.py sets for all tests, shown on suites of one test."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

RULES = {"CI", "SUPERVISOR_D_NO_SKIP", "SUPERVISOR_D_SEED", "HYPOTHESIS_PROFILE", "PYTEST_ADDOPTS"}

SKIPPED_TEST = "import pytest\n\n@pytest.mark.skip(reason='no moon tonight')\ndef test_it(): pass\n"
SKIPPED_INSIDE = "import pytest\n\ndef test_it():\n    pytest.skip('no moon tonight')\n"
SKIPPED_MODULE = "import pytest\n\npytest.skip('no moon tonight', allow_module_level=True)\n"
ALLOWED_SKIP = (
    "import pytest\n\n@pytest.mark.skip_allowed('there is no moon in CI')\n"
    "@pytest.mark.skip(reason='no moon tonight')\ndef test_it(): pass\n"
)
EXPECTED_FAILURE = "import pytest\n\n@pytest.mark.xfail(reason='a known bug')\ndef test_it(): assert False\n"
RANDOM_NUMBER = "import random\n\ndef test_it():\n    print(f'<{random.random()}>')\n"


def run_suite(directory: Path, text: str, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run one test file under the project's conftest and options, from a copy in a directory of its own."""
    tests = directory / "tests"
    tests.mkdir(exist_ok=True)
    (directory / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    (tests / "conftest.py").write_bytes((ROOT / "tests" / "conftest.py").read_bytes())
    (tests / "test_one.py").write_text(text)
    inherited = {key: value for key, value in os.environ.items() if key not in RULES}
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:cov", *options]
    return subprocess.run(
        argv, cwd=directory, env={**inherited, **variables}, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("text", [SKIPPED_TEST, SKIPPED_INSIDE, SKIPPED_MODULE])
@pytest.mark.parametrize("variables", [{"CI": "true"}, {"SUPERVISOR_D_NO_SKIP": "1"}])
def test_a_skip_is_a_failure_where_nothing_may_be_skipped(tmp_path: Path, text: str, variables: dict[str, str]) -> None:
    done = run_suite(tmp_path, text, **variables)
    assert done.returncode != 0
    assert "nothing may be skipped" in done.stdout
    assert "no moon tonight" in done.stdout


@pytest.mark.parametrize("text", [SKIPPED_TEST, SKIPPED_INSIDE])
def test_a_skip_is_a_skip_on_a_developers_machine(tmp_path: Path, text: str) -> None:
    done = run_suite(tmp_path, text)
    assert done.returncode == 0
    assert "1 skipped" in done.stdout


@pytest.mark.parametrize("text", [ALLOWED_SKIP, EXPECTED_FAILURE])
def test_allowed_skips_and_expected_failures_pass_in_ci(tmp_path: Path, text: str) -> None:
    assert run_suite(tmp_path, text, CI="true").returncode == 0


def test_a_run_prints_its_seed_and_can_be_replayed(tmp_path: Path) -> None:
    first = run_suite(tmp_path, RANDOM_NUMBER, "-s").stdout
    seed = re.search(r"^seed: (\d+)", first, re.MULTILINE)
    assert seed is not None
    again = run_suite(tmp_path, RANDOM_NUMBER, "-s", f"--hypothesis-seed={seed[1]}").stdout
    by_variable = run_suite(tmp_path, RANDOM_NUMBER, "-rP", "-n", "2", SUPERVISOR_D_SEED=seed[1]).stdout
    other = run_suite(tmp_path, RANDOM_NUMBER, "-s", "--hypothesis-seed=1").stdout
    numbers = [re.findall(r"<([\d.]+)>", text) for text in (first, again, by_variable, other)]
    assert numbers[0] == numbers[1] == numbers[2] != numbers[3]
