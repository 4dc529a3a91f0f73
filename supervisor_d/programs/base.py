"""What a program is: its keys, its defaults, and pure functions from a pool's spec to what is started.

A new kind of program is one module with one `Program`, listed in `programs.registry`.  Nothing here does I/O; what
needs a socket or a broker is a driver in runtime/drivers/.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from supervisor_d.core.spec import Installed, Launch, LaunchContext, PoolSpec, Role, RolloutPolicy, StopStep, Traits


class Program(Protocol):
    """One kind of program.

    `keys_type` is a frozen stdlib dataclass: the program's own config keys, with defaults; config validates YAML
    against it (Duration and Size from core.units, nested frozen dataclasses and Literals allowed).  Each field carries
    `metadata={"doc": ...}`, which becomes the JSON Schema's description and the reference's text.
    """

    name: str
    keys_type: type
    traits: Traits
    default_stop: tuple[StopStep, ...]
    default_rollout: RolloutPolicy
    default_restart_when: str
    default_workers: int

    def stop_for(self, keys: Any, given: tuple[StopStep, ...] = ()) -> tuple[StopStep, ...]:
        """The stop list of a pool that names `given`, or none: then `default_stop` (what the reference shows).  Fitted
        to its keys."""
        ...

    def sizes(self, spec: PoolSpec, workers: int) -> tuple[int, ...]:
        """How `workers` are spread over slots: one number of workers per process."""
        ...

    def gates(self, spec: PoolSpec) -> tuple[Role, ...]:
        """What a new generation must pass before it may serve, in order (core/trial.py)."""
        ...

    def launch(self, spec: PoolSpec, context: LaunchContext) -> Launch:
        """What to exec for one process of the pool."""
        ...

    def problems(self, spec: PoolSpec) -> Mapping[str, str]:
        """What is wrong with the keys together: key -> "why"; empty when all is well."""
        ...

    def warnings(self, spec: PoolSpec, installed: Installed) -> Iterable[tuple[str, str]]:
        """What works and had better be otherwise, of a spec without problems: (key, "why, and what to do")."""
        ...
