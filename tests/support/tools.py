"""Programs of other people that tests call: found in the PATH or beside the interpreter, else the test is skipped."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest


def tool(name: str, hint: str) -> str:
    """The path of a program; skips the calling test, with `hint`, when it is nowhere."""
    places = os.pathsep.join([str(Path(sys.prefix) / "bin"), os.environ.get("PATH", os.defpath)])
    found = shutil.which(name, path=places)
    if found is None:
        pytest.skip(f"no {name}: {hint}")
    return found


def promtool() -> str:
    """Prometheus's own checker of expositions."""
    return tool("promtool", "scripts/ensure-tools or `apt install prometheus` brings it")
