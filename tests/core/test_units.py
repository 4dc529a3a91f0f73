from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor_d.core.units import (
    MAX_DURATION_SECONDS,
    MAX_SIZE_BYTES,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("30s", 30), ("1m30s", 90), ("2h", 7200), ("1d", 86400), ("1.5s", 1.5), ("0s", 0), (" 1s ", 1)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("30", "give a unit: 30s"),
        ("1.5", "give a unit: 1.5s"),
        ("", "is not a duration"),
        ("s" * 65, "is not a duration"),
        ("30 s", "'30 s' is not a duration"),
        ("-1s", "is not a duration"),
        ("30S", "is not a duration"),
        ("٣s", "is not a duration"),
        ("30s1m", "out of order"),
        ("1s1s", "out of order"),
        ("367d", "longer than 366 days"),
    ],
)
def test_what_is_no_duration(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("64MiB", 64 * 2**20),
        ("10MB", 10**7),
        ("512KiB", 2**19),
        ("100B", 100),
        ("1.5GiB", 3 * 2**29),
        ("1 kB", 1000),
        ("1TiB", 2**40),
        ("0B", 0),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("64", "give a unit: 64MiB, 64KiB or 64B"),
        ("", "is not a size"),
        ("1" * 65, "is not a size"),
        ("-1B", "is not a size"),
        ("64M", "did you mean 64MiB"),
        ("64mb", "did you mean 64MB"),
        ("64x", "no known unit"),
        ("1.5B", "not a whole number of bytes"),
        ("2000000TB", "more than"),
    ],
)
def test_what_is_no_size(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_size(text)


def test_an_unknown_unit_far_from_all_gets_no_suggestion() -> None:
    with pytest.raises(ValueError, match="no known unit") as raised:
        parse_size("64x")
    assert "did you mean" not in str(raised.value)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(90, "1m30s"), (0.25, "250ms"), (0, "0s"), (0.0001, "0s"), (86400, "1d"), (-1.5, "-1s500ms"), (3600.001, "1h1ms")],
)
def test_formatted_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"), [(2**26, "64MiB"), (10**7, "10MB"), (1025, "1025B"), (0, "0B"), (1536, "1536B"), (2**40, "1TiB")]
)
def test_formatted_sizes(size: int, text: str) -> None:
    assert format_size(size) == text


@given(st.integers(0, int(MAX_DURATION_SECONDS * 1000)))
def test_a_formatted_duration_reads_back(milliseconds: int) -> None:
    assert round(parse_duration(format_duration(milliseconds / 1000)) * 1000) == milliseconds


@given(st.integers(0, MAX_SIZE_BYTES))
def test_a_formatted_size_reads_back(size: int) -> None:
    assert parse_size(format_size(size)) == size


@given(st.text(max_size=80))
def test_nothing_but_value_error(text: str) -> None:
    for parse in (parse_duration, parse_size):
        with suppress(ValueError):
            assert parse(text) >= 0
