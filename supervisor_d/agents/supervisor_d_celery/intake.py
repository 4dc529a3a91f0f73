"""Whether messages are taken: drain, resume, and the canary that never takes any.

Celery begins to consume by `task_consumer.consume()`, at the start and again after each reconnect, and by remote
control.  While the intake is closed that call does nothing, so a drained worker stays drained whatever happens to its
connection.

A BRPOP may be in flight when the consumers are cancelled.  The message it then brings finds no consumer, and kombu puts
it back at the head of its queue; only when the last BRPOP has been answered is it certain that nothing is held by
chance.
"""

from __future__ import annotations

from typing import Any

BRPOP_SECONDS = 1.0
"""How long kombu's BRPOP waits, where the application sets no `polling_interval`."""
WAITS_MOST_SECONDS = 3600.0
ANSWER_SECONDS = 0.1
"""An answer's way here."""


class Intake:
    """The gate in front of one consumer."""

    def __init__(self, *, canary: bool) -> None:
        self.canary = canary
        self.closed = canary

    def guard(self, consumer: Any) -> None:
        """A new connection's task consumer consumes only while the intake is open."""
        tasks = consumer.task_consumer
        original = tasks.consume

        def consume(*args: Any, **kwargs: Any) -> Any:
            return None if self.closed else original(*args, **kwargs)

        tasks.consume = consume

    def close(self, consumer: Any) -> None:
        """Take nothing more."""
        self.closed = True
        if consuming(consumer):
            consumer.task_consumer.cancel()

    def open(self, consumer: Any) -> None:
        """Take messages again.  Raises ValueError for a canary."""
        if self.canary:
            raise ValueError("a canary never consumes")
        self.closed = False
        if consumer.task_consumer is not None:
            consumer.task_consumer.consume()


def consuming(consumer: Any) -> bool:
    """Whether its task consumer has queues that it takes from."""
    return bool(getattr(getattr(consumer, "task_consumer", None), "_active_tags", None))


def channel_of(consumer: Any) -> Any:
    """The channel that tasks come from; None where there is none."""
    return getattr(getattr(consumer, "task_consumer", None), "channel", None)


def in_flight(channel: Any) -> bool:
    """Whether a BRPOP waits for its answer (other brokers push: nothing is ever in flight)."""
    return bool(getattr(channel, "_in_poll", None))


def take_waits(channel: Any) -> float:
    """Seconds that a BRPOP waits for its answer; 0 for ever, as for more than WAITS_MOST_SECONDS."""
    waits = getattr(channel, "brpop_timeout", BRPOP_SECONDS)
    return float(waits) if isinstance(waits, (int, float)) and 0 < waits <= WAITS_MOST_SECONDS else 0.0


def in_flight_seconds(channel: Any) -> float:
    """After how long the last BRPOP must have been answered."""
    return (take_waits(channel) or WAITS_MOST_SECONDS) + ANSWER_SECONDS


def held(channel: Any) -> int | None:
    """Messages delivered and not acknowledged; None where the transport does not say."""
    qos = getattr(channel, "_qos", None)
    if qos is None:
        return 0 if hasattr(channel, "_qos") else None
    return max(0, len(qos._delivered or ()) - len(qos._dirty or ()))


def can_consume(channel: Any) -> bool:
    """Whether prefetch credit is left."""
    qos = getattr(channel, "_qos", None)
    return qos is None or bool(qos.can_consume())


def nothing_to_pop(consumer: Any) -> bool:
    """Whether it takes messages, or would, without ever sending a BRPOP: it has no queue, or has subscribed to all.

    Redis pushes what comes by a fanout exchange (kombu's Broadcast queues) for as long as a subscription stands.
    """
    channel = channel_of(consumer)
    if not hasattr(channel, "active_fanout_queues"):
        return False
    if channel.active_fanout_queues:
        return bool(channel._in_listen) and not channel.active_queues
    return not consumer.task_consumer.queues


def read_paused(channel: Any) -> None:
    """Take the answer of a BRPOP that kombu put aside for want of credit, so that its message goes back."""
    cycle: Any = getattr(getattr(channel, "connection", None), "cycle", None)
    for fd, paused in list(getattr(cycle, "_paused_brpop", {}).items()):
        if paused[0] is channel and _readable(fd):
            cycle._discard_paused_brpop(fd)
            channel._brpop_read()


def _readable(fd: int) -> bool:
    import select

    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(0))
