"""Every metric there is, as one table: name, kind, labels, help, and what of the snapshot it shows.

The names follow Prometheus's conventions (base units, `_total` on what only grows).  Labels come from the config
(pool, slot, program), from the daemon's own count (generation) or from short fixed lists of words: never from a pid, a
path or text that a process wrote, so the number of series is bounded by the config.  docs/metrics.md holds the same
table; a test compares them.

The prefix is `supervisor_daemon_`, not `supervisor_d_`: `promtool check metrics` takes `_d_` for days, a unit that
should not be abbreviated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from supervisor_d.core.snapshot import DaemonView, PoolView, ProcessView, Snapshot, Traffic, Usage, Work

STATES = ("starting", "ready", "stopping", "killing", "exited")
EXIT_KINDS = ("ok", "error", "signal", "oom", "unknown")
MAIN_EXIT_KINDS = (*EXIT_KINDS, "spawn-failed")
RESTART_REASONS = (*MAIN_EXIT_KINDS, "shim-lost", "start-timeout", "stuck", "ailing")
ROLLOUT_VERDICTS = ("succeeded", "rolled-back")

Series = Iterator[tuple[tuple[str, ...], float]]
"""Label values, in the order of the labels, and the value."""


@dataclass(frozen=True, slots=True)
class Buckets:
    """A histogram's values: how many were no larger than each bound, the last one infinite, and the sum of all."""

    counts: tuple[tuple[str, float], ...]
    total: float


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: `series` gives its values in a snapshot."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    labels: tuple[str, ...]
    help: str
    series: Callable[[Snapshot], Series]
    buckets: Callable[[Snapshot], Iterator[tuple[tuple[str, ...], Buckets]]] | None = None
    """In place of `series`, for a histogram."""


def _daemon(name: str, kind: Literal["gauge", "counter"], text: str, value: Callable[[DaemonView], float]) -> Family:
    def series(snapshot: Snapshot) -> Series:
        yield (), value(snapshot.daemon)

    return Family(f"supervisor_daemon_{name}", kind, (), text, series)


def _pool(name: str, text: str, value: Callable[[PoolView], float]) -> Family:
    def series(snapshot: Snapshot) -> Series:
        for pool in snapshot.pools:
            yield (pool.name,), value(pool)

    return Family(f"supervisor_daemon_pool_{name}", "gauge", ("pool",), text, series)


def _pool_total(
    name: str, label: str, words: tuple[str, ...], text: str, totals: Callable[[PoolView], Mapping[str, int]]
) -> Family:
    """A counter per pool and word.  Every known word is there from the start, at 0: a rate needs a first value."""

    def series(snapshot: Snapshot) -> Series:
        for pool in snapshot.pools:
            counted = totals(pool)
            for word in (*words, *sorted(counted.keys() - set(words))):
                yield (pool.name, word), counted.get(word, 0)

    return Family(f"supervisor_daemon_pool_{name}", "counter", ("pool", label), text, series)


def _traffic(name: str, text: str, value: Callable[[Traffic], float]) -> Family:
    """A figure of a pool's requests; absent where no agent tells."""

    def series(snapshot: Snapshot) -> Series:
        for pool in snapshot.pools:
            if pool.traffic is not None:
                yield (pool.name,), value(pool.traffic)

    return Family(f"supervisor_daemon_pool_{name}", "gauge", ("pool",), text, series)


def _traffic_by(
    name: str,
    kind: Literal["gauge", "counter"],
    label: str,
    text: str,
    values: Callable[[Traffic], Mapping[str, int]],
) -> Family:
    def series(snapshot: Snapshot) -> Series:
        for pool in snapshot.pools:
            for word, value in values(pool.traffic).items() if pool.traffic is not None else ():
                yield (pool.name, word), value

    return Family(f"supervisor_daemon_pool_{name}", kind, ("pool", label), text, series)


def _work(name: str, kind: Literal["gauge", "counter"], text: str, value: Callable[[Work], float]) -> Family:
    """A figure of a pool's tasks; absent where no agent tells."""

    def series(snapshot: Snapshot) -> Series:
        for pool in snapshot.pools:
            if pool.work is not None:
                yield (pool.name,), value(pool.work)

    return Family(f"supervisor_daemon_pool_{name}", kind, ("pool",), text, series)


def _tasks_by_outcome(snapshot: Snapshot) -> Series:
    for pool in snapshot.pools:
        for word, value in pool.work.tasks_total.items() if pool.work is not None else ():
            yield (pool.name, word), value


def _restored_messages(snapshot: Snapshot) -> Series:
    for pool in snapshot.pools:
        if pool.work is not None:
            yield (pool.name,), pool.restored_messages_total


