"""Where a daemon keeps what it has when the config does not say: by the Filesystem Hierarchy, or the user's XDG."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

NAME = "supervisor-d"


@dataclass(frozen=True, slots=True)
class Directories:
    """Absolute paths: what lives with the processes, what outlives a reboot, what people read."""

    runtime_dir: Path
    state_dir: Path
    log_dir: Path


def default_directories(environ: Mapping[str, str], euid: int) -> Directories:
    """Root's below /run and /var; a plain user's by the XDG Base Directory Specification."""
    if euid == 0:
        return Directories(Path("/run", NAME), Path("/var/lib", NAME), Path("/var/log", NAME))
    runtime = _absolute(environ.get("XDG_RUNTIME_DIR"))
    home = _absolute(environ.get("HOME")) or Path("/")
    state = (_absolute(environ.get("XDG_STATE_HOME")) or home / ".local/state") / NAME
    fallback = Path("/tmp", f"{NAME}-{euid}")  # noqa: S108  the daemon refuses it when it is another's or a link
    return Directories(runtime / NAME if runtime else fallback, state, state / "log")


def _absolute(value: str | None) -> Path | None:
    """XDG variables that are not absolute count as unset, as their specification says."""
    return Path(value) if value and value.startswith("/") else None
