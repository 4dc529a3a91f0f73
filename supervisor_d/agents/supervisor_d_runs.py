"""When each task of a schedule was last sent: noted at once, by a file that is always whole.

Celery's own schedule file (shelve) is written every three minutes, and a kill in the midst of writing can empty it;
either way a beat that comes after a kill would send again what had been sent.  `<schedule>.ran` is written before each
send, under another name, and renamed.  A kill loses nothing of it; a power cut may lose what the kernel had not yet
written.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from datetime import datetime
from typing import Any

MAX_BYTES = 4 * 1024 * 1024


class Runs:
    """The notes of one schedule file, in the hands of the one beat that has it."""

    def __init__(self, schedule: str) -> None:
        self._path = os.path.realpath(schedule) + ".ran"
        self.noted = _read(self._path)

    def note(self, name: str, at: str) -> None:
        """`name` is sent at `at` (ISO 8601).  Raises OSError."""
        self.noted[name] = at
        with open(self._path + ".new", "w", encoding="utf-8") as file:
            json.dump(self.noted, file)
        os.replace(self._path + ".new", self._path)

    def keep_only(self, names: Any) -> None:
        """Forget what the schedule no longer has."""
        self.noted = {name: at for name, at in self.noted.items() if name in names}


def _read(path: str) -> dict[str, str]:
    try:
        with open(path, encoding="utf-8") as file:
            noted = json.loads(file.read(MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    pairs = noted.items() if isinstance(noted, dict) else ()
    return {name: at for name, at in pairs if isinstance(at, str)}


def remember(entries: Mapping[str, Any], noted: Mapping[str, str]) -> None:
    """Put the notes into the entries of a schedule, where they are later than what the entries say.

    One from the future was made by a clock that was ahead: until then nothing would be due.  It was now, at the latest.
    """
    for name, text in noted.items():
        entry = entries.get(name)
        if entry is None:
            continue
        with contextlib.suppress(ValueError, TypeError, OverflowError):  # no time, or one without its zone
            at, now = datetime.fromisoformat(text), entry.default_now()
            at = at.astimezone(now.tzinfo) if at.tzinfo and now.tzinfo else at
            entry.last_run_at = max(entry.last_run_at, min(at, now))
