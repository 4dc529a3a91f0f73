"""What every program shares: the environment, the interpreter, and the check of arguments that the daemon owns."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import PurePath

from supervisor_d.core.spec import Launch, LaunchContext, PoolSpec

RESERVED_ENV = frozenset({"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET"})
"""Set for each process by whoever execs it (sd_listen_fds(3), sd_notify(3)); a value from elsewhere would lie."""


def interpreter(spec: PoolSpec) -> str:
    """The absolute path of the pool's Python: its `python:` key, else the one that runs the daemon."""
    return in_release(spec, spec.python) or sys.executable


def in_release(spec: PoolSpec, path: str) -> str:
    """A path below `cwd` as it was when the config was read: behind a link, the release and not its successor."""
    below = path.removeprefix(f"{spec.cwd}/")
    return f"{spec.root}/{below}" if spec.root and spec.cwd and below != path else path


def environment(spec: PoolSpec, context: LaunchContext, *, drop: frozenset[str] = frozenset()) -> dict[str, str]:
    """The complete environment of a process: the clean base, then the pool's own, without what the daemon owns.

    With `python:` set, that interpreter's directory comes first in PATH, as in an activated virtual environment, so
    that `python` and the scripts beside it are the pool's; a PATH in the pool's own `env` is left as it is.
    """
    merged = {**context.base_env, **spec.env}
    if spec.python and "PATH" not in spec.env:
        merged["PATH"] = ":".join(filter(None, (str(PurePath(interpreter(spec)).parent), merged.get("PATH", ""))))
    return {key: value for key, value in merged.items() if key not in RESERVED_ENV | drop}


def python_environment(spec: PoolSpec, context: LaunchContext, *, drop: frozenset[str] = frozenset()) -> dict[str, str]:
    """`environment`, with output unbuffered unless the pool says otherwise: a killed process keeps no lines back."""
    return {"PYTHONUNBUFFERED": "1", **environment(spec, context, drop=drop)}


def with_agents(env: Mapping[str, str], agents_dir: str) -> dict[str, str]:
    """`env` with our agents importable, after everything that the user put on PYTHONPATH."""
    return {**env, "PYTHONPATH": ":".join(filter(None, (env.get("PYTHONPATH", ""), agents_dir)))}


def launch_of(
    spec: PoolSpec,
    context: LaunchContext,
    argv: Iterable[str],
    env: Mapping[str, str],
    *,
    orphan_grace_seconds: float = 0.0,
    agent: bool = False,
) -> Launch:
    """A Launch with all that comes from the common keys; every listener of the pool is passed."""
    return Launch(
        argv=tuple(argv),
        env=dict(env),
        cwd=spec.root or spec.cwd,
        user=spec.user,
        group=spec.group,
        listeners=tuple(range(len(spec.listeners))),
        limits=spec.limits,
        log=spec.log,
        log_name=f"{spec.name}.{context.slot if context.role == 'serve' else context.role}",
        orphan_grace_seconds=orphan_grace_seconds,
        notify=any(probe.kind == "notify" for probe in spec.ready),
        agent=agent,
    )


def words(command: str | tuple[str, ...]) -> tuple[str, ...]:
    """The argv of a command given as a list, or as one string split as a POSIX shell would (never run by one).

    Raises ValueError for a string with an unclosed quotation.
    """
    return tuple(shlex.split(command)) if isinstance(command, str) else command


def argv_of(spec: PoolSpec, command: str | tuple[str, ...]) -> tuple[str, ...]:
    """The argv of a pool's command, its program in the pool's own release.  Raises ValueError, as `words` does."""
    program, *args = words(command)
    return (in_release(spec, program), *args)


def owned_argument(args: Iterable[str], owned: Mapping[str, str]) -> str:
    """Why `args` cannot be passed on, for the first argument that the daemon owns; empty when there is none.

    `owned` maps options to the advice, `"--bind": "say bind: instead"`.  Found are `--bind=x`, `-bx` and, as argparse
    accepts them, abbreviations of long options (`--bin`).
    """
    for arg in args:
        for option, advice in owned.items():
            if _is_option(arg, option):
                return f"{arg.partition('=')[0]} is set by supervisor-d: {advice}"
    return ""


def _is_option(arg: str, option: str) -> bool:
    if option.startswith("--"):
        name = arg.partition("=")[0]
        return len(name) > 3 and option.startswith(name)
    return arg.startswith(option) and not arg.startswith("--")
