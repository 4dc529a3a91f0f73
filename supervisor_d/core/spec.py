"""What an operator wants of one pool, parsed and frozen: the vocabulary that every other layer speaks.

Nothing here knows YAML, a clock or a process.  Durations are seconds, sizes are bytes, always in the name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

RestartWhen = Literal["always", "on-failure", "never"]
Respawn = Literal["at-exit", "when-empty"]
ReadyBy = Literal["exec", "driver"]
OneByOne = Literal["auto", "always", "never"]
Role = Literal["serve", "preflight", "canary"]
"""What a process is there for: to do the pool's work, or to try a new generation out (core/trial.py)."""


DRAIN = "DRAIN"
"""Have the program take no more work; over as soon as it says so."""
KILL_WORKERS = "KILL-WORKERS"
"""SIGKILL the workers inside the process; its main process then gives back what they had and ends."""
DRIVER_STEPS = frozenset({DRAIN, KILL_WORKERS})
"""Steps of a stop list that are no signal to the main process: the program's driver carries them out."""


@dataclass(frozen=True, slots=True)
class StopStep:
    """One step of a stop list: send `signal`, then wait `wait_seconds` for the end.  KILL is last, for ever.

    `signal` may also be one of DRIVER_STEPS.  `unsafe_wait_seconds` is how long after the begin of the whole stop the
    step goes on waiting while work runs that would be lost if it were interrupted.
    """

    signal: str
    wait_seconds: float = 0.0
    unsafe_wait_seconds: float = 0.0

    def __str__(self) -> str:
        return self.signal if self.signal == "KILL" else f"{self.signal} {self.wait_seconds:g}s"


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """When a process that ended by itself is started again, and when its slot gives up.

    The first restart after a stable time is immediate; then delays grow `backoff_initial_seconds * 2**k` up to
    `backoff_max_seconds`, with a hashed jitter of +-`jitter` (a share).  More than `intensity_restarts` restarts
    within `intensity_period_seconds` mark the slot failed.  `stable_seconds` of ready time forget the past.
    """

    when: RestartWhen = "always"
    backoff_initial_seconds: float = 0.5
    backoff_max_seconds: float = 60.0
    jitter: float = 0.1
    stable_seconds: float = 10.0
    intensity_restarts: int = 10
    intensity_period_seconds: float = 120.0


@dataclass(frozen=True, slots=True)
class RolloutPolicy:
    """How many processes a rollout may add and miss at a time, and how long a new one must stay ready.

    `canary`: whether a new generation is tried out first, where nobody reaches it (core/trial.py).
    `one_by_one`: whether workers take over one at a time (core/handover.py): `auto` when memory is short.
    """

    max_surge: int = 1
    max_unavailable: int = 0
    min_ready_seconds: float = 0.0
    canary: bool = True
    one_by_one: OneByOne = "auto"


@dataclass(frozen=True, slots=True)
class Probe:
    """One question asked of a starting process until it answers well.

    kind `http`: `target` is a URL or a path (then on the pool's first listener); `tcp`: `host:port` or a unix path;
    `exec`: `argv`, exit 0 is ready; `notify`: the process sends READY=1 to $NOTIFY_SOCKET.
    """

    kind: Literal["http", "tcp", "exec", "notify"]
    target: str = ""
    argv: tuple[str, ...] = ()
    interval_seconds: float = 0.25
    timeout_seconds: float = 2.0
    expect_status: int | None = None


