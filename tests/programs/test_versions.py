"""Versions are compared by their numbers; what is not known is not older."""

from __future__ import annotations

import pytest

from supervisor_d.programs.versions import older


@pytest.mark.parametrize(
    ("version", "than", "answer"),
    [
        ("25.2.9", "25.3", True),
        ("25.3", "25.3.0", False),
        ("25.3.0", "25.3", False),
        ("9.9", "25.3", True),
        ("27.0.0", "27.0.1", True),
        ("27.0.1", "27.0.1", False),
        ("27.0.1.dev3", "27.0.1", False),
        ("28.0", "27.0.1", False),
        ("", "27.0.1", False),
        ("unknown", "27.0.1", False),
    ],
)
def test_older(version: str, than: str, answer: bool) -> None:
    assert older(version, than) is answer
