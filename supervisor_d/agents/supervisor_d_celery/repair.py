"""What becomes of delivered messages when the broker's connection is lost.

Celery and kombu by themselves: what was delivered and not started is dropped from memory and stays in `unacked` for the
visibility timeout; or, on a mere reset, everything is put back, and a task that runs just now runs a second time beside
itself; an acknowledgement that cannot be sent is forgotten, and its task runs again in an hour; a message that was
popped but could not be written to `unacked` is lost; and kombu 5.7.0 ends the worker with an AttributeError where
anything was delivered at all.

Here, each message that was delivered and is not settled is one of these when the connection is lost:

    kept      its task runs, and is acknowledged late: it moves to the new connection, where it will be acknowledged
    back      its task has not started: Celery forgets it, so we put it back once there is a connection again
    popped    it could not be written to `unacked`: it is written there, and then put back
    acks      its acknowledgement could not be sent: it is sent later

Before they are told apart, main reads from the pipes of the pool which tasks have started (`_settle`): a task that a
pool process has just taken must not be put back as well.

Everything that is owed is paid when the new connection stands and, while that fails, once a second.  What is still owed
when the worker ends stands in the ledger, and `restore` pays it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

from .late_answers import PATIENCE_SECONDS, LateAnswers, is_broadcast, overdue, unseen_by_kombu
from .pool import prefork
from .tally import late

SETTLE_SECONDS = 0.5
OURS = "supervisor_d_repair"
"""Marks the QoS object of a task consumer's channel: "live", or "lost" with its connection."""


class Repair:
    """What is owed to the broker, and what is kept for the next connection."""

    def __init__(self, done: Callable[[str], None], freed: Callable[[str], None]) -> None:
        self._done, self._freed = done, freed
        """Tell the ledger that a message is to be acknowledged, that it is settled."""
        self._main = os.getpid()
        self._losing = False
        self.kept: dict[str, Any] = {}
        self.back: dict[str, Any] = {}
        self.popped: dict[str, Any] = {}
        self.acks: dict[str, None] = {}
        self.late_answers = LateAnswers()
        self._qos: Any = None
        self._checked_at: float | None = None

    # -------------------------------------------------------------------------------------------- wrapping

    def install(self) -> None:
        """Wrap kombu's methods that tell the broker about messages; only task consumers' channels are affected."""
        from kombu.transport import redis

        qos: Any = redis.QoS
        qos.append = self._append(qos.append)
        qos.ack = self._ack(qos.ack)
        qos.reject = self._reject(qos.reject)
        qos.restore_unacked_once = self._restore_unacked_once(qos.restore_unacked_once)
        unseen_by_kombu(self.looked_after)

    def watch(self, consumer: Any) -> None:
        """Be asked first when this consumer loses its connection."""
        original = consumer.on_connection_error_after_connected

        def on_connection_error_after_connected(exc: BaseException) -> Any:
            _never_raising(self.lost, consumer)
            result = original(exc)
            _never_raising(_full_prefetch, consumer)
            return result

        consumer.on_connection_error_after_connected = on_connection_error_after_connected
        for name in ("call_soon", "call_soon_ack"):
            if hasattr(consumer, name):
                setattr(consumer, name, self._at_once(getattr(consumer, name)))

    def _at_once(self, original: Any) -> Any:
        """While a connection is given up, an acknowledgement does not wait for the loop: it would be forgotten."""

        def call_soon(callback: Any, *args: Any, **kwargs: Any) -> Any:
            if self._losing and getattr(callback, "__name__", "") in ("ack_log_error", "reject_log_error"):
                return callback(*args, **kwargs)
            return original(callback, *args, **kwargs)

        return call_soon

    def _state(self, qos: Any) -> str | None:
        return getattr(qos, OURS, None) if os.getpid() == self._main else None

    def _append(self, original: Any) -> Any:
        def append(qos: Any, message: Any, delivery_tag: Any) -> Any:
            try:
                return original(qos, message, delivery_tag)
            except qos.channel.connection_errors:
                if self._state(qos) is not None:
                    self.popped[delivery_tag] = message
                raise

        return append

    def _ack(self, original: Any) -> Any:
        def ack(qos: Any, delivery_tag: Any) -> Any:
            if not self._fails(qos, original, delivery_tag):
                return
            self._owe_ack(qos, delivery_tag)

        return ack

    def _reject(self, original: Any) -> Any:
        def reject(qos: Any, delivery_tag: Any, requeue: bool = False) -> Any:  # noqa: FBT001, FBT002 - kombu's
            if not self._fails(qos, original, delivery_tag, requeue=requeue):
                return
            if requeue:
                self.back[delivery_tag] = None
                qos._quick_ack(delivery_tag)
            else:
                self._owe_ack(qos, delivery_tag)

        return reject

    def _owe_ack(self, qos: Any, delivery_tag: str) -> None:
        self.acks[delivery_tag] = None
        self._done(delivery_tag)
        qos._quick_ack(delivery_tag)

    def _fails(self, qos: Any, original: Any, *args: Any, **kwargs: Any) -> bool:
        """Whether the broker could not be told; where it is not our business, the exception is the application's."""
        state = self._state(qos)
        if state == "lost":
            return True
        try:
            original(qos, *args, **kwargs)
        except qos.channel.connection_errors:
            if state is None:
                raise
            return True
        return False

    def _restore_unacked_once(self, original: Any) -> Any:
        def restore_unacked_once(qos: Any, *args: Any, **kwargs: Any) -> Any:
            if self._state(qos) == "lost":
                qos._on_collect.cancel()
                self._take_over(qos, set())
                return None
            return original(qos, *args, **kwargs)

        return restore_unacked_once

    # -------------------------------------------------------------------------------------------- losing

    def lost(self, consumer: Any) -> None:
        """The connection is gone: tell apart what was delivered over it."""
        if self._qos is None:
            return
        self._losing = True
        setattr(self._qos, OURS, "lost")
        self.late_answers.put_aside(self._qos.channel)
        _run_acks(consumer.hub)
        _settle(prefork(consumer))
        self._take_over(self._qos, _running(consumer))

    def _take_over(self, qos: Any, running: set[str]) -> None:
        qos._flush()
        for tag, message in tuple(qos._delivered.items()):
            if tag in self.acks or tag in self.popped:
                continue
            (self.kept if tag in running else self.back)[tag] = message
        qos._delivered.clear()

    # -------------------------------------------------------------------------------------------- paying

    def connected(self, channel: Any) -> None:
        """A new connection: what runs is held by it, and what is owed is paid."""
        self._losing = False
        self._qos = channel.qos
        setattr(self._qos, OURS, "live")
        for tag, message in self.kept.items():
            if tag not in self.acks and tag not in self.back:
                message.channel = channel
                self._qos._delivered[tag] = message
        self.kept.clear()
        self.pay()

    def pay(self) -> None:
        """Settle what is owed, as far as the broker answers."""
        qos = self._qos
        if qos is None or self._state(qos) != "live":
            return
        try:
            self.late_answers.give_back(qos.channel)
            for tag in tuple(self.acks):
                qos._remove_from_indices(tag).execute()
                self._paid(self.acks, tag)
            for tag, message in tuple(self.popped.items()):
                self._write_down(qos, tag, message)
                self.back[tag] = self.popped.pop(tag)
            for tag, message in reversed(tuple(self.back.items())):
                if message is not None and is_broadcast(qos.channel, message.delivery_info.get("exchange")):
                    qos._remove_from_indices(tag).execute()
                else:
                    qos.restore_by_tag(tag)
                self._paid(self.back, tag)
        except qos.channel.connection_errors:
            return

    def check(self, channel: Any, brpop_sent_at: float | None) -> None:
        """Raises ConnectionResetError when the broker has fallen silent: Celery then makes a new connection."""
        if self._qos is not None and self._state(self._qos) == "live":
            self._checked_at = now = time.monotonic()
            if overdue(channel, brpop_sent_at, now):
                raise ConnectionResetError(
                    f"the broker has not answered for {now - (brpop_sent_at or now):.0f} seconds"
                )

    def looked_after(self) -> Any:
        """The channel whose silence `check` notices, unless nobody has called it for a while: then kombu must."""
        qos, checked_at = self._qos, self._checked_at
        if qos is None or self._state(qos) != "live" or checked_at is None:
            return None
        return qos.channel if time.monotonic() - checked_at < PATIENCE_SECONDS else None

    def _paid(self, debts: dict[str, Any], tag: str) -> None:
        debts.pop(tag, None)
        self._freed(tag)

    def _write_down(self, qos: Any, tag: str, message: Any) -> None:
        """What `append` could not do."""
        from kombu.utils import json as kombu_json

        dumps: Any = kombu_json.dumps
        info = message.delivery_info
        with qos.pipe_or_acquire() as pipe:
            pipe.zadd(qos.unacked_index_key, {tag: time.time()})
            pipe.hset(qos.unacked_key, tag, dumps([message._raw, info["exchange"], info["routing_key"]]))
            pipe.execute()