def _run_times(snapshot: Snapshot) -> Iterator[tuple[tuple[str, ...], Buckets]]:
    for pool in snapshot.pools:
        work = pool.work
        if work is not None:
            bounds = (*(str(float(bound)) for bound in work.run_bounds), "+Inf")
            counts = tuple(zip(bounds, map(float, accumulate(work.run_counts)), strict=True))
            yield (pool.name,), Buckets(counts, work.run_seconds_total)


def _durations(snapshot: Snapshot) -> Iterator[tuple[tuple[str, ...], Buckets]]:
    for pool in snapshot.pools:
        traffic = pool.traffic
        if traffic is not None:
            bounds = (*(str(float(bound)) for bound in traffic.duration_bounds), "+Inf")
            counts = tuple(zip(bounds, map(float, accumulate(traffic.duration_counts)), strict=True))
            yield (pool.name,), Buckets(counts, traffic.duration_seconds_total)


def _backlogs(snapshot: Snapshot) -> Series:
    for pool in snapshot.pools:
        if pool.backlog is not None:
            yield (pool.name,), pool.backlog


def _process(
    name: str, kind: Literal["gauge", "counter"], text: str, value: Callable[[ProcessView], float | None]
) -> Family:
    def series(snapshot: Snapshot) -> Series:
        for process in current_processes(snapshot):
            shown = value(process)
            if shown is not None:
                yield (process.pool, str(process.slot), str(process.generation)), shown

    return Family(f"supervisor_daemon_process_{name}", kind, ("pool", "slot", "generation"), text, series)


def _usage(name: str, kind: Literal["gauge", "counter"], text: str, value: Callable[[Usage], float | None]) -> Family:
    """A figure of a process's whole tree; absent until it was first sampled."""
    return _process(name, kind, text, lambda process: value(process.usage) if process.usage else None)


def current_processes(snapshot: Snapshot) -> Iterator[ProcessView]:
    """The youngest process of each slot and generation whose main process has not ended.

    An older one may still be emptying its tree, and a label set may appear only once in an exposition.
    """
    for pool in snapshot.pools:
        youngest: dict[tuple[int, int], ProcessView] = {}
        for process in pool.processes:
            key = (process.slot, process.generation)
            if process.state != "exited" and (key not in youngest or youngest[key].started_at <= process.started_at):
                youngest[key] = process
        yield from youngest.values()


def _build_info(snapshot: Snapshot) -> Series:
    yield (snapshot.daemon.version,), 1


def _pool_info(snapshot: Snapshot) -> Series:
    for pool in snapshot.pools:
        yield (pool.name, pool.program), 1


def _processes_by_state(snapshot: Snapshot) -> Series:
    for pool in snapshot.pools:
        states = [process.state for process in pool.processes]
        for state in STATES:
            yield (pool.name, state), states.count(state)


