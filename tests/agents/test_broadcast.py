"""Queues that are subscribed to and not popped from; and a worker that has none at all."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.agents.harness import Node, Server, Truth
from tests.support.waiting import wait_for

pytestmark = pytest.mark.real

Start = Callable[..., Node]


def subscriptions(broker: Server) -> int:
    """One for the queue, one for remote control."""
    return int(broker.client().info("clients")["pubsub_clients"])


def fresh(node: Node, after: float) -> bool:
    """A heartbeat of a later time shows that the broker has just been asked."""
    beat = node.beat()
    return beat["at"] > after and beat["take_at"] is not None and beat["at"] - beat["take_at"] < 0.1


def test_a_subscription_asks_all_the_time(start: Start, truth: Truth, broker: Server) -> None:
    from kombu.common import Broadcast

    node = start(env={"BROADCAST": "1"})
    node.ready()
    wait_for(lambda: fresh(node, 0.0), 10, "the broker to have been asked")
    kind: Any = Broadcast
    news = kind("news")
    truth.send(range(2), queue=news, declare=[news.exchange])
    truth.wait_finished(2, 20)
    now, before = time.monotonic(), subscriptions(broker)
    wait_for(lambda: fresh(node, now + 2.0), 10, "it to go on")
    broker.client().execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    broker.client().execute_command("CLIENT", "KILL", "TYPE", "normal")
    wait_for(lambda: fresh(node, time.monotonic() - 1.0), 20, "it to go on over another connection")
    wait_for(lambda: subscriptions(broker) >= before, 10, "the subscriptions")
    truth.send(range(2, 4), queue=news, declare=[news.exchange])
    truth.wait_finished(4, 20)


def test_without_a_queue_there_is_nothing_to_ask_for(start: Start) -> None:
    node = start(args=("-X", "celery"))
    assert node.ready()["queues"] == []
    wait_for(lambda: fresh(node, 0.0), 10, "a heartbeat that waits for no question to the broker")


def test_drained_it_asks_for_nothing(start: Start) -> None:
    node = start(env={"BROADCAST": "1"})
    node.ready()
    wait_for(lambda: fresh(node, 0.0), 10, "the broker to have been asked")
    node.done("drain")
    asked, drained = node.beat()["take_at"], node.beat()["at"]
    wait_for(lambda: node.beat()["at"] > drained + 1.5, 10, "two more heartbeats")
    assert node.beat()["take_at"] == asked


def test_what_a_dead_one_had_of_a_broadcast_is_off_the_books(start: Start, truth: Truth, broker: Server) -> None:
    """Nobody can get it again; put back, it would lie in a list that is never popped."""
    from kombu.common import Broadcast

    node = start(env={"BROADCAST": "1"}, conf={"task_acks_late": True})
    node.ready()
    wait_for(lambda: fresh(node, 0.0), 10, "the broker to have been asked")
    kind: Any = Broadcast
    news = kind("news")
    truth.send(range(2), 30.0, queue=news, declare=[news.exchange])
    wait_for(lambda: truth.unacked() == 2, 20, "both to be held")
    node.kill()
    code, counts, _ = node.restore()
    assert (code, counts["held"], counts["broadcast"], counts["restored"]) == (0, 2, 2, 0)
    client = broker.client()
    assert truth.unacked() == 0
    assert [key for key in client.keys("*") if client.type(key) == "list"] == []


def test_without_acknowledgements_the_agent_takes_nothing_over(start: Start, truth: Truth, broker: Server) -> None:
    """kombu keeps no `unacked` then, and what the agent took from it could not be given back."""
    node = start(prefetch=4, conf={"broker_transport_options": {"ack_emulation": False}})
    node.ready()
    assert "ledger is off" in node.text()
    assert "repair is off" in node.text()
    truth.send(range(6), 0.3)
    wait_for(truth.started, 20, "the first one")
    broker.client().execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    broker.client().execute_command("CLIENT", "KILL", "TYPE", "normal")
    wait_for(lambda: set(truth.finished()) == set(range(6)), 60, "all of them")
