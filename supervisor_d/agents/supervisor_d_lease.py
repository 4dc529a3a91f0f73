"""A lease in Redis, by which one process among many hosts knows that it alone may act, and stops itself in time.

Theory of operation.  The lease is one key that expires.  Whoever could set it holds it, and puts the end off again and
again; who cannot, stands by and asks again.

    key            token of the holder, "host/pid/chance"             expires after `ttl`
    key + ":ran"   hash: what was done -> when (ISO 8601)             expires after a long time

    take     key is free, or ours, or our predecessor's?  Then it is ours now.  Else: whose is it?
    hold     key is ours?  Then `ttl` from now, and (before an act) the act is noted in the hash.  Else: lost.
    release  key is ours?  Then it is gone: the next one need not wait.

Each is one script, so that Redis does it at one instant.

The holder trusts its lease less long than Redis keeps it: `ttl` less a margin of a fifth, counted from *before* the
question was sent, on a clock that goes on while the machine sleeps (CLOCK_BOOTTIME, clock_gettime(2)) and that nobody
can set.  When that time is over it ends itself, from whichever thread notices first:

    renewer   holds every ttl/3; ends the process when Redis says that the lease is another's
    guard     does no I/O, so that no hanging connection holds it up; ends the process when the time is over
    permit    asked before each act: holds, notes the act, and looks at the clock once more; no answer, no act

Worked example, ttl 15 s, Redis unreachable from t = 100 on, the last renewal sent at t = 98:

    t = 103        renewal fails, is tried again and again
    t = 98 + 12    guard: the process ends, without having acted since 100
    t = 98 + 15    the earliest instant at which Redis gives the lease to another host

A process that was stopped (SIGSTOP, a sleeping machine) and goes on after its time: permit's look at the clock comes
after Redis's answer and right before the act, and Redis itself has the last word.  What remains is the time between
that look and the act's own way to the broker: microseconds of running, but a process can be stopped there as well.

It rests on a single Redis that keeps its word.  Redis restarted without its data: the lease is free at once, another
host may take it, and the former holder learns it at its next act, before that act.  Two Redis that both believe to be
the master (a failover that went wrong): each may have a holder.

Written for every Python that the user's project runs on, which need not be the daemon's; depends on nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

TAKE = """
local holder = redis.call('get', KEYS[1])
if not holder or holder == ARGV[1] or holder == ARGV[3] then
  redis.call('set', KEYS[1], ARGV[1], 'px', ARGV[2])
  return ''
