"""Unix socket paths of any length: what is too long for sun_path is named through its directory's descriptor."""

from __future__ import annotations

import os
from collections.abc import Callable

PATH_BYTES = 107
"""sun_path holds 108 bytes with its NUL (unix(7))."""


def with_short_path(path: str, call: Callable[[str], None]) -> None:
    """`call(path)` for connect(2) or bind(2), by way of /proc/self/fd where `path` is too long.  Raises OSError."""
    if len(os.fsencode(path)) <= PATH_BYTES:
        call(path)
        return
    directory, name = os.path.split(path)
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        call(f"/proc/self/fd/{fd}/{name}")
    finally:
        os.close(fd)
