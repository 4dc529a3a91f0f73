"""What a reload changes, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Change = Literal["keep", "scale", "roll", "add", "remove", "update"]


@dataclass(frozen=True, slots=True)
class PoolChange:
    """What a reload does (or would do) to one pool.

    `update` changes only what the daemon itself needs (restart policy, dependencies): no process is touched.
    `keys` are the changed config keys (names only, never values); `detail` is for people, the capacity dip included.
    """

    pool: str
    change: Change
    keys: tuple[str, ...] = ()
    detail: str = ""
