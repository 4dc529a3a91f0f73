from __future__ import annotations

import pytest

from supervisor_d.core.memory import why_short

MIB = 2**20


@pytest.mark.parametrize(("used", "available"), [(0, 0), (900, 1000), (100, 10_000)])
def test_enough(used: int, available: int) -> None:
    assert why_short(used * MIB, available * MIB) == ""


def test_short_and_by_how_much() -> None:
    assert why_short(1200 * MIB, 1024 * MIB) == "a second generation would need about 1200MiB, and 1GiB are available"
    assert why_short(901 * MIB + 5, 1000 * MIB) != ""