def _never_raising(ours: Callable[[Any], None], consumer: Any) -> None:
    """Celery makes its next connection whatever becomes of our part: an exception in here would end the worker.

    What `lost` has not told apart by then, kombu's `restore_unacked_once` tells us of.
    """
    try:
        ours(consumer)
    except Exception as exc:  # noqa: BLE001
        sys.stderr.write(f"supervisor-d's agent: repair: {exc!r}\n")


def _running(consumer: Any) -> set[str]:
    """The tags of tasks that run and will be acknowledged when they end."""
    from celery.worker import state

    if consumer.app.conf.worker_cancel_long_running_tasks_on_connection_loss:
        return set()  # Celery ends them: they are to run again
    return {
        request._message.delivery_tag
        for request in tuple(state.active_requests)
        if late(request) and not request.acknowledged
    }


def _run_acks(hub: Any) -> None:
    """Acknowledgements that wait for the event loop's next turn, which this connection will not see."""
    ready = hub._pop_ready() if hasattr(hub, "_pop_ready") else set()
    for callback in ready:
        if getattr(getattr(callback, "fun", None), "__name__", "") in ("ack_log_error", "reject_log_error"):
            callback()
        else:
            hub.call_soon(callback)


def _settle(pool: Any) -> None:
    """Until each task that was written to a pool process is known to have started, or for SETTLE_SECONDS."""
    if not hasattr(pool, "process_flush_queues"):  # none, or the one without an event loop, which reads by itself
        return
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        for process in tuple(pool._pool):
            pool.process_flush_queues(process)
        written = [job for job in tuple(pool._cache.values()) if job._write_to is not None and not job._accepted]
        if not written or time.monotonic() >= deadline:
            return


def _full_prefetch(consumer: Any) -> None:
    """Undo Celery's reduced prefetch after a reconnect: what runs is held by the new connection and counted there."""
    if consumer.app.conf.worker_enable_prefetch_count_reduction and consumer.initial_prefetch_count:
        consumer.initial_prefetch_count = consumer.max_prefetch_count
        consumer._maximum_prefetch_restored = True
