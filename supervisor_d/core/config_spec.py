"""A whole accepted config: the daemon's own settings and every pool.  Knows no YAML, as core.spec."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from supervisor_d.core.spec import PoolSpec
from supervisor_d.errors import Problem


@dataclass(frozen=True, slots=True)
class ControlSpec:
    """Who may use the control socket, besides root and the daemon's own user.  Names of users and of one group."""

    group: str = ""
    operators: tuple[str, ...] = ()
    readers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DaemonSpec:
    """The daemon's own settings.  Directories are absolute paths, not looked at yet."""

    runtime_dir: str
    state_dir: str
    log_dir: str
    starts_at_once: int = 8
    allow_root: bool = False
    control: ControlSpec = ControlSpec()
    metrics_listen: str = ""
    """`host:port` on loopback; empty: metrics are not served over TCP."""


@dataclass(frozen=True, slots=True)
class Config:
    """What was loaded from `path`, a file or a directory.

    `digest` changes with any text of the config or of an env file; `texts` are the files themselves, by absolute path,
    as kept for `load_copy`.  `warnings` are what works and had better be otherwise, each with its place; only a load
    that asks for them has any.  Specs carry the environment, secrets included: a Config is never printed or logged.
    """

    path: str
    daemon: DaemonSpec
    pools: Mapping[str, PoolSpec]
    digest: str
    texts: Mapping[str, str] = field(default_factory=dict, repr=False)
    warnings: tuple[Problem, ...] = ()
