"""gunicorn: one disposable master per generation, on listeners that the daemon binds and every generation inherits.

The daemon never sends HUP or USR2: HUP takes the old workers down before the new ones have booted, and USR2 cannot
work with inherited sockets.  A new generation is a new master beside the old one; scaling is done inside the living
master through its control socket (runtime/drivers/gunicorn.py).

gunicorn >= 25.3 is supported; a drop-free overlap with gthread needs >= 27.0.1 (gunicorn #3821).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from supervisor_d.core.spec import (
    Fitness,
    Installed,
    Launch,
    LaunchContext,
    PoolSpec,
    Role,
    RolloutPolicy,
    StopStep,
    Traits,
)
from supervisor_d.core.units import Duration, PositiveDuration, PositiveSize, Range
from supervisor_d.programs import gunicorn_advice
from supervisor_d.programs.addresses import private_socket
from supervisor_d.programs.common import interpreter, launch_of, owned_argument, python_environment, with_agents
from supervisor_d.programs.versions import older

CONTROL_SOCKET = "gunicorn.ctl"
"""File name of the master's control socket, in the process's private directory."""

AGENT = "supervisor_d_gunicorn_agent"
"""Module of supervisor_d/agents/ that is run in place of gunicorn, and is gunicorn."""

QUIT_SECONDS = 3.0
OWNED_ENV = frozenset({"GUNICORN_CMD_ARGS", "GUNICORN_FD", "GUNICORN_PID", "WEB_CONCURRENCY"})
OWNED_ARGS: Mapping[str, str] = {
    "-b": "say `bind:` instead",
    "--bind": "say `bind:` instead",
    "-w": "say `workers:` instead",
    "--workers": "say `workers:` instead",
    "-k": "say `worker_class:` instead",
    "--worker-class": "say `worker_class:` instead",
    "--threads": "say `threads:` instead",
    "--worker-connections": "say `worker_connections:` instead",
    "-t": "say `timeout:` instead",
    "--timeout": "say `timeout:` instead",
    "--graceful-timeout": "say `graceful_timeout:` instead",
    "--keep-alive": "say `keep_alive:` instead",
    "--preload": "say `preload: true` instead",
    "-n": "each generation needs a name of its own",
    "--name": "each generation needs a name of its own",
    "--control-socket": "the daemon asks the master for its workers there",
    "--no-control-socket": "the daemon asks the master for its workers there",
    "--worker-tmp-dir": "heartbeats belong on a memory file system",
    "-D": "a daemonized master would escape its supervisor",
    "--daemon": "a daemonized master would escape its supervisor",
    "-p": "the daemon knows the master by its pidfd",
    "--pid": "the daemon knows the master by its pidfd",
    "--reload": "`supervisor-d restart` rolls new code without a gap",
    "--reuse-port": "connections in the queue of a closing socket would be reset",
    "-u": "say `user:` instead",
    "--user": "say `user:` instead",
    "-g": "say `group:` instead",
    "--group": "say `group:` instead",
    "--chdir": "say `cwd:` instead",
}


@dataclass(frozen=True, slots=True)
class GunicornKeys:
    """The config keys of a gunicorn pool, beside the common ones."""

    app: str = field(metadata={"doc": "The WSGI or ASGI application, as `module` or `module:attribute`."})
    worker_class: str = field(
        default="sync", metadata={"doc": "gunicorn's worker class: sync, gthread, gevent, asgi or a class path."}
    )
    threads: Annotated[int, Range(1, 4096)] | None = field(
        default=None, metadata={"doc": "Threads of each worker; for `worker_class: gthread`."}
    )
    worker_connections: Annotated[int, Range(1, 1_000_000)] | None = field(
        default=None,
        metadata={
            "doc": "Connections that one worker holds at a time.  With gthread the default is its threads and a third "
            "more, so that a worker does not hoard connections that another could serve; else gunicorn's own."
        },
    )
    timeout: Duration = field(
        default=30.0, metadata={"doc": "A worker silent for longer is replaced.  Rounded up to whole seconds."}
    )
    graceful_timeout: Duration = field(
        default=30.0, metadata={"doc": "How long a stopping worker may finish its requests.  Rounded up to seconds."}
    )
    keep_alive: Duration | None = field(
        default=None,
        metadata={
            "doc": "How long an idle connection stays open; longer than the proxy's own idle time, or requests race "
            "with the close.  Default 75s with sync and gthread; 5s with other classes, whose stop waits for it."
        },
    )
    preload: bool = field(default=False, metadata={"doc": "Import the application once, in the master."})
    request_timeout: PositiveDuration | None = field(
        default=None,
        metadata={
            "doc": "A worker with a request that runs for longer is replaced, its stacks in the log; needs `agent`.  "
            "Default: no limit; `timeout` limits a request with sync workers only."
        },
    )
    max_worker_memory: PositiveSize | None = field(
        default=None,
        metadata={"doc": "A worker whose share of memory (PSS) is larger is replaced.  Default: no limit."},
    )
    max_worker_age: PositiveDuration | None = field(
        default=None,
        metadata={"doc": "A worker older than this, and up to a tenth more, is replaced.  Default: no limit."},
    )
    agent: bool = field(
        default=True,
        metadata={
            "doc": "Load our agent: it tells what each worker serves, and has workers finish their requests when their "
            "master is killed."
        },
    )
    args: tuple[str, ...] = field(default=(), metadata={"doc": "More arguments for gunicorn, as in a shell."})


class Gunicorn:
    """The adapter for gunicorn."""

    name = "gunicorn"
    keys_type: type = GunicornKeys
    traits = Traits(scale_in_place=True, respawn="at-exit", ready_by="driver", deployed=True)
    default_stop: tuple[StopStep, ...] = (StopStep("TERM", 31.0), StopStep("QUIT", QUIT_SECONDS), StopStep("KILL"))
    default_rollout = RolloutPolicy(max_surge=1, max_unavailable=0)
    default_restart_when = "always"
    default_workers = 1

    def stop_for(self, keys: Any, given: tuple[StopStep, ...] = ()) -> tuple[StopStep, ...]:
        """TERM for a second longer than gunicorn itself waits for its workers; QUIT then makes it kill them."""
        grace = math.ceil(keys.graceful_timeout)
        return given or (StopStep("TERM", grace + 1.0), StopStep("QUIT", QUIT_SECONDS), StopStep("KILL"))

    def sizes(self, spec: PoolSpec, workers: int) -> tuple[int, ...]:
        """One master holds all workers; none of them, no master."""
        return (workers,) if workers > 0 else ()

    def gates(self, spec: PoolSpec) -> tuple[Role, ...]:
        """It must import, and one worker must answer the probes."""
        return ("preflight", "canary") if spec.rollout.canary else ()

    def launch(self, spec: PoolSpec, context: LaunchContext) -> Launch:
        """One master with `context.workers` workers on all of the pool's listeners; on a private socket as a canary."""
        keys: GunicornKeys = spec.keys
        module = AGENT if keys.agent else "gunicorn"
        argv = (interpreter(spec), "-m", module, *_options(keys, spec, context), *keys.args, keys.app)
        grace = float(math.ceil(keys.graceful_timeout))
        env = python_environment(spec, context, drop=OWNED_ENV)
        if keys.agent:
            env = {**with_agents(env, context.agents_dir), "SUPERVISOR_D_AGENT_DIR": context.private_dir}
        launch = launch_of(spec, context, argv, env, orphan_grace_seconds=grace)
        if context.role != "serve":
            return replace(launch, listeners=(), orphan_grace_seconds=0.0)
        return replace(launch, fitness=_fitness(keys))

    def problems(self, spec: PoolSpec) -> Mapping[str, str]:
        """Mistakes that only show when the keys are seen together."""
        return dict(_problems(spec.keys, spec))

    def warnings(self, spec: PoolSpec, installed: Installed) -> Iterable[tuple[str, str]]:
        """What this version and these keys cannot promise."""
        return gunicorn_advice.warnings(spec, installed)


