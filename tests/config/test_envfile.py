from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor_d.config.envfile import MAX_ENV_FILE_BYTES, MAX_PROBLEMS_OF_FILE, parse_env_file


def values(text: str) -> dict[str, str]:
    found = parse_env_file(text.encode(), "a.env", "pools.web.env_files")
    assert found.problems == ()
    return dict(found.values)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=b", "b"),
        ("A=", ""),
        ("export A=b", "b"),
        ("  A = b ", "b"),
        ("A=b c", "b c"),
        ("A=b # comment", "b"),
        ("A=b#c", "b#c"),
        ("A=#c", ""),
        ("A=a=b", "a=b"),
        ("A='b # c'", "b # c"),
        ("A='b' # c", "b"),
        (r"A='b\n'", r"b\n"),
        (r'A="b\n\t\r\"\\\$c"', 'b\n\t\r"\\$c'),
        ('A="b # c" # d', "b # c"),
        ("A=$HOME", "$HOME"),
        ('A=""', ""),
        ("A=it's", "it's"),
    ],
)
def test_lines(line: str, value: str) -> None:
    assert values(line) == {"A": value}


def test_comments_empty_lines_and_the_last_one_wins() -> None:
    assert values("\ufeff# c\n\n  # d\r\nA=1\r\nB=2\nA=3") == {"A": "3", "B": "2"}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("PASSWORD hunter2", "is not NAME=value"),
        ("1A=hunter2", "may have letters"),
        ("A-B=hunter2", "may have letters"),
        ("=hunter2", "is not NAME=value"),
        ("A='hunter2", "a quotation is not closed"),
        ('A="hunter2', "a quotation is not closed"),
        ('A="hunter2"x', "a quotation is not closed"),
        ("A='hunter2'x", "a quotation is not closed"),
        ("A=hunter2\0", "NUL"),
        ("A=hunter2\udcff", "is not UTF-8"),
    ],
)
def test_wrong_lines_are_told_by_number_and_never_quoted(line: str, words: str) -> None:
    found = parse_env_file(f"GOOD=1\n{line}\nALSO=2".encode(errors="surrogateescape"), "a.env", "pools.web.env_files")
    assert [(problem.path, problem.line, problem.key) for problem in found.problems] == [
        ("a.env", 2, "pools.web.env_files")
    ]
    assert words in found.problems[0].message
    assert "hunter2" not in str(found.problems[0])
    assert found.values == {"GOOD": "1", "ALSO": "2"}


def test_bounds() -> None:
    assert "larger than" in parse_env_file(b"#" * (MAX_ENV_FILE_BYTES + 1), "a", "k").problems[0].message
    assert len(parse_env_file(b"x\n" * 1000, "a", "k").problems) == MAX_PROBLEMS_OF_FILE


@given(st.binary())
def test_no_bytes_raise(data: bytes) -> None:
    found = parse_env_file(data, "a.env", "k")
    assert all("\0" not in value for value in found.values.values())


@given(st.text().filter(lambda text: "\0" not in text and "\n" not in text))
def test_a_quoted_value_reads_back(value: str) -> None:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    if not any(0xD800 <= ord(character) <= 0xDFFF for character in value):
        assert values(f'A="{escaped}"') == {"A": value}
