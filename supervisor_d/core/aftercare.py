"""Giving back what an ended process held: when it is due, when it is tried again, and when enough was tried.

Theory.  Some programs take work out of a queue before they do it (Celery).  When such a process is gone, however it
ended, what it had taken and not finished is in nobody's hands, until a helper gives it back.  That needs the broker,
which may be away, and so it is not part of the stop: the slot's next process starts meanwhile, since each process has
a ledger of its own.  But nothing is forgotten before it was cared for.

    TreeEmptied -> Restore -> Restored       -> Forget
                           -> RestoreFailed  -> Restore, later -> ...

A broker that is away is waited for as long as it takes, ever more rarely.  Any other failure is tried ATTEMPTS_MAX
times, and then told and left: what is still held comes back by the broker's own timeout.

Worked example, Redis comes back 4 s after the process's end: tried at 0 s, 0.5 s, 1.5 s, 3.5 s and 7.5 s.
"""

from __future__ import annotations

from dataclasses import replace

from supervisor_d.core.process import Aftercare, Process

ATTEMPTS_MAX = 3
"""For failures that waiting does not mend."""
AGAIN_SECONDS = 0.5
AGAIN_MAX_SECONDS = 30.0


def needed(process: Process) -> bool:
    """Whether an ended process may still hold something.  One that never ran, or was only tried out, took nothing."""
    served = process.pid is not None and process.role == "serve"
    return process.policy.traits.aftercare and served and not process.aftercare.done


def is_waiting(process: Process) -> bool:
    """Whether only something that is away hinders it: nothing may wait for that."""
    care = process.aftercare
    return process.ended and process.empty and needed(process) and care.attempts > 0 and not care.under_way


def is_left(process: Process) -> bool:
    """Whether something of a process is left, to whoever waits for its end."""
    return not process.empty or (needed(process) and not is_waiting(process))


def asked(care: Aftercare) -> Aftercare:
    """It is being done."""
    return replace(care, under_way=True)


def failed(care: Aftercare, reason: str, now: float, *, away: bool) -> Aftercare:
    """It could not be done, at the instant `now`."""
    delay = min(AGAIN_SECONDS * 2**care.attempts, AGAIN_MAX_SECONDS) if care.attempts < 16 else AGAIN_MAX_SECONDS
    failures = care.failures + (not away)
    done = failures >= ATTEMPTS_MAX
    return Aftercare(care.attempts + 1, failures, not_before=now + delay, done=done, last_error=reason)
