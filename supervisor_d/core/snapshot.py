"""One frozen picture of the daemon, for people: what `status`, metrics and the dashboard show.

Wall-clock times (`*_at`, Unix seconds) are for people only; decisions use the monotonic ones in Observed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Usage:
    """One sample of a process's whole tree.  PSS is sampled less often than the rest; None is not yet known."""

    cpu_seconds: float
    rss_bytes: int
    open_fds: int
    threads: int
    processes: int
    pss_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Serving:
    """What a process with an agent serves at one instant, and how many requests it has served."""

    in_flight: int
    requests_total: int
    oldest_request_seconds: float | None = None
    """How long the longest-running request has been running."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """The requests of a pool: now, and in all since the daemon began to look."""

    requests_total: Mapping[str, int]
    """By class of the answer, `2xx`; `none`: the client went away before there was one."""
    duration_seconds_total: float
    duration_bounds: tuple[float, ...]
    duration_counts: tuple[int, ...]
    """How many took no longer than each bound and longer than the one before; the last: longer than all."""
    in_flight: int
    oldest_request_seconds: float
    """0 when there is none."""
    workers: Mapping[str, int]
    """By what they do: `booting`, `idle`, `busy`."""


@dataclass(frozen=True, slots=True)
class TasksNow:
    """The tasks that a process with an agent has in hand at one instant."""

    active: int
    reserved: int
    """Taken from the queue, and not begun."""
    unsafe: int
    """How many of the active would be lost if they were interrupted."""
    oldest_seconds: float | None = None
    """How long the longest-running task has been running."""
    oldest_name: str = ""
    """The program's own word: data, for people."""


@dataclass(frozen=True, slots=True)
class Work:
    """The tasks of a pool: now, and in all since the daemon began to look."""

    tasks_total: Mapping[str, int]
    """By outcome: `succeeded`, `failed`, `retried`, `revoked`, `unknown`."""
    started_total: int
    redelivered_total: int
    unprotected_total: int
    wait_seconds_total: float
    run_seconds_total: float
    run_bounds: tuple[float, ...]
    run_counts: tuple[int, ...]
    """How many ran no longer than each bound and longer than the one before; the last: longer than all."""
    active: int
    reserved: int
    oldest_task_seconds: float
    """0 when there is none."""


@dataclass(frozen=True, slots=True)
class ProcessView:
    """One process as people see it."""

    id: str
    pool: str
    slot: int
    generation: int
    state: str
    pid: int | None
    workers: int
    workers_live: int
    workers_ready: int
    started_at: float
    ready_at: float | None
    reason: str
    stop_reason: str
    exit: str
    adopted: bool
    usage: Usage | None = None
    remark: str = ""
    """What the program says of itself: data, for people."""
    serving: Serving | None = None
    """None where no agent tells."""
    tasks: TasksNow | None = None
    """None where no agent tells."""
    role: str = "serve"
    """`preflight` or `canary` for one that only tries a new generation out."""


@dataclass(frozen=True, slots=True)
class SlotView:
    """A slot that waits or gave up: why, and how long still (seconds from `Snapshot.at`)."""

    slot: int
    generation: int
    attempt: int
    backoff_seconds: float
    failed: str
    last_exit: str


@dataclass(frozen=True, slots=True)
class RolloutView:
    """A rollout under way or the last one that ended; verdict is `in progress`, `succeeded` or `rolled-back`."""

    from_generation: int
    to_generation: int
    verdict: str
    reason: str
    began_at: float
    ended_at: float | None = None


@dataclass(frozen=True, slots=True)
class PoolView:
    """One pool as people see it.  `state` is one word: see `core.view.pool_state`."""

    name: str
    program: str
    state: str
    detail: str
    generation: int
    workers_desired: int
    workers_live: int
    workers_ready: int
    workers_from: str
    """`config` or `operator`: who set `workers_desired`."""
    after: tuple[str, ...]
    listeners: tuple[str, ...]
    processes: tuple[ProcessView, ...]
    slots: tuple[SlotView, ...]
    restarts_total: Mapping[str, int]
    exits_total: Mapping[str, int]
    worker_exits_total: Mapping[str, int]
    rollout: RolloutView | None = None
    rollouts_total: Mapping[str, int] = field(default_factory=dict)
    traffic: Traffic | None = None
    """None where no agent tells."""
    work: Work | None = None
    """None where no agent tells."""
    restored_messages_total: int = 0
    """Messages of workers that had ended, given back to their queues."""
    backlog: int | None = None
    """Connections that wait to be accepted, in all of its listeners; None where it has none."""


@dataclass(frozen=True, slots=True)
class DaemonView:
    """The daemon's own figures."""

    version: str
    pid: int
    state: str
    """`running` or `stopping`."""
    started_at: float
    config_path: str
    config_digest: str
    runtime_dir: str
    loop_lag_seconds: float
    plan_seconds_total: float
    plans_total: int
    events_total: int
    adopted_total: int
    adoption_seconds: float
    log_dropped_bytes_total: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything, at one instant."""

    at: float
    daemon: DaemonView
    pools: tuple[PoolView, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the journal: something that happened or was done, with its reason.

    kind: `event`, `action`, `operator` or `daemon`; `subject` is a process id, a pool or `daemon`.
    """

    serial: int
    at: float
    kind: str
    name: str
    pool: str
    subject: str
    reason: str
