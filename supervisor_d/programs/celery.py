"""Celery workers: one or more nodes with unique names, each a main process with a prefork pool of processes.

A pool's `workers` are pool processes; they are spread over nodes of at most `concurrency`.  Nodes fill up one after
the other, so that scaling never resizes a node but the last: 10 workers with `concurrency: 4` are nodes of 4, 4, 2.
A node is resized in place, by its agent, and never in the middle of a task; without one it is replaced.

Signals go to the main process alone.  A TERM to the group would end the tasks inside the pool processes and lose
them.  The stop is a conversation:

    DRAIN          by the agent: nothing more is taken.  Without it a TERM hides what was just popped until the exit
    TERM           the running tasks may end; with `unsafe_grace` for those that an interruption would lose
    QUIT           the running tasks are cancelled, and what is not acknowledged goes back to its queue
    KILL-WORKERS   a task that ignores that: its pool process is killed, and the main process still gives all back
    KILL           the whole tree; what it held is given back by a helper of the agent (core/aftercare.py)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from supervisor_d.core.spec import (
    DRAIN,
    KILL_WORKERS,
    Installed,
    Launch,
    LaunchContext,
    PoolSpec,
    Role,
    RolloutPolicy,
    StopStep,
    Traits,
)
from supervisor_d.core.units import Duration, Range
from supervisor_d.programs.celery_advice import version_warnings
from supervisor_d.programs.common import interpreter, launch_of, owned_argument, python_environment, with_agents

AGENT = "supervisor_d_celery_agent"
"""Module of supervisor_d/agents/: a worker imports it with -I."""
CANARY_ENV = "SUPERVISOR_D_CANARY"
"""Tells our agent that this node is to come up and to take no message."""
AGENT_DIR_ENV = "SUPERVISOR_D_AGENT_DIR"
"""Where the agent keeps its heartbeat and its ledger: the process's private directory."""
AGENT_OFF_ENV = "SUPERVISOR_D_AGENT_OFF"
AGENT_FEATURES = (
    "heartbeat", "drain", "ledger", "lend", "repair", "pool", "reap", "settings", "stamp", "freeze", "oom", "stacks",
)  # fmt: skip
"""What `agent_off` may name."""

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
LARGEST_DEFAULT_NODE = 8
_DETACHED = "a detached worker would escape its supervisor"
_NODE_NAME = "each node needs a name of its own"
_AUTOSCALE = "say `workers:` instead; Celery's own autoscaler can lose tasks when it shrinks"
_BEAT = "two beats send every task twice; make a pool with `program: celery-beat`"
PREFORK = "processes"
"""Celery's other name for its prefork pool: by `-P prefork`, its default, it understands whatever the application's
`worker_pool` says (celery/bin/worker.py, WorkersPool)."""
_PREFORK = "only the prefork pool can be watched and stopped process by process"
OWNED_ARGS: Mapping[str, str] = {
    "-A": "say `app:` instead",
    "--app": "say `app:` instead",
    "-Q": "say `queues:` instead",
    "--queues": "say `queues:` instead",
    "-c": "say `concurrency:` and `workers:` instead",
    "--concurrency": "say `concurrency:` and `workers:` instead",
    "--prefetch-multiplier": "say `prefetch:` instead",
    "-l": "say `loglevel:` instead",
    "--loglevel": "say `loglevel:` instead",
    "-n": _NODE_NAME,
    "--hostname": _NODE_NAME,
    "-P": _PREFORK,
    "--pool": _PREFORK,
    "-B": _BEAT,
    "--beat": _BEAT,
    "-D": _DETACHED,
    "--detach": _DETACHED,
    "--autoscale": _AUTOSCALE,
    "-E": "events cost a third of the throughput; what the daemon shows does not need them",
    "--task-events": "events cost a third of the throughput; what the daemon shows does not need them",
    "--pidfile": "the daemon knows the worker by its pidfd",
    "-f": "output goes to the pool's log",
    "--logfile": "output goes to the pool's log",
    "--uid": "say `user:` instead",
    "--gid": "say `group:` instead",
    "--workdir": "say `cwd:` instead",
    "--umask": "say `limits: {umask: ...}` instead",
}


@dataclass(frozen=True, slots=True)
class CeleryKeys:
    """The config keys of a pool of Celery workers, beside the common ones."""

    app: str = field(metadata={"doc": "The Celery application, as `celery -A` takes it."})
    queues: tuple[str, ...] = field(
        default=(), metadata={"doc": "The queues to consume; none: those that the application declares."}
    )
    concurrency: Annotated[int, Range(1, 1024)] | None = field(
        default=None,
        metadata={"doc": f"Pool processes in one node.  Default: `workers`, at most {LARGEST_DEFAULT_NODE}."},
    )
    prefetch: Annotated[int, Range(1, 10_000)] = field(
        default=1, metadata={"doc": "Messages that a node takes for each of its pool processes (prefetch multiplier)."}
    )
    loglevel: LogLevel = field(default="INFO", metadata={"doc": "The least level that is logged."})
    unsafe_grace: Duration = field(
        default=600.0,
        metadata={
            "doc": "How long a stop waits, in all, behind TERM, while tasks run that were acknowledged before they "
            "began: to interrupt one is to lose it."
        },
    )
    agent: bool = field(
        default=True,
        metadata={
            "doc": "Load our agent, which tells when the worker consumes.  Without it a worker counts as ready as "
            "soon as it was started."
        },
    )
    stuck_after: Duration = field(
        default=30.0,
        metadata={
            "doc": "A worker that shows no progress for so long, with its broker there, is replaced; its stacks go to "
            "its log first.  `0s`: never.  A long task is progress."
        },
    )
    agent_off: tuple[str, ...] = field(
        default=(), metadata={"doc": "Features of the agent that stay off, like `ledger`; see celery.md."}
    )
    args: tuple[str, ...] = field(default=(), metadata={"doc": "More arguments for `celery worker`, as in a shell."})


