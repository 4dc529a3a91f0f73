"""The files of a config, read."""

from __future__ import annotations

from pathlib import Path

from supervisor_d.config.machine import Machine
from supervisor_d.config.nodes import Place
from supervisor_d.config.problems import Problems

MAX_FILES = 200


def read_texts(path: Path, machine: Machine, problems: Problems) -> dict[str, str]:
    """The text of a file, or of each `*.yaml` and `*.yml` of a directory, in the order of their names."""
    texts: dict[str, str] = {}
    for file in _files(path, problems):
        _read(file, machine, problems, texts)
    return texts


def _files(path: Path, problems: Problems) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(
        file for file in path.iterdir() if file.suffix in (".yaml", ".yml") and not file.name.startswith(".")
    )
    if not found or len(found) > MAX_FILES:
        amount = f"more than {MAX_FILES} files" if found else "no file"
        problems.take([Place(str(path)).problem("file", f"the directory has {amount} named *.yaml or *.yml")])
    return found[:MAX_FILES]


def _read(file: Path, machine: Machine, problems: Problems, texts: dict[str, str]) -> None:
    try:
        data = machine.read(file)
        texts[str(file)] = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        column = error.start - error.object.rfind(b"\n", 0, error.start)
        problems.take([Place(str(file), line, column).problem("file", "is not UTF-8")])
    except ValueError as error:
        problems.take([Place(str(file)).problem("file", str(error))])
