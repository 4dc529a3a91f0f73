"""The guest in the consumer: a bootstep that joins the features to each new connection and to the event loop.

Celery's consumer is a list of bootsteps, started again at each connection.  Ours comes after the one that makes the
task consumer (`start`), and is called once more when the event loop runs (`register_with_event_loop`).  Between two
connections Celery waits in a loop of its own, which asks `maybe_shutdown` once a second: there we look in as well.

Whatever goes wrong in here costs the feature it belongs to, never the worker.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

from . import intake, processes, reap, settings, stacks, wire
from .features import Features
from .heartbeat import INTERVAL_SECONDS, Heartbeat
from .ledger import Bookkeeping, Ledger, describe_broker
from .lending import Lender
from .pool import PREFORK_NAMES, Pool, prefork, takes_work
from .repair import Repair
from .tally import Tally, running, stamp

POLL_SECONDS = 0.02


class Guest:
    """Everything the agent knows in one main process."""

    def __init__(self, channel: wire.Wire, directory: str | None, features: Features, *, canary: bool) -> None:
        self.wire = channel
        self.features = features
        self.intake = intake.Intake(canary=canary)
        self.tally = Tally()
        self.freezer = processes.Freezer()
        self.directory = directory
        self.heartbeat: Heartbeat | None = None
        self.ledger: Ledger | None = None
        self.repair: Repair | None = None
        self.pool: Pool | None = None
        self.consumer: Any = None
        self.connected = False
        self.ready_told: bool | None = None
        self.settings_filled: dict[str, Any] = {}
        self.stacks_signal: int | None = None
        self._hub: Any = None
        self._timer: Any = None
        self._take_at: float | None = None
        self._lender = Lender(channel)

    # -------------------------------------------------------------------------------------------- binding

    def install(self, app: Any) -> None:
        """Hook into Celery's modules, before the worker builds its consumer."""
        from celery.signals import before_task_publish

        if self.directory is None:
            for name in ("heartbeat", "ledger"):
                self.features.drop(name, wire.DIR_ENV + " is not set")
        with self.guarded("heartbeat") as on:
            if on:
                self.heartbeat = Heartbeat(self.directory or "")
                self.tally.install()
                self._look_in_while_waiting()
        with self.guarded("stacks") as on:
            if on:
                self.stacks_signal = stacks.listen()
        with self.guarded("ledger") as on:
            if on:
                self._open_ledger(app)
        with self.guarded("repair") as on:
            if on:
                self._prepare_repair(app)
        with self.guarded("settings") as on:
            if on:
                self.settings_filled = settings.fill(app)
        with self.guarded("stamp") as on:
            if on:
                before_task_publish.connect(stamp, weak=False, dispatch_uid="supervisor_d.stamp")
        with self.guarded("reap") as on:
            if on:
                reap.install()
        with self.guarded("freeze") as on:
            if on:
                self.freezer.install()
        with self.guarded("oom") as on:
            if on:
                processes.rather_us_than_main()

    def _open_ledger(self, app: Any) -> None:
        driver = app.connection_for_read().transport.driver_type
        if driver != "redis":
            raise ValueError(f"{driver} gives a dead worker's messages back by itself")
        _need_acknowledgements(app)
        self.ledger = Ledger(self.directory or "")
        Bookkeeping(self.ledger).install()

    def _prepare_repair(self, app: Any) -> None:
        driver = app.connection_for_read().transport.driver_type
        if driver != "redis":
            raise ValueError(f"what {driver} delivered goes back by itself when its connection is lost")
        _need_acknowledgements(app)
        ledger = self.ledger
        self.repair = Repair(ledger.done, ledger.free) if ledger is not None else Repair(_nothing, _nothing)
        self.repair.install()

    def _look_in_while_waiting(self) -> None:
        from celery.worker.consumer import consumer as module

        original = module.maybe_shutdown

        def maybe_shutdown() -> None:
            if self.consumer is not None and os.getpid() == self.wire.main:
                self.connected = False
                self.tick()
            original()

        module.maybe_shutdown = maybe_shutdown

    def started(self, consumer: Any) -> None:
        """A connection is made, and its task consumer exists; nothing is consumed yet."""
        first = self.consumer is None
        self.consumer = consumer
        if first:
            _tell_overruled(consumer)
        with self.guarded("drain") as on:
            if on:
                self.intake.guard(consumer)
        with self.guarded("heartbeat") as on:
            if on:
                self._note_takes(intake.channel_of(consumer))
        with self.guarded("ledger") as on:
            if on and self.ledger is not None:
                self.ledger.describe(describe_broker(intake.channel_of(consumer)))
        with self.guarded("pool") as on:
            if on and first:
                self.pool = Pool(consumer)
        with self.guarded("repair") as on:
            if on and self.repair is not None:
                if first:
                    self.repair.watch(consumer)
                self.repair.connected(intake.channel_of(consumer))

    def _note_takes(self, channel: Any) -> None:
        original = getattr(channel, "_brpop_start", None)
        if original is None:
            return

        def brpop_start(*args: Any, **kwargs: Any) -> Any:
            self._take_at = time.monotonic()
            result = original(*args, **kwargs)
            with self.guarded("lend") as on:
                if on and self.ledger is not None:
                    self._lender.lend(channel)
            return result

        channel._brpop_start = brpop_start

    def looping(self, consumer: Any, hub: Any) -> None:
        """The event loop is about to run, with this connection."""
        self._hub = hub
        self.connected = True
        if self._timer is not None:
            self._timer.cancel()
        self._timer = hub.call_repeatedly(INTERVAL_SECONDS, self._tick_of_the_loop)
        if self.wire.fd >= 0:
            hub.add_reader(self.wire.fd, self.hear)
        self.tick()

    def guarded(self, feature: str) -> Guarded:
        """A block that belongs to a feature: skipped when it is off, and switching it off when it fails."""
        return Guarded(self.features, feature)

    # -------------------------------------------------------------------------------------------- telling

    def tick(self) -> None:
        """Once a second, and at once after a change."""
        self.hear()
        with self.guarded("repair") as on:
            if on and self.repair is not None and self.connected and os.getpid() == self.wire.main:
                self.repair.pay()
        with self.guarded("pool") as on:
            if on and self.pool is not None and self.pool.retired and os.getpid() == self.wire.main:
                self.pool.refill()
        self.beat()
        if self.ready_told is False:
            self.tell_ready()

    def _tick_of_the_loop(self) -> None:
        """The loop's own, from which a lost connection may be told to Celery."""
        self.tick()
        if self.features.on("repair") and self.repair is not None and self._runs():
            self.repair.check(intake.channel_of(self.consumer), self._take_at)

    def _runs(self) -> bool:
        from celery import bootsteps

        return bool(self.connected and self.consumer.blueprint.state == bootsteps.RUN)

    def beat(self) -> None:
        """Write the heartbeat now."""
        if self.heartbeat is None or os.getpid() != self.wire.main:
            return
        with self.guarded("heartbeat") as on:
            if on:
                try:
                    self.heartbeat.write(self.facts())
                except RuntimeError:  # while the pool drains, timers run in a thread of their own: a set has changed
                    return

    def facts(self) -> dict[str, Any]:
        """How the worker is, as the heartbeat's docstring lists it."""
        channel = intake.channel_of(self.consumer)
        told = running()
        told.update(self._pool_facts())
        held = intake.held(channel)
        told.update(
            at=time.monotonic(),
            pid=self.wire.main,
            connected=self.connected,
            consuming=self.connected and intake.consuming(self.consumer),
            draining=self.intake.closed,
            can_consume=self.connected and intake.can_consume(channel),
            take_at=self._asked_at(),
            take_waits=intake.take_waits(channel),
            reserved=self._reserved(held, told),
            waiting=_waiting(),
            ledger_overflow=self.ledger.overflow if self.ledger is not None else 0,
        )
        told.update(self.tally.facts())
        return told

    def _asked_at(self) -> float | None:
        """When the broker was last asked for messages; a subscription asks all the time."""
        if self.connected and not self.intake.closed and intake.nothing_to_pop(self.consumer):
            self._take_at = time.monotonic()
        return self._take_at

    def _pool_facts(self) -> dict[str, Any]:
        pool = prefork(self.consumer)
        if pool is None:
            return {"processes": 0, "target": 0, "busy": 0, "idle": 0}
        pids = {request.worker_pid for request in _active()}
        processes = list(pool._pool)
        busy = sum(1 for process in processes if process.pid in pids)
        idle = sum(1 for process in processes if process.pid not in pids and takes_work(pool, process))
        return {"processes": len(processes), "target": pool._processes, "busy": busy, "idle": idle}

    def _reserved(self, held: int | None, told: dict[str, Any]) -> int:
        from celery.worker import state

        if held is None:
            return max(0, len(state.requests) - int(told["active"]))
        return max(0, held - (int(told["active"]) - int(told["unsafe"])))

    def tell_ready(self) -> None:
        """The ready message; told again at the next tick when it was dropped."""
        self.freezer.thawed = True
        self.ready_told = self.wire.tell(ready=True, **self.description())

    def description(self) -> dict[str, Any]:
        """What the ready message says of this worker."""
        import celery
        import kombu

        consumer = self.consumer
        conf = consumer.app.conf
        transport = consumer.connection.transport if consumer.connection is not None else None
        return {
            "agent": wire.AGENT_VERSION,
            "celery": celery.__version__,
            "kombu": kombu.__version__,
            "features": self.features.names(),
            "missing": self.features.missing,
            "acks_late": bool(conf.task_acks_late),
            "reject_on_worker_lost": bool(conf.task_reject_on_worker_lost),
            "prefetch": consumer.prefetch_multiplier,
            "visibility_timeout": getattr(intake.channel_of(consumer), "visibility_timeout", None),
            "queues": [str(name)[: wire.NAME_MAX] for name in consumer.app.amqp.queues.consume_from][
                : wire.QUEUES_TOLD
            ],
            "broker": getattr(transport, "driver_type", None),
            "settings_filled": self.settings_filled,
            "stacks_signal": self.stacks_signal,
            "canary": self.intake.canary,
        }

    # -------------------------------------------------------------------------------------------- answering

    def hear(self) -> None:
        """Do what the daemon asks."""
        if self.wire.fd < 0 or os.getpid() != self.wire.main:
            return
        fd = self.wire.fd
        for request in self.wire.asks():
            self._answer(request)
        if self.wire.fd < 0 and self._hub is not None:
            self._hub.remove(fd)

    def _answer(self, request: dict[str, Any]) -> None:
        number = request["ask"]
        answers: dict[str, Callable[[int, int], None]] = {
            "hello": self._hello,
            "drain": self._drain,
            "resume": self._resume,
            "stacks": self._stacks,
            "grow": self._grow,
            "shrink": self._shrink,
        }
        answer = answers.get(request["do"])
        if answer is None:
            self.reply(number, error="unknown request")
            return
        try:
            answer(number, _count(request.get("n", 1)))
        except Exception as exc:  # noqa: BLE001 - told to the daemon, kept from the worker
            self.reply(number, error=f"{type(exc).__name__}: {exc}")

    def reply(self, number: int, error: str | None = None, **data: Any) -> None:
        """Answer a request."""
        if error is None:
            self.wire.tell(reply=number, ok=True, data=data)
        else:
            self.wire.tell(reply=number, ok=False, error=error[: wire.NAME_MAX], data=data)

    def _hello(self, number: int, _: int) -> None:
        self.tell_ready()
        self.reply(number)

    def _drain(self, number: int, _: int) -> None:
        self._needs("drain")
        self.intake.close(self.consumer)
        self.beat()
        patience = intake.in_flight_seconds(intake.channel_of(self.consumer))
        self._when_nothing_is_in_flight(number, time.monotonic() + patience)

    def _when_nothing_is_in_flight(self, number: int, deadline: float) -> None:
        channel = intake.channel_of(self.consumer)
        intake.read_paused(channel)
        in_flight = intake.in_flight(channel)
        if in_flight and self.intake.closed and self.connected and time.monotonic() < deadline:
            self._hub.call_later(POLL_SECONDS, self._when_nothing_is_in_flight, number, deadline)
            return
        self.beat()
        self.reply(number, held=intake.held(channel), in_flight=in_flight)

    def _resume(self, number: int, _: int) -> None:
        self._needs("drain")
        self.intake.open(self.consumer)
        self.beat()
        self.reply(number)

    def _grow(self, number: int, count: int) -> None:
        self._needs("pool")
        processes = self.pool.grow(count) if self.pool is not None else 0
        self.beat()
        self.reply(number, processes=processes)

    def _shrink(self, number: int, count: int) -> None:
        self._needs("pool")
        processes = self.pool.shrink(count) if self.pool is not None else 0
        self.beat()
        self.reply(number, processes=processes)

    def _stacks(self, number: int, _: int) -> None:
        self._needs("stacks")
        stacks.write()
        self.reply(number)

    def _needs(self, feature: str) -> None:
        if not self.features.on(feature):
            raise ValueError(f"{feature} is off: {self.features.missing[feature]}")


