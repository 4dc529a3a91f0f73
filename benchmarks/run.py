"""Run all measures and print the table: `make bench`, or `python -m benchmarks.run [FILE.md]` to write it as well."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import measures
from benchmarks.measures import Row

MEASURES: tuple[Callable[[], Row | list[Row]], ...] = (
    measures.crash_to_restart,
    measures.kill_lateness,
    measures.start_and_stop,
    measures.crowd,
    measures.log_rate,
)


MARKER = "<!-- measured -->"
"""In a page: the table stands behind it."""


def table(rows: Iterable[Row]) -> str:
    """The rows as Markdown."""
    lines = ["| measure | supervisor-d | floor | ratio | goal |", "|---|---:|---:|---:|---|"]
    for row in rows:
        unit = f" {row.unit}" if row.unit else ""
        floor = "" if row.floor is None else f"{row.floor:.2f}{unit}"
        ratio = "" if not row.floor else f"{row.ours / row.floor:.2f}"
        lines.append(f"| {row.what} | {row.ours:.2f}{unit} | {floor} | {ratio} | {row.goal} |")
    return "\n".join(lines)


def _write(page: Path, text: str) -> None:
    """Put the table behind the page's marker; a page without one becomes the table."""
    head, found, _ = page.read_text(encoding="utf-8").partition(MARKER) if page.exists() else ("", "", "")
    page.write_text(f"{head}{MARKER}\n\n{text}" if found else text, encoding="utf-8")


def main() -> int:
    """Measure everything, print the table, write it to the file that the command line names."""
    rows: list[Row] = []
    for measure in MEASURES:
        print(f"{measure.__name__} ...", file=sys.stderr, flush=True)
        found = measure()
        rows += found if isinstance(found, list) else [found]
    machine = f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}"
    text = f"Measured on {datetime.now(UTC):%Y-%m-%d}: {machine}.\n\n{table(rows)}\n"
    print(text)
    if len(sys.argv) > 1:
        _write(Path(sys.argv[1]), text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
