"""Celery beat as supervisor-d runs it: `python -m supervisor_d_celery_beat -A app beat ...`.

`celery beat` has no -I, so our agent is the command itself: it is `celery`, with a few wrappers around what beat does,
in the order in which they come:

    Service.start            the schedule's lock is taken, or this beat refuses to be a second one
    scheduler (made once)    it learns what was sent and does not stand in its schedule file
    beat_init                ready
    scheduler.tick           with a lease: not ours, stand by; ours, check it
    scheduler.apply_async    with a lease: ask leave; note the run, then send; TERM and INT wait until that is done

Standing by is ready too: the schedule is loaded, and this process does what it is there for.  Who takes a lease over
first reads what its former holders sent, so that no task of the night is sent a second time in the morning by a host
whose schedule file is of yesterday.  Runs are noted for Celery's own schedulers only; others (django-celery-beat,
redbeat) have one memory for all hosts, in their database.

Written for every Python that Celery runs on, which need not be the daemon's.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any, NoReturn
from urllib.parse import urlsplit

import supervisor_d_channel as channel
from supervisor_d_lease import Lease, try_seconds
from supervisor_d_runs import Runs, remember
from supervisor_d_schedule_lock import ScheduleLock, SecondBeatError, refuse_beats_by_hand

LEASE_ENV = "SUPERVISOR_D_LEASE"
"""JSON: url, key, ttl (seconds).  Not an argument: the url may hold a password."""
EXIT_LEASE_LOST = 76
EXIT_SECOND_BEAT = 77
REPEAT_SECONDS = 5.0
"""How often it is said again that this beat stands by: a daemon that came later has not heard it."""
TROUBLE_WAIT_SECONDS = 1.0
WHY_MAX = 200


def say(text: str) -> None:
    """One line on stderr, whatever the state of the logging."""
    with contextlib.suppress(OSError):
        os.write(2, f"supervisor-d: {text}\n".encode(errors="replace"))


def end_because_lost(why: str) -> NoReturn:
    """No clean-up, no exception that somebody could catch, from whatever thread: nothing is sent after this."""
    channel.tell(lease="lost", why=why)
    say(f"beat gave its lease up and ends: {why}")
    os._exit(EXIT_LEASE_LOST)


def end_because_second(why: str) -> NoReturn:
    """Before anything was opened or sent."""
    channel.tell(lease="second", why=why)
    say(f"cannot start a second beat: {why}")
    raise SystemExit(EXIT_SECOND_BEAT)


class Patience:
    """TERM and INT wait while a task is being sent: beat's own handlers would leave in its midst."""

    def __init__(self) -> None:
        self._busy = False
        self._waiting: tuple[Any, int] | None = None

    def install(self) -> None:
        """Stand before the handlers that beat has installed."""
        for number in (signal.SIGTERM, signal.SIGINT):
            handler = signal.getsignal(number)
            if callable(handler):
                signal.signal(number, functools.partial(self._on, handler))

    @contextlib.contextmanager
    def sending(self) -> Iterator[None]:
        """A block that a first signal does not interrupt; a second one does."""
        self._busy = True
        try:
            yield
        finally:
            self._busy = False
            self.let_through()

    def let_through(self) -> None:
        """What waits is done now; it leaves by SystemExit."""
        if self._waiting is not None:
            (handler, number), self._waiting = self._waiting, None
            handler(number, None)

    def _on(self, handler: Any, number: int, frame: Any) -> None:
        if self._busy and self._waiting is None:
            self._waiting = (handler, number)
        else:
            handler(number, frame)


class Turn:
    """Whether it is this beat's turn: the lease, and what its former holders sent."""

    def __init__(self, lease: Lease, predecessor: str, secret: str) -> None:
        self._lease = lease
        self._predecessor = predecessor
        self._secret = secret
        self._has_begun = False
        self._said = ("", 0.0)

    def wait_seconds(self, scheduler: Any) -> float | None:
        """None when beat may go on; else how long it is to stand by.  Ends the process when the lease is lost."""
        if self._has_begun:
            self._lease.check()
            return None
        try:
            if holder := self._lease.take(self._predecessor):
                self._stand_by(f"{named(holder)} has the lease")
                seconds: float = self._lease.wait_seconds()
                return seconds
            entries = entries_of(scheduler)
            remember(entries, self._lease.noted(entries))
        except self._lease.errors as error:
            self._stand_by(f"the lease cannot be had: {error}")
            return TROUBLE_WAIT_SECONDS
        self._begin()
        return None

    def permit(self, name: str, at: str, patience: Patience) -> None:
        """Return when a task may be sent, and is noted as sent; else end the process."""
        self._lease.permit(name, at, patience.let_through)

    def release(self) -> None:
        """The next beat, on whatever host, need not wait."""
        with contextlib.suppress(*self._lease.errors):
            self._lease.release()

    def _begin(self) -> None:
        self._has_begun = True
        say("beat holds the lease")
        for what in (self._lease.guard, functools.partial(self._lease.keep, _tell_held)):
            threading.Thread(target=what, daemon=True, name="supervisor-d lease").start()

    def _stand_by(self, why: str) -> None:
        why = (why.replace(self._secret, "***") if self._secret else why)[:WHY_MAX]
        said, at = self._said
        if said == why and time.monotonic() - at < REPEAT_SECONDS:
            return
        if said != why:
            say(f"beat stands by: {why}")
        self._said = (why, time.monotonic())
        channel.tell(ready=True, standby=True, why=why)