class Guarded:
    """A `with` block that a failure leaves quietly, at the price of its feature.  It yields whether that is on."""

    def __init__(self, features: Features, feature: str) -> None:
        self._features = features
        self._feature = feature

    def __enter__(self) -> bool:
        return self._features.on(self._feature)

    def __exit__(self, kind: object, exc: BaseException | None, _: object) -> bool:
        if not isinstance(exc, Exception):
            return False
        self._features.drop(self._feature, f"{type(exc).__name__}: {exc}")
        sys.stderr.write(f"supervisor-d's agent: {self._feature} is off: {exc!r}\n")
        return True


def _nothing(_: str) -> None:
    """Nobody keeps a ledger."""


def _need_acknowledgements(app: Any) -> None:
    """Raises ValueError where kombu keeps no `unacked`: what was delivered could not be given back then."""
    if not (app.conf.broker_transport_options or {}).get("ack_emulation", True):
        raise ValueError("`ack_emulation` is off in broker_transport_options: the broker forgets what it delivers")


def _tell_overruled(consumer: Any) -> None:
    """The daemon starts every worker with the prefork pool: whoever set another one must not be left to wonder."""
    chosen = consumer.app.conf.worker_pool
    if chosen not in PREFORK_NAMES and prefork(consumer) is not None:
        sys.stderr.write(
            f"supervisor-d's agent: the application sets worker_pool to {chosen!r}, and has prefork here: "
            "only pool processes can be counted, resized and stopped one by one\n"
        )


