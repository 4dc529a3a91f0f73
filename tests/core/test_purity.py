"""The core is pure: it cannot reach a clock, a file, a socket, a process, an event loop, a log or a random number."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

import supervisor_d.core

ALLOWED = {
    "__future__", "collections", "collections.abc", "dataclasses", "decimal", "enum", "itertools", "re", "typing",
    "zlib",
}  # fmt: skip
MODULES = sorted(f"supervisor_d.core.{found.name}" for found in pkgutil.iter_modules(supervisor_d.core.__path__))


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_nothing_that_could_have_an_effect(name: str) -> None:
    module = importlib.import_module(name)
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    imported = {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    imported |= {alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
    foreign = {m for m in imported if not m.startswith(("supervisor_d.core", "supervisor_d.errors"))}
    assert foreign <= ALLOWED
