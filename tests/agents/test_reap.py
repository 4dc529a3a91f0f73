"""The end of a pool process is noticed at once, again and again, whatever the machine does beside."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from tests.agents.harness import Node
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.real]

KILLS = 12
SECONDS = 2.0
"""Less than half of the period of the pool's own timer."""


def test_a_killed_pool_process_is_replaced_at_once(start: Callable[..., Node]) -> None:
    node = start(concurrency=4)
    node.ready()
    took = []
    for number in range(KILLS):
        children = node.children()
        assert len(children) == 4
        began = time.monotonic()
        os.kill(children[number % 4], signal.SIGKILL)
        wait_for(lambda old=children: len(set(node.children()) - set(old)) == 1, 20, "a new pool process")  # type: ignore[misc]
        wait_for(lambda: len(node.children()) == 4, 20, "four pool processes")
        took.append(time.monotonic() - began)
    assert max(took) < SECONDS, took
