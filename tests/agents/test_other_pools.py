"""A pool that is not prefork: the daemon starts none, and the agent beside one costs it nothing."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import pytest

from tests.agents.harness import Node, Server, Truth
from tests.support.waiting import wait_for

pytestmark = pytest.mark.real

Start = Callable[..., Node]
KINDS = ["solo", "threads", *(["gevent"] if importlib.util.find_spec("gevent") else [])]


@pytest.mark.parametrize("kind", KINDS)
def test_it_works_on_after_a_lost_connection(start: Start, truth: Truth, broker: Server, kind: str) -> None:
    node = start(args=("-P", kind), conf={"task_acks_late": True})
    missing = node.ready()["missing"]
    assert set(missing) == {"pool"}
    assert missing["pool"].endswith(" is not the prefork pool")
    truth.send(range(4), 0.2)
    truth.wait_finished(1, 20)
    broker.client().execute_command("CLIENT", "KILL", "TYPE", "normal")
    truth.send(range(4, 8), 0.1)
    truth.wait_finished(8, 40)
    wait_for(lambda: truth.queued() == truth.unacked() == 0, 10, "everything to be settled")
    assert node.text().count("supervisor-d's agent: ") == 1, "of the pool alone"
    assert node.stop() == 0
