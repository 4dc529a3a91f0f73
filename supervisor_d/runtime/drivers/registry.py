"""Which driver looks after which program; a program that is not here needs none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from supervisor_d.runtime.drivers.base import Driver, DriverReady, Tell
from supervisor_d.runtime.drivers.beat import BeatDriver
from supervisor_d.runtime.drivers.celery import CeleryDriver
from supervisor_d.runtime.drivers.gunicorn import GunicornDriver
from supervisor_d.runtime.host import Emit

DRIVERS: Mapping[str, Callable[[Emit, DriverReady, Tell], Driver]] = MappingProxyType(
    {
        "gunicorn": lambda emit, ready, _: GunicornDriver(emit, ready),
        "celery": CeleryDriver,
        "celery-beat": lambda emit, ready, _: BeatDriver(emit, ready),
    }
)
"""By program name."""
