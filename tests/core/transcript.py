"""Tests of planning that read like transcripts: what is heard, what is done, until when the daemon sleeps.

    t = Transcript(pool("web"))
    t.does("spawn web.0@g1.1")
    t.hears(Spawned("web.0@g1.1", 100), BecameReady("web.0@g1.1"))
    t.does()

`does` plans and performs until nothing is left to do, and compares the actions with what the test says.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from supervisor_d.core import actions as act
from supervisor_d.core.desired import Desired, DesiredPool, Rollout, Trial
from supervisor_d.core.events import BecameReady, Event, MainExited, Spawned, TreeEmptied
from supervisor_d.core.evolve import evolve
from supervisor_d.core.observed import Observed
from supervisor_d.core.performed import performed
from supervisor_d.core.plan import plan
from supervisor_d.core.process import Exit, Policy, Process
from supervisor_d.core.spec import RestartPolicy, Role, RolloutPolicy, StopStep, Traits

STOP = (StopStep("TERM", 30.0), StopStep("QUIT", 10.0), StopStep("KILL"))
COMMAND = Traits()
GUNICORN = Traits(scale_in_place=True, respawn="at-exit", ready_by="driver")
BEAT = Traits(exclusive=True)
CELERY = Traits(scale_in_place=True, ready_by="driver", driver_steps=("DRAIN", "KILL-WORKERS"), aftercare=True)
ONESHOT = Traits(oneshot=True)


def policy(
    traits: Traits = COMMAND,
    *,
    stop: tuple[StopStep, ...] = STOP,
    restart: RestartPolicy | None = None,
    start_timeout_seconds: float = 60.0,
) -> Policy:
    return Policy(stop, restart or RestartPolicy(jitter=0.0), traits, start_timeout_seconds)


def pool(name: str, sizes: tuple[int, ...] = (1,), *, traits: Traits = COMMAND, **others: Any) -> DesiredPool:
    """A pool of g1, with a surge of one and nothing unavailable."""
    values: dict[str, Any] = {"generation": 1, "policy": policy(traits), "rollout_policy": RolloutPolicy(1, 0)}
    return DesiredPool(name, sizes=sizes, **{**values, **others})


def said(action: act.Action) -> str:
    """An action in short."""
    match action:
        case act.Spawn(id):
            return f"spawn {id}" if action.role == "serve" else f"spawn {id} as {action.role}"
        case act.Signal(id, word) | act.DriverStep(id, word):
            return f"{word} {id}"
        case act.Kill(id):
            return f"kill {id}"
        case act.TakeStacks(id):
            return f"stacks {id}"
        case act.Restore(id):
            return f"restore {id}"
        case act.Scale(id, workers):
            return f"scale {id} to {workers}"
        case act.Forget(id):
            return f"forget {id}"
        case act.RecordSuccess(name, generation):
            return f"record {name} g{generation}"
        case act.PassGate(name, generation, gate):
            return f"{name} g{generation} passed {gate}"
        case act.ConcludeRollout(name, generation, verdict):
            return f"{name} g{generation} {verdict}"
        case act.DropPool(name):
            return f"drop {name}"


class Transcript:
    """One run of the core, with the clock at 0."""

    def __init__(self, *pools: DesiredPool, **desired: Any) -> None:
        self.desired = Desired({p.name: p for p in pools}, **desired)
        self.observed = Observed()
        self.now = 0.0
        self.gates: tuple[Role, ...] = ()
        """Those that the new generation has still to pass."""
        self.reasons: list[str] = []
        """Why the last actions were done."""

    def at(self, seconds: float) -> None:
        self.now = seconds

    def hears(self, *events: Event) -> None:
        for event in events:
            self.observed = evolve(self.observed, event, self.now)

    def starts(self, *process_ids: str) -> None:
        """They are exec'd and become ready."""
        for number, process_id in enumerate(process_ids):
            self.hears(Spawned(process_id, 100 + number), BecameReady(process_id))

    def ends(self, process_id: str, ended: Exit = Exit(code=1)) -> None:  # noqa: B008  a frozen value
        """Its main process ends, and nothing is left of its tree."""
        self.hears(MainExited(process_id, ended), TreeEmptied(process_id, proven=True, killed=0))

    def wants(self, name: str, **changes: Any) -> None:
        """Another desire of a pool."""
        changed = replace(self.desired.pools[name], **changes)
        self.desired = replace(self.desired, pools={**self.desired.pools, name: changed})

    def rolls(self, name: str, to: int, *, one_by_one: bool = False, **changes: Any) -> None:
        """A rollout begins."""
        old = self.desired.pools[name].generation
        self.wants(name, generation=to, rollout=Rollout(old, to, "test", self.now, one_by_one), **changes)

    def wants_all(self, **changes: Any) -> None:
        """Another desire of every pool."""
        for name in self.desired.pools:
            self.wants(name, **changes)

    def kill_now(self) -> None:
        self.desired = replace(self.desired, kill_now=True)

    def does(self, *expected: str) -> None:
        """Plan and perform until there is nothing left to do."""
        done: list[act.Action] = []
        while made := plan(self.desired, self.observed, self.now).actions:
            assert len(done) < 100, f"the plan does not settle: {[said(a) for a in done]}"
            for action in made:
                self._perform(action)
            done.extend(made)
        found = [said(action) for action in done]
        assert found == list(expected), found
        self.reasons = [action.reason for action in done]

    def _perform(self, action: act.Action) -> None:
        event = performed(action)
        if event is not None:
            self.hears(event)
        if isinstance(action, act.DropPool):
            self.desired = replace(
                self.desired, pools={k: v for k, v in self.desired.pools.items() if k != action.pool}
            )
        elif isinstance(action, act.PassGate):
            self._pass(action)
        elif isinstance(action, act.ConcludeRollout) and self.desired.pools[action.pool].trial is not None:
            self.wants(action.pool, trial=None)
        elif isinstance(action, act.ConcludeRollout):
            rollout = self.desired.pools[action.pool].rollout
            assert rollout is not None
            back = {"generation": rollout.from_generation} if action.verdict == "rolled-back" else {}
            self.wants(action.pool, rollout=None, **back)

    def tries(self, name: str, to: int, *gates: Role, **changes: Any) -> None:
        """A rollout begins whose new generation has gates to pass."""
        self.gates = gates
        trial = Trial(to, gates[0], self.desired.pools[name].policy, 0.0, "test")
        self.wants(name, trial=replace(trial, **changes))

    def _pass(self, action: act.PassGate) -> None:
        trial = self.desired.pools[action.pool].trial
        assert trial is not None
        self.gates = tuple(gate for gate in self.gates if gate != action.gate)
        if self.gates:
            self.wants(action.pool, trial=replace(trial, gate=self.gates[0]))
        else:
            self.wants(action.pool, trial=None)
            self.rolls(action.pool, action.generation)

    @property
    def sleeps_until(self) -> float | None:
        return plan(self.desired, self.observed, self.now).wake_at

    def process(self, process_id: str) -> Process:
        found = self.observed.find(process_id)
        assert found is not None
        return found
