"""How much of each fault: a short dose in every run of the suite, the full one by `make chaos`.

What a test counted goes, a line of JSON each, to the file that SUPERVISOR_D_RESULTS names; `make chaos` makes the table
in docs/crash-only.md of it (tests/faults/report.py).
"""

from __future__ import annotations

import json
import os
from pathlib import Path

FULL = os.environ.get("SUPERVISOR_D_DOSE") == "full"


def dose(short: int, full: int) -> int:
    """How often, in this run."""
    return full if FULL else short


def report(fault: str, times: int, **found: object) -> None:
    """Tell what was done how often, and what came of it."""
    line = json.dumps({"fault": fault, "times": times, **found})
    print(line)
    path = os.environ.get("SUPERVISOR_D_RESULTS")
    if path:
        with Path(path).open("a") as file:
            file.write(line + "\n")
