"""What the vocabulary itself decides."""

from __future__ import annotations

from supervisor_d.core.spec import nothing_seen


def test_a_version_that_cannot_be_seen() -> None:
    assert nothing_seen("gunicorn") == ""