@dataclass(frozen=True, slots=True)
class LogPolicy:
    """Rotation of a slot's log by size and count; `directory` empty means the daemon's log_dir."""

    directory: str = ""
    max_size_bytes: int = 64 * 1024 * 1024
    keep: int = 5
    block_seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What the kernel is told of a process before exec; None leaves the daemon's own value."""

    open_files: int | None = None
    processes: int | None = None
    core_size_bytes: int | None = 0
    memory_bytes: int | None = None
    nice: int | None = None
    oom_score_adj: int | None = 0
    umask: int = 0o022


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket the daemon binds and every generation of the pool inherits.

    `address` is `host:port`, `[v6]:port` or `unix:/path`; `mode`, `owner` and `group` are for unix paths.
    """

    address: str
    backlog: int = 2048
    mode: int = 0o660
    owner: str = ""
    group: str = ""


@dataclass(frozen=True, slots=True)
class Traits:
    """How a program behaves, as far as planning must know; declared by the program, never by the user.

    scale_in_place: a process is resized without a restart (gunicorn; Celery, where its agent can).
    exclusive: at most one process ever, also during a rollout: stop first, then start (beat).
    oneshot: runs to its end; exit 0 is success and belongs to the generation.
    respawn: may a slot start again at the main process's exit, or only once its whole tree is empty.
    driver_steps: which of DRIVER_STEPS its stop list may hold.
    aftercare: what its processes had taken and not finished is given back after their end, before they are forgotten.
    ready_by: `exec` is ready once exec succeeded (and its probes answered); `driver` waits for the program's own word.
    deployed: it runs the project's own code, so a deploy that names no pools rolls it.
    """

    scale_in_place: bool = False
    exclusive: bool = False
    oneshot: bool = False
    respawn: Respawn = "when-empty"
    ready_by: ReadyBy = "exec"
    driver_steps: tuple[str, ...] = ()
    aftercare: bool = False
    deployed: bool = False


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """Everything the config says of one pool, defaults filled in.  `keys` is the program's own frozen dataclass."""

    name: str
    program: str
    workers: int
    keys: Any
    after: tuple[str, ...] = ()
    stop: tuple[StopStep, ...] = (StopStep("TERM", 10.0), StopStep("KILL"))
    restart: RestartPolicy = RestartPolicy()
    rollout: RolloutPolicy = RolloutPolicy()
    ready: tuple[Probe, ...] = ()
    start_timeout_seconds: float = 60.0
    log: LogPolicy = LogPolicy()
    limits: Limits = Limits()
    listeners: tuple[Listener, ...] = ()
    user: str = ""
    group: str = ""
    cwd: str = ""
    root: str = ""
    """What `cwd` led to when the config was read: a generation stays in its release, wherever a link points later."""
    env: Mapping[str, str] = field(default_factory=dict)
    env_files: tuple[str, ...] = ()
    python: str = ""
    digest: str = ""
    """Hash of the user's keys, the contents of env files and the realpath of cwd; equal digest = same generation."""


@dataclass(frozen=True, slots=True)
class Fitness:
    """What a worker inside a process may use before it is replaced: None is no limit.  See core.fitness."""

    request_seconds: float | None = None
    memory_bytes: int | None = None
    age_seconds: float | None = None
    grace_seconds: float = 30.0
    """How long a worker that is told to end may finish what it serves."""

    @property
    def limits_something(self) -> bool:
        """Whether there is anything to look for."""
        return (self.request_seconds, self.memory_bytes, self.age_seconds) != (None, None, None)


@dataclass(frozen=True, slots=True)
class Launch:
    """What a program makes of a spec for one process: all that the shim needs to start it.

    `argv[0]` is absolute.  `env` is the complete environment (nothing is inherited from the daemon).
    `listeners` are indices into the pool's listeners, passed as fds 3.. with LISTEN_FDS and LISTEN_PID.
    `orphan_grace_seconds` is how long survivors of the main process may live before the shim kills them.
    `directory` is created for the process's user (0700) before start: a place for its sockets.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    user: str = ""
    group: str = ""
    listeners: tuple[int, ...] = ()
    limits: Limits = Limits()
    log: LogPolicy = LogPolicy()
    log_name: str = ""
    orphan_grace_seconds: float = 0.0
    notify: bool = False
    agent: bool = False
    fitness: Fitness = Fitness()
    stuck_after_seconds: float = 0.0
    """How long its program may show no progress; 0: for ever."""


Installed = Callable[[str], str]
"""The version of a distribution that the pool's interpreter would import, `27.0.1`; empty where it cannot be seen."""


def nothing_seen(_: str, /) -> str:
    """An Installed that sees nothing."""
    return ""


@dataclass(frozen=True, slots=True)
class LaunchContext:
    """The facts a program needs, besides the spec, to make a Launch.

    `private_dir` belongs to this process alone (its user owns it); `agents_dir` holds our agents; `installed` tells
    which versions its interpreter has.
    """

    process_id: str
    slot: int
    generation: int
    workers: int
    private_dir: str
    agents_dir: str
    base_env: Mapping[str, str]
    installed: Installed = nothing_seen
    role: Role = "serve"
