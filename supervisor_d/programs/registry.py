"""Every program that a config may name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from supervisor_d.programs.base import Program
from supervisor_d.programs.beat import CeleryBeat
from supervisor_d.programs.celery import CeleryWorker
from supervisor_d.programs.command import Command
from supervisor_d.programs.gunicorn import Gunicorn
from supervisor_d.programs.oneshot import Oneshot

_ALL: tuple[Program, ...] = (Gunicorn(), CeleryWorker(), CeleryBeat(), Command(), Oneshot())

PROGRAMS: Mapping[str, Program] = MappingProxyType({program.name: program for program in _ALL})
"""By the name that `program:` takes."""
