"""When a slot may start again after an unexpected end: backoff and restart intensity, kept apart.

Theory.  *Backoff* spaces the tries of a slot: the first restart after a stable time is immediate, the k-th one after
that waits `initial * 2**(k-2)` seconds, up to a maximum, moved by a jitter that is a hash of pool, slot and attempt
(the same every time, so a failing run replays).  *Intensity* is a sliding window, as in Erlang's `supervisor.erl`
(`add_restart`): more than N restarts within a period and the slot has failed, whatever the backoff says.

Worked example, defaults (0.5 s, 60 s, 10 restarts in 120 s), a program that dies at once:

    end 1 -> restart at once      end 4 -> after 2 s        end 7 -> after 16 s
    end 2 -> after 0.5 s          end 5 -> after 4 s        ...
    end 3 -> after 1 s            end 6 -> after 8 s        never more than 60 s apart
"""

from __future__ import annotations

import zlib
from dataclasses import replace

from supervisor_d.core.observed import SlotFacts
from supervisor_d.core.process import Exit, Process
from supervisor_d.core.spec import RestartPolicy


def jitter_share(pool: str, slot: int, attempt: int) -> float:
    """A share in [-1, 1) that depends on nothing but its arguments."""
    return zlib.crc32(f"{pool}.{slot}.{attempt}".encode()) / 2**31 - 1.0


def backoff_seconds(policy: RestartPolicy, pool: str, slot: int, attempt: int) -> float:
    """How long to wait before restart number `attempt` (1 is the first after a stable time)."""
    if attempt <= 1:
        return 0.0
    exponent = min(attempt - 2, 62)
    delay = min(policy.backoff_initial_seconds * 2.0**exponent, policy.backoff_max_seconds)
    return max(0.0, delay * (1.0 + policy.jitter * jitter_share(pool, slot, attempt)))


def wants_restart(policy: RestartPolicy, ended: Exit, *, at_fault: bool) -> bool:
    """Whether an unexpected end is followed by a new start; `at_fault`: we had to stop it (it never became ready)."""
    return policy.when == "always" or (policy.when == "on-failure" and (at_fault or not ended.ok))


def was_stable(policy: RestartPolicy, process: Process, now: float) -> bool:
    """Whether the process was ready for long enough that its slot's past is forgotten."""
    return process.ready_at is not None and now - process.ready_at >= policy.stable_seconds


def after_unexpected_end(process: Process, ended: Exit, reason: str, facts: SlotFacts, now: float) -> SlotFacts:
    """The slot's history after `process` ended without being asked to."""
    policy = process.policy.restart
    at_fault = bool(process.fault)
    facts = replace(facts, last_exit=ended, last_reason=reason)
    if process.policy.traits.oneshot and ended.ok and not at_fault:
        return replace(facts, finished=True)
    if not wants_restart(policy, ended, at_fault=at_fault):
        return replace(facts, finished=not at_fault, failed=reason if at_fault else "")
    attempt = 1 if was_stable(policy, process, now) else facts.attempt + 1
    window = [at for at in facts.restarts if now - at < policy.intensity_period_seconds]
    restarts = (*window, now)[-(policy.intensity_restarts + 1) :]
    failed = ""
    if len(restarts) > policy.intensity_restarts:
        period = f"{policy.intensity_period_seconds:g} s"
        failed = f"more than {policy.intensity_restarts} restarts within {period}; the last: {reason}"
    delay = backoff_seconds(policy, process.pool, process.slot, attempt)
    return replace(facts, restarts=restarts, attempt=attempt, not_before=now + delay, failed=failed)
