"""Every key of the config, as frozen dataclasses: the shape of the YAML, with a sentence on each key.

The schema, the JSON Schema and the reference in docs/config.md are all made from these; a program's own keys come from
`Program.keys_type` in the same form.  None is "not given": defaults that depend on the program, the user or the
machine are filled in where the spec is made.

Markers in `Annotated` say how a value may be written:

    Unit, Range, PathName   core/units.py
    OneOrMany               a single value where a list is expected: `after: redis`
    Short("when")           a bare value instead of a mapping: `restart: never` is `restart: {when: never}`
    Written(parse, ...)     text with a grammar of its own: `TERM 30s`
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from supervisor_d.config.grammar import (
    MODE_PATTERN,
    check_address,
    check_listen,
    parse_mode,
    parse_step,
    split_steps,
    split_words,
)
from supervisor_d.core.spec import OneByOne, RestartWhen, StopStep
from supervisor_d.core.units import Duration, FilePath, PositiveDuration, PositiveSize, Range, Short, Size


@dataclass(frozen=True, slots=True)
class OneOrMany:
    """A list, of which a single item may be written without brackets; `split` makes items of a text."""

    split: Callable[[str], list[str]] | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """Text that `parse` makes a value of; ValueError says what is wrong with it.  `example` is for the reference."""

    parse: Callable[[str], Any]
    example: str
    pattern: str = ""


def doc(text: str, default: str = "") -> dict[str, str]:
    """Field metadata: what the key means, and its default in words where the dataclass cannot tell it."""
    return {"doc": text, "default": default}


@dataclass(frozen=True, slots=True)
class FromEnv:
    """`{from_env: NAME}`: the value of a variable of the daemon's own environment."""

    from_env: str = field(metadata=doc("Name of a variable in the environment of the daemon (or of `check`)."))


@dataclass(frozen=True, slots=True)
class BindKeys:
    """One listening socket."""

    address: Annotated[str, Written(check_address, "127.0.0.1:8000")] = field(
        metadata=doc("`host:port`, `[v6]:port` or `unix:path`.")
    )
    backlog: Annotated[int, Range(1, 65535)] = field(
        default=2048, metadata=doc("Connections that may wait to be accepted; the kernel's `somaxconn` caps it.")
    )
    mode: Annotated[int, Written(parse_mode, '"0660"', MODE_PATTERN)] = field(
        default=0o660, metadata=doc("File mode of a unix socket, quoted.", '"0660"')
    )
    owner: str | None = field(
        default=None, metadata=doc("User who owns a unix socket; another needs root.", "the daemon's own")
    )
    group: str | None = field(default=None, metadata=doc("Group of a unix socket.", "the daemon's own"))


@dataclass(frozen=True, slots=True)
class RestartKeys:
    """When a process that ended by itself is started again."""

    when: RestartWhen | None = field(
        default=None,
        metadata=doc("`always`, `on-failure` (exit code not 0, or a signal) or `never`.", "the program's own"),
    )
    backoff: PositiveDuration = field(
        default=0.5, metadata=doc("The delay before the second restart in a row (the first is at once); it doubles.")
    )
    backoff_max: PositiveDuration = field(default=60.0, metadata=doc("The longest delay."))
    stable: Duration = field(default=10.0, metadata=doc("Ready for this long, a process clears its slot's past."))
    limit: Annotated[int, Range(1, 10_000)] = field(
        default=10, metadata=doc("More restarts than this within `period`, and the slot has failed for good.")
    )
    period: PositiveDuration = field(default=120.0, metadata=doc("The time that `limit` speaks of."))


@dataclass(frozen=True, slots=True)
class ReadyKeys:
    """One question asked of a starting process.  Exactly one of http, tcp, exec and notify."""

    http: str | None = field(default=None, metadata=doc("A path, asked of the pool's first `bind`, or a whole URL."))
    tcp: Annotated[str, Written(check_address, "127.0.0.1:6379")] | None = field(
        default=None, metadata=doc("`host:port` or `unix:path` that must accept a connection.")
    )
    exec: Annotated[tuple[str, ...], OneOrMany(split_words)] | None = field(
        default=None, metadata=doc("A command, as a list or one line; exit 0 is ready.  No shell runs it.")
    )
    notify: Literal[True] | None = field(
        default=None, metadata=doc("`true`: the process itself says READY=1 on $NOTIFY_SOCKET (sd_notify(3)).")
    )
    status: Annotated[int, Range(100, 599)] | None = field(
        default=None, metadata=doc("The HTTP status that counts as ready.", "any from 200 to 399")
    )
    interval: PositiveDuration = field(default=0.25, metadata=doc("The time between two tries."))
    timeout: PositiveDuration = field(default=2.0, metadata=doc("How long one try may take."))