end
return holder
"""
HOLD = """
if redis.call('get', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('pexpire', KEYS[1], ARGV[2])
if ARGV[3] ~= '' then
  redis.call('hset', KEYS[2], ARGV[3], ARGV[4])
  redis.call('pexpire', KEYS[2], ARGV[5])
end
return 1
"""
RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0"

NOTES_KEPT_MS = 400 * 86400 * 1000
"""How long the last acts are remembered when nothing is done any more: longer than any schedule's year."""
MARGIN_SHARE = 0.2
RENEW_SHARE = 1 / 3
TRY_SHARE = 1 / 6
"""How long Redis may take for one answer."""
RETRY_SECONDS = 0.1
LONGEST_WAIT_SECONDS = 2.0
SHORTEST_WAIT_SECONDS = 0.05

LATE = "it could not be renewed in time"

Fence = Callable[[str], NoReturn]
"""Ends the process, at once and from any thread; told why."""


def boot_time() -> float:
    """Seconds on a clock that nobody sets and that goes on while the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Lease:
    """One lease, as one process sees it.

    `redis` is a client whose answers are text and whose questions end within `try_seconds(ttl)`; `errors` is what it
    raises.  `fence` must not return.
    """

    def __init__(
        self,
        redis: Any,
        key: str,
        ttl_seconds: float,
        token: str,
        *,
        fence: Fence,
        errors: tuple[type[BaseException], ...],
        clock: Callable[[], float] = boot_time,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._redis = redis
        self._keys = (key, key + ":ran")
        self._ttl_seconds = ttl_seconds
        self._ttl_ms = max(1, int(ttl_seconds * 1000))
        self._token = token
        self._fence = fence
        self.errors = errors
        self._clock = clock
        self._pause = pause
        self._lock = threading.Lock()
        self._until: float | None = None
        self._released = False

    # standing by

    def take(self, predecessor: str = "") -> str:
        """Try to take the lease; whose it is, empty when it is ours.  Raises `errors`.

        `predecessor` is the token of a process that is known to have ended.
        """
        asked_at = self._clock()
        holder = self._redis.eval(TAKE, 1, self._keys[0], self._token, self._ttl_ms, predecessor)
        if not holder:
            self._trust(asked_at)
        return str(holder or "")

    def wait_seconds(self) -> float:
        """How long to stand by before the next try: until the lease may run out, but not long.  Raises `errors`."""
        left = float(self._redis.pttl(self._keys[0])) / 1000
        return min(max(left, SHORTEST_WAIT_SECONDS), self._ttl_seconds / 5, LONGEST_WAIT_SECONDS)

    def noted(self, names: Iterable[str]) -> dict[str, str]:
        """When each of these acts was last done by whichever holder, as far as noted.  Raises `errors`."""
        wanted = list(names)
        found = self._redis.hmget(self._keys[1], wanted) if wanted else []
        return {name: at for name, at in zip(wanted, found) if at}  # noqa: B905  Python 3.9

    # holding

    @property
    def held(self) -> bool:
        """Whether it was taken; only `check` says that it still holds."""
        return self._until is not None

    def left_seconds(self) -> float:
        """How much longer the lease may be trusted; 0 or less: no more."""
        return -1.0 if self._until is None else self._until - self._clock()

    def check(self) -> None:
        """Return when the lease may be trusted at this instant; else end the process."""
        if self.left_seconds() <= 0:
            self._fence(LATE)

    def renew(self) -> bool:
        """Put the end off; whether Redis answered.  Ends the process when the lease is another's, or nobody's."""
        try:
            self._hold("", "")
        except self.errors:
            return False
        return True

    def permit(self, name: str, at: str, interrupted: Callable[[], None] = lambda: None) -> None:
        """Return when this act may be done now, noted as done at `at`; else end the process.

        While Redis does not answer, the act waits for it as long as the lease holds; `interrupted` is called between
        two tries, and may raise.
        """
        while True:
            self.check()
            try:
                self._hold(name, at)
            except self.errors:
                interrupted()
                self._pause(RETRY_SECONDS)
                continue
            self.check()
            return

    def release(self) -> None:
        """Give the lease up, if it is ours; nothing may be done after.  Raises `errors`."""
        with self._lock:
            self._until, self._released = None, True
        self._redis.eval(RELEASE, 1, self._keys[0], self._token)

    def keep(self, renewed: Callable[[], None] = lambda: None) -> None:
        """Renew for ever, every ttl/3, and tell of it: for a thread of its own."""
        while self.held:
            if self.renew():
                renewed()
                self._pause(self._ttl_seconds * RENEW_SHARE)
            else:
                self._pause(RETRY_SECONDS)

    def guard(self) -> None:
        """End the process when the lease's time is over: for a thread of its own, which does no I/O."""
        while self.held:
            left = self.left_seconds()
            if left > 0:
                self._pause(left)
            elif self.held:
                self._fence(LATE)

    def _hold(self, name: str, at: str) -> None:
        asked_at = self._clock()
        if not self._redis.eval(HOLD, 2, *self._keys, self._token, self._ttl_ms, name, at, NOTES_KEPT_MS):
            if self.held:
                self._fence("another has it, or Redis has lost it")
            return
        self._trust(asked_at)

    def _trust(self, asked_at: float) -> None:
        """Redis counts `ttl` from an instant after `asked_at`."""
        until = asked_at + self._ttl_seconds * (1 - MARGIN_SHARE)
        with self._lock:
            if not self._released:
                self._until = until if self._until is None else max(self._until, until)


def try_seconds(ttl_seconds: float) -> float:
    """How long the client may wait for one answer."""
    return ttl_seconds * TRY_SHARE
