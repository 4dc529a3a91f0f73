"""Any program: each worker is one process of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from supervisor_d.core.spec import Installed, Launch, LaunchContext, PoolSpec, Role, RolloutPolicy, StopStep, Traits
from supervisor_d.programs.common import argv_of, environment, launch_of, words


@dataclass(frozen=True, slots=True)
class CommandKeys:
    """The config keys of a command pool, beside the common ones."""

    command: str | tuple[str, ...] = field(
        metadata={
            "doc": "The program and its arguments: a list, or a string that is split as a shell would split it.  No "
            "shell runs it; for one, say `[sh, -c, ...]`."
        }
    )


class Command:
    """The adapter for any program that runs until it is told to stop."""

    name = "command"
    keys_type: type = CommandKeys
    traits = Traits(respawn="when-empty", ready_by="exec")
    default_stop: tuple[StopStep, ...] = (StopStep("TERM", 10.0), StopStep("KILL"))
    default_rollout = RolloutPolicy(max_surge=0, max_unavailable=1)
    default_restart_when = "always"
    default_workers = 1

    def stop_for(self, keys: Any, given: tuple[StopStep, ...] = ()) -> tuple[StopStep, ...]:
        """The default: nothing is known of the program."""
        return given or self.default_stop

    def sizes(self, spec: PoolSpec, workers: int) -> tuple[int, ...]:
        """One process for each worker."""
        return (1,) * max(workers, 0)

    def gates(self, spec: PoolSpec) -> tuple[Role, ...]:
        """None: nothing is known of the program that would keep it away from the public."""
        return ()

    def launch(self, spec: PoolSpec, context: LaunchContext) -> Launch:
        """The command as it is written; a bare name is looked up in PATH by the runtime."""
        return launch_of(spec, context, argv_of(spec, spec.keys.command), environment(spec, context))

    def problems(self, spec: PoolSpec) -> Mapping[str, str]:
        """Mistakes that only show when the keys are seen together."""
        why = command_problem(spec.keys.command)
        return {"command": why} if why else {}

    def warnings(self, spec: PoolSpec, installed: Installed) -> Iterable[tuple[str, str]]:
        """None yet."""
        return ()


def command_problem(command: str | tuple[str, ...]) -> str:
    """Why nothing can be made of a command; empty when something can."""
    try:
        argv = words(command)
    except ValueError as error:
        return f"cannot be split into words: {str(error).lower()}"
    if not argv or not argv[0]:
        return "names no program"
    return "holds a NUL character" if any("\0" in word for word in argv) else ""