@dataclass(frozen=True, slots=True)
class RolloutKeys:
    """How new processes take the place of old ones, counted in processes.  Not both maxima may be 0."""

    max_surge: Annotated[int, Range(0, 1000)] | None = field(
        default=None, metadata=doc("How many more than usual may run at a time.", "the program's own")
    )
    max_unavailable: Annotated[int, Range(0, 1000)] | None = field(
        default=None, metadata=doc("How many fewer than usual may be ready at a time.", "the program's own")
    )
    min_ready: Duration | None = field(
        default=None, metadata=doc("How long a new process must stay ready before it counts.", "0s")
    )
    canary: bool = field(
        default=True,
        metadata=doc(
            "Try a new generation out first, where nobody reaches it: it must import and, as one worker, answer the "
            "pool's probes for `min_ready`.  Of gunicorn and Celery pools."
        ),
    )
    one_by_one: OneByOne = field(
        default="auto",
        metadata=doc(
            "Of gunicorn pools: the new master starts with one worker, and takes over one at a time, in place of a "
            "whole second master beside the first.  `auto`: when memory is short for both."
        ),
    )


@dataclass(frozen=True, slots=True)
class LogKeys:
    """Where output goes, and when it is rotated.  Each slot has a file of its own, `web.0.log`."""

    directory: FilePath | None = field(default=None, metadata=doc("Directory of the files.", "`daemon: log_dir:`"))
    max_size: PositiveSize = field(default=64 * 1024 * 1024, metadata=doc("Rotate when a file has grown to this."))
    keep: Annotated[int, Range(0, 1000)] = field(default=5, metadata=doc("How many rotated files are kept."))
    block: Duration = field(
        default=5.0,
        metadata=doc("How long a full disk may hold a process up before its output is dropped, and counted."),
    )


@dataclass(frozen=True, slots=True)
class LimitKeys:
    """What the kernel is told of a process before it starts.  What is not given stays as the daemon has it."""

    open_files: Annotated[int, Range(16, 2**30)] | None = field(
        default=None, metadata=doc("Open file descriptors (RLIMIT_NOFILE).", "the daemon's")
    )
    processes: Annotated[int, Range(1, 2**22)] | None = field(
        default=None, metadata=doc("Processes and threads of the user, all together (RLIMIT_NPROC).", "the daemon's")
    )
    core_size: Size = field(default=0, metadata=doc("Size of a core dump (RLIMIT_CORE)."))
    memory: PositiveSize | None = field(
        default=None, metadata=doc("Address space of each process (RLIMIT_AS).", "the daemon's")
    )
    nice: Annotated[int, Range(-20, 19)] | None = field(
        default=None, metadata=doc("Niceness, -20 (first) to 19 (last); below 0 needs root.", "the daemon's")
    )
    oom_score_adj: Annotated[int, Range(-1000, 1000)] = field(
        default=0, metadata=doc("Who dies first when memory runs out: 1000 first, -1000 never; below 0 needs root.")
    )
    umask: Annotated[int, Written(parse_mode, '"0022"', MODE_PATTERN)] = field(
        default=0o022, metadata=doc("File mode creation mask, quoted.", '"0022"')
    )


Step = Annotated[StopStep, Written(parse_step, "TERM 30s")]
EnvValue = str | FromEnv


@dataclass(frozen=True, slots=True)
class DefaultKeys:
    """Keys that every pool has, and that `defaults:` may set for all of them.

    A pool's own value takes the place of the default's whole value; `env` alone is merged, variable by variable.
    """

    stop: Annotated[tuple[Step, ...], OneOrMany(split_steps)] | None = field(
        default=None,
        metadata=doc(
            "How to stop a process: signals and how long each may take, the last one KILL.", "the program's own"
        ),
    )
    restart: Annotated[RestartKeys, Short("when")] | None = field(
        default=None, metadata=doc("When to start a process again that ended by itself; or just the word of `when`.")
    )
    start_timeout: PositiveDuration = field(
        default=60.0, metadata=doc("A process not ready by then is stopped, and its slot tries again.")
    )
    rollout: RolloutKeys | None = field(default=None, metadata=doc("How new processes take the place of old ones."))
    log: LogKeys | None = field(default=None, metadata=doc("Where output goes, and when it is rotated."))
    limits: LimitKeys | None = field(default=None, metadata=doc("Limits and priorities of each process."))
    user: str | None = field(
        default=None,
        metadata=doc("The user to run as.  A daemon of root wants one for each pool.", "the daemon's own"),
    )
    group: str | None = field(default=None, metadata=doc("The group to run as.", "the user's own"))
    cwd: FilePath | None = field(
        default=None, metadata=doc("The directory to run in; must exist.", "the directory of the config file")
    )
    env: Mapping[str, EnvValue] | None = field(
        default=None,
        metadata=doc("Variables, text or numbers, or `{from_env: NAME}`.  They win over those of `env_files`."),
    )
    env_files: Annotated[tuple[FilePath, ...], OneOrMany()] = field(
        default=(), metadata=doc("Files of `NAME=value` lines; a later file wins over an earlier one.")
    )
    python: FilePath | None = field(
        default=None,
        metadata=doc(
            "The Python of the pool, as `.venv/bin/python`; its directory comes first in PATH.", "the daemon's own"
        ),
    )


