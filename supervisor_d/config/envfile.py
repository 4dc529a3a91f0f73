r"""Files of `NAME=value` lines.

    # a comment
    DEBUG=0                   # a comment after a blank
    export SECRET='as it is, with $ and "'
    GREETING="two\nlines"     escapes: \n \r \t \" \\ \$

Nothing is expanded.  Problems name the file and the line, never a value.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from supervisor_d.config.nodes import Place
from supervisor_d.errors import Problem

MAX_ENV_FILE_BYTES = 1024 * 1024
MAX_PROBLEMS_OF_FILE = 20
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)

_LINE = re.compile(r"(?:export[ \t]+)?([^\s=]+)[ \t]*=[ \t]*(.*)", re.DOTALL)
_SINGLE = re.compile(r"'([^']*)'[ \t]*(?:#.*)?")
_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)"[ \t]*(?:#.*)?')
_COMMENT = re.compile(r"(?:^|[ \t]+)#.*")
_ESCAPE = re.compile(r"\\(.)")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


@dataclass(frozen=True, slots=True)
class EnvFile:
    """What one file says; `digest` stands for its contents."""

    values: Mapping[str, str]
    problems: tuple[Problem, ...]
    digest: str


def parse_env_file(data: bytes, path: str, key: str) -> EnvFile:
    """The variables of a file.  Raises nothing: problems are in the result, under the config's `key`."""
    digest = hashlib.sha256(data).hexdigest()
    if len(data) > MAX_ENV_FILE_BYTES:
        too_large = f"is larger than {MAX_ENV_FILE_BYTES // 1024} KiB"
        return EnvFile({}, (Place(path).problem(key, too_large),), digest)
    values: dict[str, str] = {}
    problems: list[Problem] = []
    for number, line in enumerate(data.split(b"\n"), start=1):
        try:
            values |= _variable(line.decode("utf-8-sig" if number == 1 else "utf-8").strip())
        except UnicodeDecodeError:
            problems.append(Place(path, number).problem(key, "is not UTF-8"))
        except ValueError as error:
            problems.append(Place(path, number).problem(key, str(error)))
    return EnvFile(values, tuple(problems[:MAX_PROBLEMS_OF_FILE]), digest)


def _variable(line: str) -> dict[str, str]:
    """The variable of a line; none for an empty line or a comment."""
    if not line or line.startswith("#"):
        return {}
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError("is not NAME=value")
    name, rest = match.groups()
    if not NAME.fullmatch(name):
        raise ValueError("the name before = may have letters, digits and _ only")
    value = _value(rest)
    if "\0" in value:
        raise ValueError("holds a NUL character")
    return {name: value}


def _value(text: str) -> str:
    if text.startswith("'"):
        match = _SINGLE.fullmatch(text)
        if match is None:
            raise ValueError("a quotation is not closed, or something follows it")
        return match[1]
    if text.startswith('"'):
        match = _DOUBLE.fullmatch(text)
        if match is None:
            raise ValueError("a quotation is not closed, or something follows it")
        return _ESCAPE.sub(lambda found: _ESCAPES.get(found[1], found[1]), match[1])
    return _COMMENT.sub("", text)