def _fitness(keys: GunicornKeys) -> Fitness:
    requests = keys.request_timeout if keys.agent else None
    return Fitness(requests, keys.max_worker_memory, keys.max_worker_age, float(math.ceil(keys.graceful_timeout)))


def _options(keys: GunicornKeys, spec: PoolSpec, context: LaunchContext) -> Iterator[str]:
    yield from ("-w", str(context.workers), "-k", keys.worker_class)
    if keys.threads is not None:
        yield from ("--threads", str(keys.threads))
    connections = _worker_connections(keys)
    if connections is not None:
        yield from ("--worker-connections", str(connections))
    yield from ("--timeout", str(math.ceil(keys.timeout)))
    yield from ("--graceful-timeout", str(math.ceil(keys.graceful_timeout)))
    yield from ("--keep-alive", str(math.ceil(_keep_alive_seconds(keys))))
    yield from ("--worker-tmp-dir", "/dev/shm")  # noqa: S108  gunicorn makes its files there itself, unlinked at once
    # Orphans of a former master are found by name (gunicorn/arbiter.py): a name shared by two generations makes
    # the new master kill the old one's helpers.
    role = "" if context.role == "serve" else f"-{context.role}"
    yield from ("--name", f"{spec.name}-g{context.generation}{role}")
    if not older(context.installed("gunicorn"), gunicorn_advice.CONTROL_SOCKET_SINCE):
        yield from ("--control-socket", f"{context.private_dir}/{CONTROL_SOCKET}")
    if keys.preload:
        yield "--preload"
    if context.role == "preflight":
        yield "--check-config"  # imports the application, in a process of its own (gunicorn/app/base.py)
    if context.role == "canary":
        yield from ("-b", str(private_socket(context.private_dir)))


def _worker_connections(keys: GunicornKeys) -> int | None:
    if keys.worker_connections is not None or keys.worker_class != "gthread":
        return keys.worker_connections
    threads = keys.threads or 1
    return threads + max(1, threads // 3)


def _keep_alive_seconds(keys: GunicornKeys) -> float:
    if keys.keep_alive is not None:
        return keys.keep_alive
    return 75.0 if keys.worker_class in ("sync", "gthread") else 5.0


def _problems(keys: GunicornKeys, spec: PoolSpec) -> Iterator[tuple[str, str]]:
    if not spec.listeners:
        yield "bind", "missing: say where to listen, as in `bind: 127.0.0.1:8000`"
    if spec.workers < 1:
        yield "workers", "must be 1 or more: a master without workers serves nobody"
    if keys.threads is not None and keys.worker_class != "gthread":
        yield "threads", f"works with `worker_class: gthread` only, not with {keys.worker_class}"
    if keys.request_timeout is not None and not keys.agent:
        yield "request_timeout", "needs `agent: true`: without it nobody tells how long a request runs"
    if why := owned_argument(keys.args, OWNED_ARGS):
        yield "args", why
    first = spec.stop[0] if spec.stop else None
    if first is not None and first.signal == "TERM" and first.wait_seconds < keys.graceful_timeout:
        yield "stop", f"TERM waits {first.wait_seconds:g}s, less than `graceful_timeout` ({keys.graceful_timeout:g}s)"
