"""Other editions of this project, each installed in a virtual environment of its own: what an upgrade goes to.

An edition is a copy of the package, with another version or a fault; what it depends on comes from the environment
that runs the tests.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Edition:
    """A copy of the package with a python that imports it."""

    def __init__(self, directory: Path, version: str) -> None:
        argv = [sys.executable, "-m", "venv", "--without-pip", str(directory)]
        subprocess.run(argv, check=True, timeout=60, stdin=subprocess.DEVNULL)
        self.python = directory / "bin" / "python"
        name = f"python{sys.version_info.major}.{sys.version_info.minor}"
        site = directory / "lib" / name / "site-packages"
        self.package = site / "supervisor_d"
        shutil.copytree(ROOT / "supervisor_d", self.package, ignore=shutil.ignore_patterns("__pycache__"))
        (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
        self.edit("__init__.py", f'\n__version__ = "{version}"\n')

    def edit(self, module: str, more: str) -> None:
        """Append lines to a module of the package."""
        path = self.package / module
        path.write_text(path.read_text() + more)

    def replace(self, module: str, old: str, new: str) -> None:
        """Replace what stands in a module."""
        path = self.package / module
        text = path.read_text()
        assert old in text, f"{module} does not say {old!r}"
        path.write_text(text.replace(old, new))
