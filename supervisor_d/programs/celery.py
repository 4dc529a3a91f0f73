"""Celery workers: one or more nodes with unique names, each a main process with a prefork pool of processes.

A pool's `workers` are pool processes; they are spread over nodes of at most `concurrency`.  Nodes fill up one after
the other, so that scaling never resizes a node but the last: 10 workers with `concurrency: 4` are nodes of 4, 4, 2.

Signals go to the main process alone.  A TERM to the group would end the tasks inside the pool processes and lose
them; TERM to main waits for the running tasks, QUIT cancels them and gives unacknowledged messages back, and KILL
leaves what was delivered to the visibility timeout of the broker.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from supervisor_d.core.spec import Installed, Launch, LaunchContext, PoolSpec, Role, RolloutPolicy, StopStep, Traits
from supervisor_d.core.units import Range
from supervisor_d.programs.common import interpreter, launch_of, owned_argument, python_environment, with_agents

AGENT = "supervisor_d_celery_agent"
CANARY_ENV = "SUPERVISOR_D_CANARY"
"""Tells our agent that this node is to come up and to take no message."""
"""Module of supervisor_d/agents/: a worker imports it with -I, beat is run by it."""

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
LARGEST_DEFAULT_NODE = 8
_DETACHED = "a detached worker would escape its supervisor"
_NODE_NAME = "each node needs a name of its own"
_AUTOSCALE = "say `workers:` instead; Celery's own autoscaler can lose tasks when it shrinks"
_BEAT = "two beats send every task twice; make a pool with `program: celery-beat`"
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
    agent: bool = field(
        default=True,
        metadata={
            "doc": "Load our agent, which tells when the worker consumes.  Without it a worker counts as ready as "
            "soon as it was started."
        },
    )
    args: tuple[str, ...] = field(default=(), metadata={"doc": "More arguments for `celery worker`, as in a shell."})


class CeleryWorker:
    """The adapter for Celery workers."""

    name = "celery"
    keys_type: type = CeleryKeys
    traits = Traits(respawn="when-empty", ready_by="driver")
    default_stop: tuple[StopStep, ...] = (StopStep("TERM", 60.0), StopStep("QUIT", 10.0), StopStep("KILL"))
    default_rollout = RolloutPolicy(max_surge=1, max_unavailable=0)
    default_restart_when = "always"
    default_workers = 1

    def stop_for(self, keys: Any) -> tuple[StopStep, ...]:
        """The default for all keys."""
        return self.default_stop

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
        if context.role == "canary":
            env = {**env, CANARY_ENV: "1"}
        return launch_of(spec, context, argv, env, agent=keys.agent)

    def problems(self, spec: PoolSpec) -> Mapping[str, str]:
        """Mistakes that only show when the keys are seen together."""
        return dict(_problems(spec.keys, spec))

    def warnings(self, spec: PoolSpec, installed: Installed) -> Iterable[tuple[str, str]]:
        """None yet."""
        return ()


def _node_size(spec: PoolSpec) -> int:
    """From the config's `workers`, not the operator's: scaling must not change the nodes that are there."""
    keys: CeleryKeys = spec.keys
    return max(1, keys.concurrency or min(spec.workers, LARGEST_DEFAULT_NODE))


def _options(keys: CeleryKeys, spec: PoolSpec, context: LaunchContext) -> Iterator[str]:
    serial = context.process_id.rpartition(".")[2]
    yield from ("-n", f"{spec.name}-{context.slot}-g{context.generation}-{serial}@%h")
    yield from ("-c", str(context.workers))
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
    if spec.listeners:
        yield "bind", "a Celery worker serves no socket"
