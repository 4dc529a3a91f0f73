"""What a process wrote last, for the reason of a failure: the answer to "why" mostly stands there."""

from __future__ import annotations

import os
from pathlib import Path

from supervisor_d.core.intent import Intent
from supervisor_d.logs.files import Selection, lanes
from supervisor_d.logs.history import read_history
from supervisor_d.logs.line import printable

LINES = 4
TEXT_MAX = 600


def last_words(intent: Intent, pool: str, log: str, log_dir: Path, since: float) -> str:
    """The last lines of `log` (`web.0`, `web.canary`) since a time (Unix seconds), as one line; empty if there are
    none.  Of several processes that write at the same time, those of the youngest file."""
    known = intent.pools.get(pool)
    if known is None or not log:
        return ""
    directory = Path(known.wanted.spec.log.directory or log_dir)
    found = lanes(Selection({pool: directory}, (log,)))
    youngest = max(found, key=lambda lane: _changed_at(lane.path), default=None)
    if youngest is None:
        return ""
    written = read_history([youngest], lines=LINES, since=since).lines
    text = " | ".join(stripped for line in written if (stripped := printable(line.text, colour=False).strip()))
    return text if len(text) <= TEXT_MAX else f"...{text[-TEXT_MAX:]}"


def _changed_at(path: Path) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0
