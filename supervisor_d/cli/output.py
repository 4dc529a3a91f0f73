"""What a command says: results on standard output, errors and progress on standard error, JSON where it is wanted."""

from __future__ import annotations

import sys
from typing import Any

from supervisor_d.errors import ConfigError, Problem, SupervisorError


class ReaderGoneError(Exception):
    """Nobody reads standard output any more: `supervisor-d events | head`.  (Click has plans for BrokenPipeError.)"""


def say(*lines: str) -> None:
    """Lines of a result."""
    try:
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()
    except BrokenPipeError:
        raise ReaderGoneError from None


def say_raw(data: bytes) -> None:
    """A JSON answer as it came from the daemon."""
    say(data.decode("utf-8", "replace").rstrip("\n"))


def say_json(value: Any) -> None:
    """A value as one line of JSON."""
    import msgspec

    say_raw(msgspec.json.encode(value))


def note(*lines: str) -> None:
    """Lines that are no result: errors, hints, progress."""
    sys.stderr.write("".join(f"{line}\n" for line in lines))
    sys.stderr.flush()


def problems_of(error: SupervisorError) -> tuple[Problem, ...]:
    """The places in a config that an error tells of."""
    found = getattr(error, "problems", ())
    return tuple(found)


def say_error(error: SupervisorError, *, json: bool) -> None:
    """Tell an error: on standard error for people, on standard output as well where JSON is read there."""
    problems = problems_of(error)
    note(*error.message.splitlines())
    if problems and not isinstance(error, ConfigError):
        note(*(str(problem) for problem in problems if str(problem) not in error.message))
    if problems:
        note(f"{len(problems)} problem{'s' if len(problems) > 1 else ''}; nothing was changed")
    if error.hint:
        note(f"  hint: {error.hint}")
    if json:
        body = {"message": error.message, "hint": error.hint, "exit_code": error.exit_code, "problems": problems}
        say_json({"error": body})
