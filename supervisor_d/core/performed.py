"""The fact that performing an action makes true at once, so that the next plan does not ask for it again.

Shared by the runtime and the simulated world: both fold it in before anything else is planned.
"""

from __future__ import annotations

from typing import assert_never

from supervisor_d.core import actions as act
from supervisor_d.core import events as ev


def performed(action: act.Action) -> ev.Event | None:
    """The event of an action's being performed; None for what changes the intent instead."""
    match action:
        case act.Spawn(id, pool, slot, generation, workers, policy, epoch, reason, role):
            return ev.SpawnBegan(id, pool, slot, generation, workers, policy, epoch, reason, role)
        case act.Signal(id, _, step, deadline, reason, expected):
            return ev.StopSignalled(id, step, deadline, reason, expected)
        case act.DriverStep(id, _, step, deadline, reason, expected):
            return ev.StopSignalled(id, step, deadline, reason, expected)
        case act.Kill(id, reason, expected):
            return ev.KillSent(id, reason, expected)
        case act.Scale(id, workers, reason):
            return ev.ScaleAsked(id, workers, reason)
        case act.TakeStacks(id):
            return ev.StacksAsked(id)
        case act.Restore(id):
            return ev.RestoreAsked(id)
        case act.Forget(id):
            return ev.Forgotten(id)
        case act.RecordSuccess(pool, generation):
            return ev.SuccessRecorded(pool, generation)
        case act.DropPool(pool):
            return ev.PoolRemoved(pool)
        case act.PassGate() | act.ConcludeRollout():
            return None
        case _:
            assert_never(action)
