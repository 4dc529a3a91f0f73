"""Which features are on: each names what it needs of other people's insides, and stays off where that is missing.

Celery, kombu and billiard promise nothing about these names.  A release that changes one costs the features that need
it, told in the ready message under "missing", and never the worker.  The conformance test reads this table against
whatever Celery is installed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from importlib import import_module

from . import wire

_CONSUMER = "celery.worker.consumer.consumer:"
_REDIS = "kombu.transport.redis:"
_ASYNPOOL = "celery.concurrency.asynpool:AsynPool."

NEEDS: Mapping[str, tuple[str, ...]] = {
    "heartbeat": (
        "celery.worker.state:active_requests",
        "celery.worker.state:requests",
        "celery.worker.strategy:create_request_cls",
        "celery.worker.request:Request.on_accepted",
        "celery.worker.request:Request.on_failure",
        "celery.worker.request:Request.on_retry",
        "celery.worker.request:Request._announce_revoked",
        _CONSUMER + "maybe_shutdown",
        "kombu.asynchronous:Hub.call_repeatedly",
    ),
    "drain": (
        _CONSUMER + "Consumer",
        "kombu.asynchronous:Hub.add_reader",
        "kombu.asynchronous:Hub.call_later",
        "kombu.messaging:Consumer.cancel",
        "kombu.messaging:Consumer.consume",
    ),
    "ledger": (
        _REDIS + "QoS.append",
        _REDIS + "QoS.ack",
        _REDIS + "QoS.reject",
        _REDIS + "QoS.restore_by_tag",
        "kombu:Connection.info",
    ),
    "lend": (_REDIS + "Channel._brpop_start", "redis.connection:Connection.send_command", "socket:SCM_RIGHTS"),
    "repair": (
        _CONSUMER + "Consumer.on_connection_error_after_connected",
        _CONSUMER + "Consumer.call_soon",
        _REDIS + "QoS.append",
        _REDIS + "QoS.ack",
        _REDIS + "QoS.reject",
        _REDIS + "QoS.restore_by_tag",
        _REDIS + "QoS.restore_unacked_once",
        _REDIS + "QoS._remove_from_indices",
        _REDIS + "QoS._delivered",
        _REDIS + "QoS._dirty",
        _ASYNPOOL + "process_flush_queues",
        "celery.worker.state:active_requests",
    ),
    "pool": (
        _CONSUMER + "Consumer._update_prefetch_count",
        _ASYNPOOL + "grow",
        _ASYNPOOL + "_create_worker_process",
        _ASYNPOOL + "_find_worker_queues",
        _ASYNPOOL + "on_grow",
        _ASYNPOOL + "create_process_queues",
        _ASYNPOOL + "on_process_alive",
        "billiard.pool:Pool._maintain_pool",
    ),
    "reap": (_ASYNPOOL + "_event_process_exit", _ASYNPOOL + "maintain_pool", "kombu.asynchronous:Hub.call_later"),
    "settings": ("celery.app.utils:Settings.without_defaults",),
    "stamp": ("celery.signals:before_task_publish",),
    "freeze": ("celery.signals:worker_before_create_process", "gc:freeze"),
    "oom": ("celery.signals:worker_process_init",),
    "stacks": ("faulthandler:register",),
}
"""Feature: what must be there.  What stands on instances is looked at when the feature binds to them."""


class Features:
    """Which are on, and of the others, why not."""

    def __init__(self, off: Iterable[str] = ()) -> None:
        self.missing: dict[str, str] = {}
        unwanted = {name.strip() for name in off}
        for name, needs in NEEDS.items():
            if name in unwanted:
                self.missing[name] = "switched off by " + wire.OFF_ENV
                continue
            absent = [need for need in needs if not present(need)]
            if absent:
                self.missing[name] = "not found: " + ", ".join(absent)

    @classmethod
    def from_environment(cls) -> Features:
        """By SUPERVISOR_D_AGENT_OFF."""
        return cls(os.environ.get(wire.OFF_ENV, "").split(","))

    def on(self, name: str) -> bool:
        """Whether the feature is there and wanted."""
        return name not in self.missing

    def names(self) -> list[str]:
        """Those that are on, in the table's order."""
        return [name for name in NEEDS if name not in self.missing]

    def drop(self, name: str, why: str) -> None:
        """Switch one off, for a reason that only showed when it was used; the first reason stays."""
        self.missing.setdefault(name, why[: wire.NAME_MAX])


def present(need: str) -> bool:
    """Whether `module:dotted.name` can be reached."""
    module, _, path = need.partition(":")
    try:
        found = import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        return False
    return True
