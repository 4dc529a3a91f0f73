"""The layers hold, each contract can fail, and the declared dependencies are the ones that are imported."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGE = ROOT / "supervisor_d"


def lint_imports(directory: Path) -> str:
    """The report of import-linter on a copy of the package; one line per contract."""
    argv = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"]
    done = subprocess.run(argv, cwd=directory, capture_output=True, text=True, timeout=120, check=False)
    return done.stdout + done.stderr


def verdicts(report: str) -> dict[str, str]:
    return dict(re.findall(r"^(.+?) (KEPT|BROKEN)\b", report, re.MULTILINE))


def contract_names() -> dict[str, str]:
    return {each["id"]: each["name"] for each in PROJECT["tool"]["importlinter"]["contracts"]}


def test_every_contract_is_kept() -> None:
    report = lint_imports(ROOT)
    assert verdicts(report) == dict.fromkeys(contract_names().values(), "KEPT"), report


@pytest.mark.parametrize(
    ("contract", "module", "line"),
    [
        ("layers", "core/units.py", "import supervisor_d.runtime"),
        ("pure-core", "core/plan.py", "import time"),
        ("shim-alone", "shim/wire.py", "import msgspec"),
        ("agents-alone", "agents/__init__.py", "import supervisor_d.shim"),
        ("runtime-shim", "runtime/host.py", "import supervisor_d.shim.tree"),
        ("views", "metrics/collector.py", "import supervisor_d.core.plan"),
        ("config", "config/schema.py", "import supervisor_d.core.observed"),
        ("cli", "cli/commands/status.py", "import supervisor_d.daemon"),
    ],
)
def test_each_contract_can_fail(tmp_path: Path, contract: str, module: str, line: str) -> None:
    shutil.copytree(PACKAGE, tmp_path / "supervisor_d", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    spoilt = tmp_path / "supervisor_d" / module
    spoilt.write_text(f"{spoilt.read_text(encoding='utf-8')}\n{line}\n", encoding="utf-8")
    assert verdicts(lint_imports(tmp_path))[contract_names()[contract]] == "BROKEN"


def test_a_contract_without_a_failing_example_is_an_error() -> None:
    marks = test_each_contract_can_fail.pytestmark  # type: ignore[attr-defined]
    assert {case[0] for case in marks[0].args[1]} == set(contract_names())


def imported_packages(directory: Path) -> set[str]:
    """The top-level names of all that a directory imports, at the top of a module or inside a function."""
    names: set[str] = set()
    for path in directory.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    return names - {"supervisor_d"}


def normalised(distribution: str) -> str:
    """A distribution's name as the packaging specification compares it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def test_the_declared_dependencies_are_the_imported_ones() -> None:
    declared = {normalised(re.split(r"[<>=\[ ]", text)[0]) for text in PROJECT["project"]["dependencies"]}
    providers = packages_distributions()
    foreign = imported_packages(PACKAGE) - set(sys.stdlib_module_names) - imported_by_agents_only()
    foreign -= {"pydantic_core"}  # pydantic's other half: it pins its exact version
    assert {normalised(name) for package in foreign for name in providers[package]} == declared


def imported_by_agents_only() -> set[str]:
    """Agents run inside the user's own processes, and find there what they import."""
    return imported_packages(PACKAGE / "agents") - set(sys.stdlib_module_names)


def test_the_shim_imports_the_standard_library_only() -> None:
    assert imported_packages(PACKAGE / "shim") - set(sys.stdlib_module_names) == set()
