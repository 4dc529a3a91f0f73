"""Celery beat: at most one process, ever.  Two beats on one schedule send every task twice, without an error.

A rollout therefore stops the old beat first; its absence delays a task, a second one duplicates it.  `celery beat`
has no -I, so our agent is the command itself: a module that waits for the scheduler's first word and runs celery.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from supervisor_d.core.spec import Installed, Launch, LaunchContext, PoolSpec, Role, RolloutPolicy, StopStep, Traits
from supervisor_d.core.units import FilePath, Range, Short, Unit
from supervisor_d.programs.celery import LogLevel
from supervisor_d.programs.celery_advice import version_warnings
from supervisor_d.programs.common import interpreter, launch_of, owned_argument, python_environment, with_agents

AGENT = "supervisor_d_celery_beat"
"""Module of supervisor_d/agents/ that runs `celery`."""

LEASE_ENV = "SUPERVISOR_D_LEASE"
LEASE_SCHEMES = ("redis://", "rediss://", "unix://")
LeaseDuration = Annotated[float, Unit("duration"), Range(1.0, 3600.0)]

_DETACHED = "a detached beat would escape its supervisor"
OWNED_ARGS: Mapping[str, str] = {
    "-A": "say `app:` instead",
    "--app": "say `app:` instead",
    "-s": "say `schedule:` instead",
    "--schedule": "say `schedule:` instead",
    "-S": "say `scheduler:` instead",
    "--scheduler": "say `scheduler:` instead",
    "-l": "say `loglevel:` instead",
    "--loglevel": "say `loglevel:` instead",
    "--detach": _DETACHED,
    "--pidfile": "the daemon knows beat by its pidfd",
    "-f": "output goes to the pool's log",
    "--logfile": "output goes to the pool's log",
    "--uid": "say `user:` instead",
    "--gid": "say `group:` instead",
    "--workdir": "say `cwd:` instead",
    "--umask": "say `limits: {umask: ...}` instead",
}


@dataclass(frozen=True, slots=True)
class LeaseKeys:
    """A lease in Redis, by which one beat among several hosts sends, and the others stand by."""

    url: str = field(
        default="",
        metadata={
            "doc": "The Redis that keeps the lease: `redis://`, `rediss://` or `unix://`, the same for all hosts."
        },
    )
    variable: str = field(
        default="", metadata={"doc": "Instead of `url`: the variable of the pool's environment that holds it."}
    )
    key: str = field(
        default="",
        metadata={
            "doc": "The name of the lease.  Default: `supervisor-d:beat:` and `app`; hosts that share it take turns."
        },
    )
    ttl: LeaseDuration = field(
        default=15.0,
        metadata={"doc": "How long after its last sign of life a beat that vanished is waited for."},
    )


@dataclass(frozen=True, slots=True)
class BeatKeys:
    """The config keys of a celery-beat pool, beside the common ones."""

    app: str = field(metadata={"doc": "The Celery application, as `celery -A` takes it."})
    schedule: FilePath = field(
        default="",
        metadata={
            "doc": "The file that remembers when each task last ran.  Default: the application's "
            "`beat_schedule_filename`, which is `celerybeat-schedule` in `cwd`."
        },
    )
    scheduler: str = field(default="", metadata={"doc": "A scheduler class; default: the application's own."})
    loglevel: LogLevel = field(default="INFO", metadata={"doc": "The least level that is logged."})
    agent: bool = field(
        default=True,
        metadata={
            "doc": "Load our agent, which tells when the schedule is loaded.  Without it beat counts as ready as soon "
            "as it was started."
        },
    )
    lease: Annotated[LeaseKeys, Short("url")] | None = field(
        default=None, metadata={"doc": "Take turns with the beats of other hosts; or just the `url`."}
    )
    args: tuple[str, ...] = field(default=(), metadata={"doc": "More arguments for `celery beat`, as in a shell."})


class CeleryBeat:
    """The adapter for Celery beat."""

    name = "celery-beat"
    keys_type: type = BeatKeys
    traits = Traits(exclusive=True, respawn="when-empty", ready_by="driver", deployed=True)
    default_stop: tuple[StopStep, ...] = (StopStep("TERM", 10.0), StopStep("KILL"))
    default_rollout = RolloutPolicy(max_surge=0, max_unavailable=1)
    default_restart_when = "always"
    default_workers = 1

    def stop_for(self, keys: Any, given: tuple[StopStep, ...] = ()) -> tuple[StopStep, ...]:
        """The default for all keys: TERM makes beat write its schedule and leave, in a fraction of a second."""
        return given or self.default_stop

    def sizes(self, spec: PoolSpec, workers: int) -> tuple[int, ...]:
        """Never more than one."""
        return (1,) if workers > 0 else ()

    def gates(self, spec: PoolSpec) -> tuple[Role, ...]:
        """None: a second beat would send everything twice, were it only for a moment."""
        return ()

    def launch(self, spec: PoolSpec, context: LaunchContext) -> Launch:
        """The one beat."""
        keys: BeatKeys = spec.keys
        module = AGENT if keys.agent else "celery"
        argv = (interpreter(spec), "-m", module, "-A", keys.app, "beat", *_options(keys), *keys.args)
        env = python_environment(spec, context)
        if keys.agent:
            env = with_agents(env, context.agents_dir)
        if keys.lease is not None:
            env = {**env, LEASE_ENV: _lease(keys.lease, keys.app, spec.env)}
        return launch_of(spec, context, argv, env, agent=keys.agent)

    def problems(self, spec: PoolSpec) -> Mapping[str, str]:
        """Mistakes that only show when the keys are seen together."""
        return dict(_problems(spec.keys, spec))

    def warnings(self, spec: PoolSpec, installed: Installed) -> Iterable[tuple[str, str]]:
        """What these versions cannot promise; of what the application's own settings cannot, apps.py asks."""
        return version_warnings(spec, installed)


