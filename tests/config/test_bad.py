"""Every file in bad/ is wrong in its own way, and says in its first lines what must be found, and where:

# euid: 0                                        the daemon's user, where it matters
# expect: LINE:COLUMN: KEY: words of the message
# expect: FILE:LINE:COLUMN: KEY: words            for a problem in another file
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from supervisor_d.config.loader import load_copy
from supervisor_d.errors import ConfigError, Problem

BAD = Path(__file__).parent / "bad"
FILES = sorted(BAD.glob("*.yaml"))
EXPECT = re.compile(r"# expect: (?:([^:\s]+):)?(\d+):(\d+): (\S+): (.*)")
EUID = re.compile(r"# euid: (\d+)")


@dataclass(frozen=True, slots=True)
class Expected:
    path: str
    line: int
    column: int
    key: str
    words: str

    def fits(self, problem: Problem) -> bool:
        place = (problem.path, problem.line, problem.column, problem.key)
        return place == (self.path, self.line, self.column, self.key) and self.words in problem.message


def _expected(file: Path, text: str) -> list[Expected]:
    return [
        Expected(str(BAD / other) if other else str(file), int(line), int(column), key, words)
        for other, line, column, key, words in EXPECT.findall(text)
    ]


def test_there_are_at_least_fifty_that_are_wrong_for_anyone() -> None:
    for_anyone = [file for file in FILES if not EUID.search(file.read_text(encoding="utf-8"))]
    assert len(for_anyone) >= 50


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_bad_config(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    expected = _expected(file, text)
    euid = int(found[1]) if (found := EUID.search(text)) else 65534
    assert expected, "the file does not say what is wrong with it"
    with pytest.raises(ConfigError) as raised:
        load_copy(file, {str(file): text}, environ={}, euid=euid)
    problems = raised.value.problems
    assert len(problems) == len(expected), str(raised.value)
    for problem, wanted in zip(problems, expected, strict=True):
        assert wanted.fits(problem), f"{problem}\n  is not\n{wanted}"
    assert raised.value.exit_code == 78