class CeleryWorker:
    """The adapter for Celery workers."""

    name = "celery"
    keys_type: type = CeleryKeys
    traits = Traits(
        scale_in_place=True,
        respawn="when-empty",
        ready_by="driver",
        driver_steps=(DRAIN, KILL_WORKERS),
        aftercare=True,
        deployed=True,
    )
    default_stop: tuple[StopStep, ...] = (
        StopStep(DRAIN, 2.0),
        StopStep("TERM", 30.0),
        StopStep("QUIT", 4.0),
        StopStep(KILL_WORKERS, 3.0),
        StopStep("KILL"),
    )
    default_rollout = RolloutPolicy(max_surge=1, max_unavailable=0)
    default_restart_when = "always"
    default_workers = 1

    def stop_for(self, keys: Any, given: tuple[StopStep, ...] = ()) -> tuple[StopStep, ...]:
        """Behind TERM, unsafe tasks may have their longer grace."""
        steps = given or self.default_stop
        return tuple(
            replace(step, unsafe_wait_seconds=keys.unsafe_grace) if step.signal == "TERM" else step for step in steps
        )

    def sizes(self, spec: PoolSpec, workers: int) -> tuple[int, ...]:
        """Full nodes first, the rest in the last one."""
        full, rest = divmod(max(workers, 0), _node_size(spec))
        return (_node_size(spec),) * full + ((rest,) if rest else ())

    def gates(self, spec: PoolSpec) -> tuple[Role, ...]:
        """A node that takes no message must come up; only our agent can keep it from taking any."""
        return ("canary",) if spec.rollout.canary and spec.keys.agent else ()

    def launch(self, spec: PoolSpec, context: LaunchContext) -> Launch:
        """One node with `context.workers` pool processes."""
        keys: CeleryKeys = spec.keys
        argv = (interpreter(spec), "-m", "celery", "-A", keys.app, "worker", *_options(keys, spec, context), *keys.args)
        env = python_environment(spec, context)
        if keys.agent:
            env = with_agents(env, context.agents_dir)
            env = {**env, AGENT_DIR_ENV: context.private_dir, AGENT_OFF_ENV: ",".join(keys.agent_off)}
        if context.role == "canary":
            env = {**env, CANARY_ENV: "1"}
        stuck_after = keys.stuck_after if keys.agent else 0.0
        return replace(launch_of(spec, context, argv, env, agent=keys.agent), stuck_after_seconds=stuck_after)

    def problems(self, spec: PoolSpec) -> Mapping[str, str]:
        """Mistakes that only show when the keys are seen together."""
        return dict(_problems(spec.keys, spec))

    def warnings(self, spec: PoolSpec, installed: Installed) -> Iterable[tuple[str, str]]:
        """What these versions cannot promise; of what the application's own settings cannot, apps.py asks."""
        return version_warnings(spec, installed)


def _node_size(spec: PoolSpec) -> int:
    """From the config's `workers`, not the operator's: scaling must not change the nodes that are there."""
    keys: CeleryKeys = spec.keys
    return max(1, keys.concurrency or min(spec.workers, LARGEST_DEFAULT_NODE))


def _options(keys: CeleryKeys, spec: PoolSpec, context: LaunchContext) -> Iterator[str]:
    serial = context.process_id.rpartition(".")[2]
    yield from ("-n", f"{spec.name}-{context.slot}-g{context.generation}-{serial}@%h")
    yield from ("-P", PREFORK, "-c", str(context.workers))
    if keys.queues:
        yield from ("-Q", ",".join(keys.queues))
    yield from ("-O", "fair", "--prefetch-multiplier", str(keys.prefetch))
    yield from ("--without-gossip", "--without-mingle", "--without-heartbeat", "-l", keys.loglevel)
    if keys.agent:
        yield from ("-I", AGENT)


def _problems(keys: CeleryKeys, spec: PoolSpec) -> Iterator[tuple[str, str]]:
    for queue in keys.queues:
        if not queue or "," in queue:
            yield "queues", f"{queue!r} is not the name of one queue"
    if why := owned_argument(keys.args, OWNED_ARGS):
        yield "args", why
    for name in keys.agent_off:
        if name not in AGENT_FEATURES:
            yield "agent_off", f"the agent has no feature {name!r}; there are: {', '.join(AGENT_FEATURES)}"
    if spec.listeners:
        yield "bind", "a Celery worker serves no socket"