def _options(keys: BeatKeys) -> Iterator[str]:
    yield from ("-l", keys.loglevel, "--pidfile=")
    if keys.schedule:
        yield from ("-s", keys.schedule)
    if keys.scheduler:
        yield from ("-S", keys.scheduler)


def _lease(lease: LeaseKeys, app: str, env: Mapping[str, str]) -> str:
    """What beat is told of its lease.  The url may hold a password: it travels in the environment alone."""
    url = lease.url or env.get(lease.variable, "")
    return json.dumps({"url": url, "key": lease.key or f"supervisor-d:beat:{app}", "ttl": lease.ttl})


def _lease_problem(lease: LeaseKeys, keys: BeatKeys, env: Mapping[str, str]) -> str:
    """What is wrong with a lease, without its url; empty when all is well."""
    if not keys.agent:
        return "the agent keeps the lease: drop `agent: false`"
    if bool(lease.url) == bool(lease.variable):
        return "needs either `url` or `variable`"
    if lease.variable and lease.variable not in env:
        return f"the pool's environment has no variable {lease.variable}: set it in `env` or in an env file"
    url = lease.url or env[lease.variable]
    if not url.startswith(LEASE_SCHEMES):
        where = "url" if lease.url else lease.variable
        return f"{where} must start with {', '.join(LEASE_SCHEMES)}: only a single Redis can keep a lease"
    return ""


def _problems(keys: BeatKeys, spec: PoolSpec) -> Iterator[tuple[str, str]]:
    if spec.workers not in (0, 1):
        yield "workers", "beat runs at most once: two of them send every task twice"
    if why := owned_argument(keys.args, OWNED_ARGS):
        yield "args", why
    if keys.lease is not None and (why := _lease_problem(keys.lease, keys, spec.env)):
        yield "lease", why
    if spec.listeners:
        yield "bind", "beat serves no socket"
