"""How a pool stops, restarts, rolls, logs and is limited: from its keys to the core's policies."""

from __future__ import annotations

from typing import Any

from supervisor_d.config.keys import CommonKeys, LimitKeys, LogKeys, RestartKeys
from supervisor_d.config.site import Site
from supervisor_d.core.spec import DRIVER_STEPS, Limits, LogPolicy, RestartPolicy, RolloutPolicy, StopStep
from supervisor_d.core.units import format_duration
from supervisor_d.programs.base import Program
from supervisor_d.programs.registry import PROGRAMS

MAX_STOP_STEPS = 16


def stop_list(site: Site, keys: CommonKeys, program: Program, own: Any) -> tuple[StopStep, ...]:
    """The pool's own list, or the one that its program fits to its keys (None where those are broken)."""
    if keys.stop is None:
        return program.default_stop if own is None else program.stop_for(own)
    if not keys.stop or keys.stop[-1].signal != "KILL":
        site.problem("must end with KILL, or a process that ignores the rest would stay for ever", "stop")
    if any(step.signal == "KILL" for step in keys.stop[:-1]):
        site.problem("KILL must be the last step: nothing is left for one after it", "stop")
    if len(keys.stop) > MAX_STOP_STEPS:
        site.problem(f"has more than {MAX_STOP_STEPS} steps", "stop")
    for word in dict.fromkeys(step.signal for step in keys.stop):
        if word in DRIVER_STEPS and word not in program.traits.driver_steps:
            able = " and ".join(sorted(p.name for p in PROGRAMS.values() if word in p.traits.driver_steps))
            site.problem(f"{word} is a step of {able} pools; a {program.name} pool can be sent signals only", "stop")
    return keys.stop if own is None else program.stop_for(own, keys.stop)


def restart_policy(site: Site, keys: RestartKeys | None, program: Program) -> RestartPolicy:
    """`when` is the program's own unless the pool says it."""
    keys = keys or RestartKeys()
    if keys.backoff_max < keys.backoff:
        named = "backoff_max" if site.is_given("restart", "backoff_max") else "backoff"
        shown = f"{format_duration(keys.backoff)} is more than `backoff_max`, {format_duration(keys.backoff_max)}"
        site.problem(f"`backoff` of {shown}", "restart", named)
    when: Any = keys.when or program.default_restart_when
    return RestartPolicy(
        when=when,
        backoff_initial_seconds=keys.backoff,
        backoff_max_seconds=keys.backoff_max,
        stable_seconds=keys.stable,
        intensity_restarts=keys.limit,
        intensity_period_seconds=keys.period,
    )


def rollout_policy(site: Site, keys: CommonKeys, program: Program) -> RolloutPolicy:
    """What the pool says, and the program's own numbers for the rest."""
    default, given = program.default_rollout, keys.rollout
    if given is None:
        return default
    surge = default.max_surge if given.max_surge is None else given.max_surge
    unavailable = default.max_unavailable if given.max_unavailable is None else given.max_unavailable
    min_ready = default.min_ready_seconds if given.min_ready is None else given.min_ready
    if surge == 0 and unavailable == 0:
        site.problem("max_surge and max_unavailable are both 0: no process could ever be replaced", "rollout")
    if surge > 0 and program.traits.exclusive:
        site.problem("must be 0: at most one process may ever run", "rollout", "max_surge")
    return RolloutPolicy(surge, unavailable, min_ready, given.canary, given.one_by_one)


def log_policy(site: Site, keys: LogKeys | None) -> LogPolicy:
    """An empty directory is the daemon's own log_dir."""
    keys = keys or LogKeys()
    directory = str(site.path(keys.directory, "log", "directory")) if keys.directory else ""
    return LogPolicy(directory, keys.max_size, keys.keep, keys.block)


def limits(site: Site, keys: LimitKeys | None, *, is_root: bool) -> Limits:
    """What only root may ask of the kernel is refused here, where its place is known."""
    keys = keys or LimitKeys()
    for key, value in (("nice", keys.nice), ("oom_score_adj", keys.oom_score_adj)):
        if value is not None and value < 0 and not is_root:
            site.problem("only a daemon of root may go below 0", "limits", key)
    return Limits(
        open_files=keys.open_files,
        processes=keys.processes,
        core_size_bytes=keys.core_size,
        memory_bytes=keys.memory,
        nice=keys.nice,
        oom_score_adj=keys.oom_score_adj,
        umask=keys.umask,
    )
