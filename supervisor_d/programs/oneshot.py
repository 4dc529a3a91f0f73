"""A command that runs to its end; exit 0 is success, belongs to the generation, and is what `after:` waits for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from supervisor_d.core.spec import Installed, Launch, LaunchContext, PoolSpec, Role, RolloutPolicy, StopStep, Traits
from supervisor_d.programs.command import CommandKeys, command_problem
from supervisor_d.programs.common import argv_of, environment, launch_of


@dataclass(frozen=True, slots=True)
class OneshotKeys(CommandKeys):
    """The config keys of a oneshot, beside the common ones."""


class Oneshot:
    """The adapter for a program that runs once for each generation."""

    name = "oneshot"
    keys_type: type = OneshotKeys
    traits = Traits(oneshot=True, respawn="when-empty", ready_by="exec")
    default_stop: tuple[StopStep, ...] = (StopStep("TERM", 10.0), StopStep("KILL"))
    default_rollout = RolloutPolicy(max_surge=0, max_unavailable=1)
    default_restart_when = "on-failure"
    default_workers = 1

    def stop_for(self, keys: Any, given: tuple[StopStep, ...] = ()) -> tuple[StopStep, ...]:
        """The default: nothing is known of the program."""
        return given or self.default_stop

    def sizes(self, spec: PoolSpec, workers: int) -> tuple[int, ...]:
        """One run at a time."""
        return (1,) if workers > 0 else ()

    def gates(self, spec: PoolSpec) -> tuple[Role, ...]:
        """None: a task cannot be tried without being done."""
        return ()

    def launch(self, spec: PoolSpec, context: LaunchContext) -> Launch:
        """The command as it is written; a bare name is looked up in PATH by the runtime."""
        return launch_of(spec, context, argv_of(spec, spec.keys.command), environment(spec, context))

    def problems(self, spec: PoolSpec) -> Mapping[str, str]:
        """Mistakes that only show when the keys are seen together."""
        found: dict[str, str] = {}
        if why := command_problem(spec.keys.command):
            found["command"] = why
        if spec.workers != 1:
            found["workers"] = "a oneshot runs once; it cannot be scaled"
        if spec.restart.when == "always":
            found["restart"] = "a oneshot ends when it succeeds: say `on-failure` or `never`"
        if spec.ready:
            found["ready"] = "a oneshot is judged by its exit, not by probes"
        return found

    def warnings(self, spec: PoolSpec, installed: Installed) -> Iterable[tuple[str, str]]:
        """None yet."""
        return ()
