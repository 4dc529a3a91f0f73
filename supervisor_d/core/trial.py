"""Trying a new generation out before anything of the old one is touched.

Theory.  A rollout may have *gates*: its program names them, in order.  While one is still to be passed, the pool goes
on exactly as it was, under the old generation's spec (crashes are made up for, `scale` acts on it), and beside it one
process of the new generation is tried, where the public cannot reach it:

    preflight   runs to its end; exit code 0 passes.  gunicorn: `--check-config`, which imports the application
    canary      one worker on a socket of its own, or without a queue: it passes once it was ready, by its driver and
                the pool's probes, for `min_ready`; then it is told to end

A gate that was passed is written down with the rollout (PassGate), so a daemon that dies in between goes on with the
next one.  An end before that, a missed start deadline or a failed start fails the rollout: it is rolled back, though
nothing was ever taken away.  A start that a daemon's own death prevented counts as none.

In a deploy, the first gate is the turn of the pool: those it comes after roll first.  One of them that was rolled back
fails it as well.

Worked example, `web` on g1 gets a g2 that does not import:

    web.0@g1 ready                                   -> Spawn web.0@g2 (preflight)
    web.0@g1 ready, web.0@g2 exited 1                -> (its last words may still be under way)
    web.0@g1 ready, web.0@g2 exited 1 and empty      -> ConcludeRollout rolled-back: preflight exited with code 1
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from supervisor_d.core.desired import Trial
from supervisor_d.core.observed import PoolFacts
from supervisor_d.core.process import Process
from supervisor_d.core.rollout import settled


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a gate, or a turn, came out."""

    passed: bool
    reason: str


def verdict(trial: Trial, facts: PoolFacts, now: float) -> Verdict | None:
    """How the trial came out; None while it goes on."""
    if trial.doomed:
        return Verdict(passed=False, reason=trial.doomed)
    found = (_outcome(process, trial, now) for process in _of_gate(trial, facts))
    return next((each for each in found if each is not None), None)


def candidate(trial: Trial, facts: PoolFacts) -> Process | None:
    """The process that is being tried at the trial's gate, or whose end is still to be judged."""
    return next((p for p in _of_gate(trial, facts) if not p.shim_lost and not _counts_for_nothing(p)), None)


def _of_gate(trial: Trial, facts: PoolFacts) -> Iterator[Process]:
    return (p for p in facts.tried if p.role == trial.gate and p.generation == trial.generation)


def _outcome(process: Process, trial: Trial, now: float) -> Verdict | None:
    if process.fault:
        return Verdict(passed=False, reason=f"{trial.gate}: {process.fault}")
    if _counts_for_nothing(process):
        return None
    if process.ended:
        return _end(process, trial) if process.empty else None
    if trial.gate == "canary" and settled(process, trial.min_ready_seconds, now):
        stayed = f" for {trial.min_ready_seconds:g} s" if trial.min_ready_seconds else ""
        return Verdict(passed=True, reason=f"the canary of g{trial.generation} was ready{stayed}")
    return None


def _end(process: Process, trial: Trial) -> Verdict:
    if trial.gate == "preflight" and process.exit is not None and process.exit.ok:
        return Verdict(passed=True, reason=f"the preflight of g{trial.generation} {process.end}")
    return Verdict(passed=False, reason=f"{trial.gate} {process.end}")


def _counts_for_nothing(process: Process) -> bool:
    """It was told to end, for no fault of its own, or a former daemon died before it could let it start."""
    return process.stop is not None or (process.adopted and process.ended and process.pid is None)