FAMILIES: tuple[Family, ...] = (
    Family("supervisor_daemon_build_info", "gauge", ("version",), "Always 1; the version of the daemon.", _build_info),
    _daemon("start_time_seconds", "gauge", "Unix time of the daemon's start.", lambda d: d.started_at),
    _daemon("stopping", "gauge", "1 while the daemon stops all pools, else 0.", lambda d: d.state == "stopping"),
    _daemon(
        "loop_lag_seconds", "gauge", "How late the event loop ran the last planning.", lambda d: d.loop_lag_seconds
    ),
    _daemon("plan_seconds_total", "counter", "Time spent planning.", lambda d: d.plan_seconds_total),
    _daemon("plans_total", "counter", "How often was planned.", lambda d: d.plans_total),
    _daemon("events_total", "counter", "Facts folded into the observed state.", lambda d: d.events_total),
    _daemon(
        "adopted_processes_total", "counter", "Processes taken over from a former daemon.", lambda d: d.adopted_total
    ),
    _daemon(
        "adoption_seconds", "gauge", "How long the adoption at the daemon's start took.", lambda d: d.adoption_seconds
    ),
    _daemon(
        "log_dropped_bytes_total",
        "counter",
        "Output thrown away so as not to block a process, a disk being full.",
        lambda d: d.log_dropped_bytes_total,
    ),
    Family("supervisor_daemon_pool_info", "gauge", ("pool", "program"), "Always 1; the program of a pool.", _pool_info),
    _pool("workers_desired", "Workers wanted, by the config or an operator.", lambda p: p.workers_desired),
    _pool("workers_live", "Workers that run.", lambda p: p.workers_live),
    _pool("workers_ready", "Workers that may serve now.", lambda p: p.workers_ready),
    Family(
        "supervisor_daemon_pool_processes",
        "gauge",
        ("pool", "state"),
        "Processes with a record, by state.",
        _processes_by_state,
    ),
    _pool("generation", "The wanted generation.", lambda p: p.generation),
    _pool(
        "backoff_seconds",
        "The longest wait left of the slots that wait for their next start.",
        lambda p: max((slot.backoff_seconds for slot in p.slots), default=0),
    ),
    _pool("failed_slots", "Slots that gave up.", lambda p: sum(1 for slot in p.slots if slot.failed)),
    _pool(
        "rollout_in_progress",
        "1 while a generation takes over from another, else 0.",
        lambda p: p.rollout is not None and p.rollout.ended_at is None,
    ),
    _pool_total(
        "rollouts_total", "verdict", ROLLOUT_VERDICTS, "Rollouts that ended, by verdict.", lambda p: p.rollouts_total
    ),
    _pool_total(
        "restarts_total",
        "reason",
        RESTART_REASONS,
        "Unexpected ends that led to a restart, by reason.",
        lambda p: p.restarts_total,
    ),
    _pool_total("exits_total", "kind", MAIN_EXIT_KINDS, "Ends of main processes, by kind.", lambda p: p.exits_total),
    _pool_total(
        "worker_exits_total",
        "kind",
        EXIT_KINDS,
        "Ends of workers inside a process, by kind, as its program tells.",
        lambda p: p.worker_exits_total,
    ),
    _traffic_by(
        "requests_total",
        "counter",
        "class",
        "Requests that ended, by class of their answer, as the agent tells.",
        lambda t: t.requests_total,
    ),
    Family(
        "supervisor_daemon_pool_request_duration_seconds",
        "histogram",
        ("pool",),
        "How long requests took, from their head read to their answer written.",
        lambda _: iter(()),
        _durations,
    ),
    _traffic("requests_in_flight", "Requests that are being served.", lambda t: t.in_flight),
    _traffic(
        "oldest_request_seconds",
        "How long the longest-running request has been running; 0 without one.",
        lambda t: t.oldest_request_seconds,
    ),
    _traffic_by(
        "serving_workers", "gauge", "doing", "Workers by what they do, as the agent tells.", lambda t: t.workers
    ),
    Family(
        "supervisor_daemon_pool_tasks_total",
        "counter",
        ("pool", "outcome"),
        "Tasks that ended, by outcome, as the agent tells.",
        _tasks_by_outcome,
    ),
    Family(
        "supervisor_daemon_pool_task_duration_seconds",
        "histogram",
        ("pool",),
        "How long tasks ran.",
        lambda _: iter(()),
        _run_times,
    ),
    _work("tasks_started_total", "counter", "Tasks that were begun.", lambda w: w.started_total),
    _work(
        "tasks_redelivered_total",
        "counter",
        "Tasks begun once more, after somebody who had taken them did not finish them.",
        lambda w: w.redelivered_total,
    ),
    _work(
        "task_wait_seconds_total",
        "counter",
        "How long tasks waited from their sending to their begin, where the sender said when it was.",
        lambda w: w.wait_seconds_total,
    ),
    _work("tasks_active", "gauge", "Tasks that run.", lambda w: w.active),
    _work("tasks_reserved", "gauge", "Messages taken from a queue and not begun.", lambda w: w.reserved),
    _work(
        "oldest_task_seconds",
        "gauge",
        "How long the longest-running task has been running; 0 without one.",
        lambda w: w.oldest_task_seconds,
    ),
    Family(
        "supervisor_daemon_pool_restored_messages_total",
        "counter",
        ("pool",),
        "Messages that workers held when they ended, given back to their queues.",
        _restored_messages,
    ),
    _work(
        "unprotected_messages_total",
        "counter",
        "Messages that found no place in a worker's ledger, and would not be given back.",
        lambda w: w.unprotected_total,
    ),
    Family(
        "supervisor_daemon_pool_backlog_connections",
        "gauge",
        ("pool",),
        "Connections that wait in the pool's listeners to be accepted.",
        _backlogs,
    ),
    _process("start_time_seconds", "gauge", "Unix time of the process's start.", lambda p: p.started_at),
    _process("workers", "gauge", "Workers that run inside the process.", lambda p: p.workers_live),
    _usage(
        "cpu_seconds_total", "counter", "CPU time, user and system, of the process's tree.", lambda u: u.cpu_seconds
    ),
    _usage(
        "resident_memory_bytes", "gauge", "Sum of RSS over the tree; shared pages count often.", lambda u: u.rss_bytes
    ),
    _usage(
        "proportional_memory_bytes",
        "gauge",
        "Sum of PSS over the tree; shared pages count once.",
        lambda u: u.pss_bytes,
    ),
    _usage("open_fds", "gauge", "Open file descriptors of the tree.", lambda u: u.open_fds),
    _usage("threads", "gauge", "Threads of the tree.", lambda u: u.threads),
    _usage("tree_processes", "gauge", "Processes of the tree, its main process included.", lambda u: u.processes),
)
"""In the order in which they are shown and documented."""
