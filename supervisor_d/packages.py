"""Which version of a distribution an interpreter would import: found in its directories, without running it.

A virtual environment is known by the pyvenv.cfg beside its `bin` (site.py of the standard library).  Where it includes
the system's packages, and for an interpreter that is in none, the directories of CPython and of Debian are looked
through as well.  Only names are read: a `gunicorn-27.0.1.dist-info` says all (the packaging specification of recorded
projects).  What cannot be seen so (PYTHONPATH, an editable install elsewhere, a zip) is not known, and nothing more.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

MAX_ENTRIES = 20_000
MAX_DIRECTORIES = 16
MAX_CONFIG_BYTES = 64 * 1024

_SEPARATORS = re.compile(r"[-_.]+")
_LIBRARIES = ("lib", "lib64", "local/lib")
_PACKAGES = ("site-packages", "dist-packages")


def installed_version(python: str, distribution: str) -> str:
    """The version of `distribution` that `python` has (empty: the interpreter that runs this), or an empty string."""
    wanted = _normal(distribution)
    for directory in islice(_directories(Path(python or sys.executable)), MAX_DIRECTORIES):
        if version := _version_in(directory, wanted):
            return version
    return ""


def _directories(python: Path) -> Iterator[Path]:
    """Where an interpreter imports packages from, its own first."""
    prefix = python.parent.parent
    config = _config(prefix)
    if config is None:
        python = Path(os.path.realpath(python))
        yield from _below(python.parent.parent, python.name)
        return
    yield from _below(prefix, "python3")
    if config.get("include-system-site-packages") == "true" and (home := config.get("home")):
        yield from _below(Path(home).parent, f"python{'.'.join(config.get('version', '').split('.')[:2])}")


def _config(prefix: Path) -> dict[str, str] | None:
    """What pyvenv.cfg says; None where there is none."""
    try:
        with (prefix / "pyvenv.cfg").open(encoding="utf-8", errors="replace") as file:
            lines = file.read(MAX_CONFIG_BYTES).splitlines()
    except OSError:
        return None
    pairs = (line.partition("=") for line in lines)
    return {key.strip().lower(): value.strip() for key, _, value in pairs}


def _below(prefix: Path, name: str) -> Iterator[Path]:
    """The package directories of `python3.11` below a prefix; of every version where the name does not say which."""
    pattern = name if re.fullmatch(r"python3\.[0-9]+", name) else "python3*"
    for library in _LIBRARIES:
        for found in sorted((prefix / library).glob(pattern)):
            yield from (found / packages for packages in _PACKAGES)
    yield prefix / "lib/python3/dist-packages"


def _version_in(directory: Path, wanted: str) -> str:
    try:
        with os.scandir(directory) as entries:
            names = [entry.name for entry in islice(entries, MAX_ENTRIES) if entry.name.endswith(".dist-info")]
    except OSError:
        return ""
    pairs = (name.removesuffix(".dist-info").rpartition("-") for name in names)
    return next((version for found, _, version in pairs if _normal(found) == wanted), "")


def _normal(name: str) -> str:
    """A name as the index compares it."""
    return _SEPARATORS.sub("-", name).lower()
