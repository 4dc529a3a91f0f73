"""The table of what the faults did, out of what the tests reported: python -m tests.faults.report RESULTS [DOCUMENT]

With a document, the table takes the place of what stands between its two marks.
"""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path

BEGIN, END = "<!-- results: make chaos -->\n", "<!-- end of results -->\n"


def table(lines: list[str]) -> str:
    """Markdown, a row for each fault."""
    rows = ["| Fault | Times | What came of it |", "|---|---|---|"]
    for found in map(json.loads, lines):
        fault, times = found.pop("fault"), found.pop("times")
        rows.append(f"| {fault} | {times} | {_told(found)} |")
    kernel = ".".join(platform.release().split(".")[:2])
    return "\n".join(rows) + f"\n\nLinux {kernel}, Python {platform.python_version()}, {_cores()} shared cores.\n"


def _told(found: dict[str, object]) -> str:
    return ", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in found.items())


def _cores() -> int:
    return sum(line.startswith("processor") for line in Path("/proc/cpuinfo").read_text().splitlines())


def main(results: str, document: str = "") -> None:
    """Print the table, or put it into the document."""
    text = table(Path(results).read_text().splitlines())
    if not document:
        print(text)
        return
    path = Path(document)
    before, _, rest = path.read_text().partition(BEGIN)
    path.write_text(before + BEGIN + "\n" + text + "\n" + END + rest.partition(END)[2])


if __name__ == "__main__":
    main(*sys.argv[1:])
