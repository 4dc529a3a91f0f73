"""How `run` was asked to behave in its terminal; what the config says is none of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the command line says of one run of the daemon."""

    show_logs: bool = False
    """Show the workers' merged logs on standard output, in front of the daemon's own log."""
    colour: bool = False
    """Colours in what is shown."""
    log_format: Literal["text", "json"] = "text"
    """The form of the daemon's own log on standard error."""
