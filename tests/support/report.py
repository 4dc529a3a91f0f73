"""A page's table, out of what the tests reported: python -m tests.support.report RESULTS [DOCUMENT]

With a document, the table takes the place of what stands between its two marks, `<!-- results: ... -->` and
`<!-- end of results -->`.  Of rows that were reported more than once the last one counts.
"""

from __future__ import annotations

import json
import platform
import re
import sys
from pathlib import Path

BETWEEN_MARKS = re.compile(r"(<!-- results: [^\n]* -->\n).*(<!-- end of results -->\n)", re.DOTALL)


def table(lines: list[str]) -> str:
    """Markdown, a row for each thing done; what must hold stands beside it where the tests say so."""
    results = {found["what"]: found for found in map(json.loads, lines)}
    promised = any("must_hold" in found for found in results.values())
    heads = ["Action", "Must hold", "Times", "What came of it"] if promised else ["Fault", "Times", "What came of it"]
    rows = [_row(heads), _row(["---"] * len(heads)).replace(" ", "")]
    for what, found in results.items():
        del found["what"]
        times, must_hold = found.pop("times"), found.pop("must_hold", "")
        rows.append(_row([what, *([must_hold] if promised else []), times, _told(found)]))
    kernel = ".".join(platform.release().split(".")[:2])
    return "\n".join(rows) + f"\n\nLinux {kernel}, Python {platform.python_version()}, {_cores()} shared cores.\n"


def _row(cells: list[object] | list[str]) -> str:
    return f"| {' | '.join(str(cell) for cell in cells)} |"


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
    page, replaced = BETWEEN_MARKS.subn(lambda marks: f"{marks[1]}\n{text}\n{marks[2]}", path.read_text())
    if replaced != 1:
        raise SystemExit(f"cannot write the table: {document} has {replaced} places between marks, not one")
    path.write_text(page)


if __name__ == "__main__":
    main(*sys.argv[1:])