def _waiting() -> int:
    """Tasks that were given to the pool and have not begun; those of a later time, or over a rate limit, are not."""
    from celery.worker import state

    return len(set(state.reserved_requests) - set(state.active_requests))


def _active() -> tuple[Any, ...]:
    from celery.worker import state

    return tuple(state.active_requests)


def _count(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= 1024:
        raise ValueError("n must be a number from 1 to 1024")
    return value


def bootstep(guest: Guest) -> Any:
    """The class to add to `app.steps["consumer"]`."""
    from celery import bootsteps

    class SupervisorD(bootsteps.StartStopStep):  # type: ignore[misc]
        label = "supervisor-d"
        requires = ("celery.worker.consumer.tasks:Tasks",)

        def start(self, consumer: Any) -> None:
            guest.started(consumer)

        def stop(self, consumer: Any) -> None:
            """The loop ends, or another connection is made."""

        def shutdown(self, consumer: Any) -> None:
            """Nothing to do; the heartbeat goes on for as long as timers fire."""

        def register_with_event_loop(self, consumer: Any, hub: Any) -> None:
            guest.looping(consumer, hub)

    return SupervisorD


def move_in(channel: wire.Wire, directory: str | None, worker: Any) -> None:
    """Prepare everything in a worker that is about to build itself."""
    from celery.signals import worker_ready

    canary = os.environ.get(wire.CANARY_ENV) == "1"
    guest = Guest(channel, directory, Features.from_environment(), canary=canary)
    try:
        guest.install(worker.app)
        worker.app.steps["consumer"].add(bootstep(guest))
    except Exception as exc:  # noqa: BLE001 - the worker is ready without us as well, and says so
        sys.stderr.write(f"supervisor-d's agent: cannot move in: {exc!r}\n")
        worker_ready.connect(lambda **_: channel.tell(ready=True), weak=False, dispatch_uid="supervisor_d.ready")
        return
    worker_ready.connect(lambda **_: guest.tell_ready(), weak=False, dispatch_uid="supervisor_d.ready")