def _tell_held() -> None:
    channel.tell(ready=True, lease="held")


def named(token: str) -> str:
    """A holder's token for people: `host (pid 7)` of `host/7/chance`."""
    host, _, rest = token[:WHY_MAX].partition("/")
    text = f"{host} (pid {rest.partition('/')[0]})"
    return text if text.isprintable() else "somebody"


def entries_of(scheduler: Any) -> dict[str, Any]:
    """The schedule of Celery's own schedulers, which this host alone remembers; of any other, none."""
    from celery import beat

    own = type(scheduler) in (beat.Scheduler, beat.PersistentScheduler)
    return dict(scheduler.schedule) if own else {}


class Guard:
    """What stands around one beat."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config
        self._token = f"{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex[:12]}"
        self._patience = Patience()
        self._turn: Turn | None = None
        self._runs: Runs | None = None

    def around(self, service: Any) -> None:
        """Lock the schedule, load it, and wrap the scheduler: all that must be done before the first tick."""
        from celery.beat import PersistentScheduler

        predecessor = self._lock(service)
        if self._config:
            self._turn = Turn(_lease(self._config, self._token), predecessor, _password(self._config["url"]))
        self._patience.install()
        if type(service.scheduler) is PersistentScheduler:
            self._runs = Runs(service.schedule_filename)
        self._wrap(service.scheduler)

    def ready(self, **_: object) -> None:
        """beat_init: the schedule is loaded.  With a lease, the first tick says so and more."""
        if self._turn is None:
            channel.tell(ready=True)

    def end(self) -> None:
        """Beat has ended in order."""
        if self._turn is not None:
            self._turn.release()

    def _lock(self, service: Any) -> str:
        """The predecessor's token.  Only a schedule in a file can be locked; the lease works without."""
        from celery import beat

        lazy = service.get_scheduler(lazy=True)
        in_file = isinstance(lazy, beat.PersistentScheduler)
        if not in_file and not self._config:
            return ""
        try:
            lock = ScheduleLock(service.schedule_filename)
            predecessor: str = lock.take(self._token)
            if in_file:
                refuse_beats_by_hand(service.schedule_filename, service.app.conf.beat_schedule_filename)
        except OSError as error:
            say(f"the schedule is not locked: {error}")
            return ""
        except SecondBeatError as error:
            if in_file:
                end_because_second(str(error))
            return ""
        return predecessor

    def _wrap(self, scheduler: Any) -> None:
        if self._runs is not None:
            entries = entries_of(scheduler)
            self._runs.keep_only(entries)
            remember(entries, self._runs.noted)
        scheduler.tick = functools.partial(self._tick, scheduler, scheduler.tick)
        scheduler.apply_async = functools.partial(self._send, scheduler, scheduler.apply_async)

    def _tick(self, scheduler: Any, tick: Any, *args: Any, **kwargs: Any) -> Any:
        wait = self._turn.wait_seconds(scheduler) if self._turn else None
        return tick(*args, **kwargs) if wait is None else wait

    def _send(self, scheduler: Any, send: Any, entry: Any, *args: Any, **kwargs: Any) -> Any:
        with self._patience.sending():
            name = str(entry.name) if entries_of(scheduler) else ""
            at = entry.default_now().isoformat()
            if self._turn:
                self._turn.permit(name, at, self._patience)  # Redis keeps the notes, for all hosts
            elif self._runs is not None:
                self._note(self._runs, name, at)
            return send(entry, *args, **kwargs)

    def _note(self, runs: Runs, name: str, at: str) -> None:
        try:
            runs.note(name, at)
        except OSError as error:  # a full disk: what is due is sent all the same
            say(f"cannot note that {name} is sent: {error}")


def _lease(config: dict[str, Any], token: str) -> Lease:
    """Raises SystemExit, without showing the url, when there can be no client."""
    try:
        from redis import Redis
        from redis.backoff import NoBackoff
        from redis.exceptions import RedisError
        from redis.retry import Retry
    except ImportError:
        raise SystemExit("cannot keep a lease: the pool's Python has no redis (pip install redis)") from None
    ttl_seconds = float(config["ttl"])
    seconds = try_seconds(ttl_seconds)
    try:
        client = Redis.from_url(
            config["url"],
            socket_timeout=seconds,
            socket_connect_timeout=seconds,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
            encoding_errors="replace",
        )
    except ValueError:
        raise SystemExit("cannot keep a lease: its url is no address of a Redis") from None
    return Lease(client, config["key"], ttl_seconds, token, fence=end_because_lost, errors=(RedisError, OSError))


def _password(url: str) -> str:
    """What no message may show."""
    try:
        return urlsplit(url).password or ""
    except ValueError:
        return ""


def run() -> None:
    """Be `celery beat`, with all that stands around it."""
    guard = Guard(json.loads(os.environ.pop(LEASE_ENV, "{}")))

    from celery.__main__ import main
    from celery.beat import Service
    from celery.signals import beat_init

    start = Service.start

    def guarded(service: Any, *args: Any, **kwargs: Any) -> Any:
        guard.around(service)
        return start(service, *args, **kwargs)

    Service.start = guarded
    beat_init.connect(guard.ready, weak=False, dispatch_uid="supervisor_d.ready")
    sys.argv[0] = "celery"
    try:
        main()
    finally:
        guard.end()


if __name__ == "__main__":
    run()
