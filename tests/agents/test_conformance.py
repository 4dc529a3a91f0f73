"""The insides of Celery, kombu and billiard that the agent uses, held against whichever release is installed.

`make conformance` runs this and the rest of tests/agents beside the newest Celery 5.6 and 5.7.  What is missing in
a release costs the feature that needs it, and never the worker.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest

from supervisor_d.agents.supervisor_d_celery.features import NEEDS, Features, present
from supervisor_d.agents.supervisor_d_celery.pool import INSTANCE_NEEDS
from tests.agents.harness import Node, Truth

Start = Callable[..., Node]


@pytest.mark.parametrize("feature", list(NEEDS))
def test_everything_that_a_feature_needs_is_there(feature: str) -> None:
    assert [need for need in NEEDS[feature] if not present(need)] == []
    assert Features().on(feature)


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        ("kombu.transport.redis:QoS.append", ["self", "message", "delivery_tag"]),
        ("kombu.transport.redis:QoS.ack", ["self", "delivery_tag"]),
        ("kombu.transport.redis:QoS.reject", ["self", "delivery_tag", "requeue"]),
        ("kombu.transport.redis:QoS.restore_by_tag", ["self", "tag", "client", "leftmost"]),
        ("kombu.transport.redis:Channel._brpop_start", ["self", "timeout"]),
        ("celery.worker.consumer.consumer:Consumer.on_connection_error_after_connected", ["self", "exc"]),
        ("celery.worker.consumer.consumer:Consumer._update_prefetch_count", ["self", "index"]),
        ("celery.concurrency.asynpool:AsynPool._create_worker_process", ["self", "i"]),
        ("celery.worker.request:Request.on_accepted", ["self", "pid", "time_accepted"]),
    ],
)
def test_what_is_wrapped_takes_what_we_pass_on(function: str, parameters: list[str]) -> None:
    assert list(inspect.signature(found(function)).parameters) == parameters


def test_a_pool_and_a_channel_have_what_we_read() -> None:
    source = inspect.getsource(found("celery.concurrency.asynpool:AsynPool"))
    source += inspect.getsource(found("billiard.pool:Pool"))
    assert [name for name in INSTANCE_NEEDS if f"self.{name} = " not in source] == []
    for name in ("_in_poll", "unacked_key", "unacked_index_key", "visibility_timeout", "ack_emulation"):
        assert hasattr(found("kombu.transport.redis:Channel"), name)


def test_processes_is_another_name_of_the_prefork_pool_that_no_setting_overrules() -> None:
    """The daemon starts workers with `-P processes` (supervisor_d/programs/celery.py)."""
    concurrency = import_module("celery.concurrency")
    assert "processes" in concurrency.get_available_pool_names()
    assert concurrency.get_implementation("processes") is found("celery.concurrency.prefork:TaskPool")
    assert "if value == 'prefork' and worker_pool:" in inspect.getsource(found("celery.bin.worker:WorkersPool"))


def test_a_switched_off_feature_and_a_missing_need_are_told() -> None:
    features = Features(["ledger", " repair "])
    assert not features.on("ledger")
    assert not features.on("repair")
    assert "ledger" not in features.names()
    features.drop("pool", "first")
    features.drop("pool", "second")
    assert features.missing["pool"] == "first"
    assert not present("no.such.module:thing")
    assert not present("os:path.no_such_thing")


@pytest.mark.real
@pytest.mark.parametrize(
    ("spoilt", "lost"),
    [
        ("kombu.transport.redis:QoS.restore_by_tag", {"ledger", "repair"}),
        ("celery.worker.consumer.consumer:Consumer._update_prefetch_count", {"pool"}),
        ("celery.app.utils:Settings.without_defaults", {"settings"}),
    ],
)
def test_a_release_that_lacks_something_costs_that_feature(
    start: Start, truth: Truth, spoilt: str, lost: set[str]
) -> None:
    node = start(env={"SPOIL": spoilt})
    missing = node.ready()["missing"]
    assert set(missing) == lost
    assert all("not found" in why for why in missing.values())
    truth.send(range(3))
    truth.wait_finished(3, 20)


def found(function: str) -> Any:
    module, _, path = function.partition(":")
    value: Any = import_module(module)
    for part in path.split("."):
        value = getattr(value, part)
    return value
