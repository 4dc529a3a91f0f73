"""docs/metrics.md lists exactly the metrics that exist."""

from __future__ import annotations

from pathlib import Path

from supervisor_d.core.work import OUTCOMES
from supervisor_d.metrics.families import (
    EXIT_KINDS,
    FAMILIES,
    MAIN_EXIT_KINDS,
    RESTART_REASONS,
    ROLLOUT_VERDICTS,
    STATES,
    Family,
)

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")


def row(family: Family) -> str:
    labels = ", ".join(f"`{label}`" for label in family.labels)
    return f"| `{family.name}` | {family.kind} | {labels} | {family.help} |"


def test_the_table_is_the_code() -> None:
    documented = [line for line in PAGE.splitlines() if line.startswith("| `supervisor_daemon_")]
    assert documented == [row(family) for family in FAMILIES]


def test_every_word_of_a_label_is_explained() -> None:
    for words in (EXIT_KINDS, MAIN_EXIT_KINDS, RESTART_REASONS, ROLLOUT_VERDICTS, STATES, OUTCOMES):
        assert [word for word in words if f"`{word}`" not in PAGE] == []