@dataclass(frozen=True, slots=True)
class CommonKeys(DefaultKeys):
    """Keys that every pool has, whatever its program."""

    program: str = field(default="", metadata=doc("What kind of process this is."))
    workers: Annotated[int, Range(0, 4096)] | None = field(
        default=None, metadata=doc("How much capacity the pool has, in workers.", "1")
    )
    bind: Annotated[tuple[Annotated[BindKeys, Short("address")], ...], OneOrMany()] = field(
        default=(),
        metadata=doc("Listening sockets, which the daemon binds and every generation of the pool inherits."),
    )
    after: Annotated[tuple[str, ...], OneOrMany()] = field(
        default=(), metadata=doc("Pools that must be ready (a oneshot: have succeeded) before this one starts.")
    )
    ready: Annotated[tuple[ReadyKeys, ...], OneOrMany()] = field(
        default=(), metadata=doc("Probes that must all have answered well before a process counts as ready.")
    )


@dataclass(frozen=True, slots=True)
class ControlKeys:
    """Who may talk to the daemon, besides root and the daemon's own user, who may do everything."""

    group: str | None = field(
        default=None, metadata=doc("Group of the control socket: only its members can connect.", "the daemon's own")
    )
    operators: Annotated[tuple[str, ...], OneOrMany()] = field(
        default=(), metadata=doc("Users who may start, stop, scale and restart.")
    )
    readers: Annotated[tuple[str, ...], OneOrMany()] = field(
        default=(), metadata=doc("Users who may look, and change nothing.")
    )


@dataclass(frozen=True, slots=True)
class MetricsKeys:
    """Metrics for Prometheus over HTTP."""

    listen: Annotated[str, Written(check_listen, "127.0.0.1:9180")] = field(
        metadata=doc("`host:port` on loopback, where `/metrics` is served.")
    )


@dataclass(frozen=True, slots=True)
class DaemonKeys:
    """The daemon's own settings.  Those of directories and addresses take effect at the next start."""

    runtime_dir: FilePath | None = field(
        default=None,
        metadata=doc(
            "What lives as long as the processes: records, sockets, the lock.",
            "root: `/run/supervisor-d`, else `$XDG_RUNTIME_DIR/supervisor-d`, else `/tmp/supervisor-d-<uid>`",
        ),
    )
    state_dir: FilePath | None = field(
        default=None,
        metadata=doc(
            "What outlives a reboot: the accepted config, operators' decisions.",
            "root: `/var/lib/supervisor-d`, else `$XDG_STATE_HOME/supervisor-d` or `~/.local/state/supervisor-d`",
        ),
    )
    log_dir: FilePath | None = field(
        default=None,
        metadata=doc("Where pools' logs go.", "root: `/var/log/supervisor-d`, else `log` in `state_dir`"),
    )
    starts_at_once: Annotated[int, Range(1, 1000)] = field(
        default=8, metadata=doc("How many processes may be starting at a time, on the whole host.")
    )
    allow_root: bool = field(
        default=False,
        metadata=doc("Let pools without a `user:` run as root when the daemon does; for development and containers."),
    )
    control: ControlKeys | None = field(default=None, metadata=doc("Who may talk to the daemon."))
    metrics: MetricsKeys | None = field(default=None, metadata=doc("Metrics for Prometheus.", "not served"))


@dataclass(frozen=True, slots=True)
class FileKeys:
    """The top of a config file."""

    version: Literal[1] = field(metadata=doc("The version of this format: 1."))
    daemon: DaemonKeys | None = field(default=None, metadata=doc("The daemon's own settings."))
    defaults: DefaultKeys | None = field(default=None, metadata=doc("Values for every pool that does not say its own."))
    pools: Mapping[str, Any] = field(
        default_factory=dict,
        metadata=doc("The pools by name: letters, digits, `-` and `_`, at most 48."),
    )
