"""Whether the memory suffices for two generations of a pool at once.

The new one is taken to need what the old one has now: its proportional set size, so that what its workers share counts
once.  A tenth of what is available stays free, for all that grows meanwhile.

Worked example: four workers of 300 MiB, 1.0 GiB available: 1.2 GiB > 0.9 GiB, so they take over one by one.
"""

from __future__ import annotations

from supervisor_d.core.units import format_size

SPARE_SHARE = 0.1


def why_short(used_bytes: int, available_bytes: int) -> str:
    """Why there is no memory for both generations of a pool that uses so much; empty when there is."""
    if used_bytes <= available_bytes * (1 - SPARE_SHARE):
        return ""
    needed, available = _shown(used_bytes), _shown(available_bytes)
    return f"a second generation would need about {needed}, and {available} are available"


def _shown(size_bytes: int) -> str:
    return format_size(size_bytes // 2**20 * 2**20)
