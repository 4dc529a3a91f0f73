"""How much of each row that is measured: a short dose in every run of the suite, the full one by `make chaos` (faults,
for docs/crash-only.md) and `make lossless` (actions under load, for docs/lossless.md).

What a test counted goes, a line of JSON each, to the file that SUPERVISOR_D_RESULTS names; those two commands make the
page's table of it (tests/support/report.py).
"""

from __future__ import annotations

import json
import os
from pathlib import Path

FULL = os.environ.get("SUPERVISOR_D_DOSE") == "full"


def dose(short: int, full: int) -> int:
    """How often, in this run."""
    return full if FULL else short


def report(what: str, times: int, *, must_hold: str = "", **found: object) -> None:
    """Tell what was done how often, what must hold then, and what came of it."""
    promised = {"must_hold": must_hold} if must_hold else {}
    line = json.dumps({"what": what, "times": times, **promised, **found})
    print(line)
    path = os.environ.get("SUPERVISOR_D_RESULTS")
    if path:
        with Path(path).open("a") as file:
            file.write(line + "\n")
