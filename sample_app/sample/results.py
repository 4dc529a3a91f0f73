"""A result backend for a web process that asks for results later, by id, and never waits for one.

Celery's Redis backend subscribes the *sender* of a task to the task's channel at once, in case it will wait.  A web
worker never does: its subscriptions, one per task, would pile up in it and in Redis until it restarts.  Results
themselves are plain keys and are read as such.  (celery/backends/redis.py, `on_task_call`.)
"""

from __future__ import annotations

from typing import Any

from celery.backends.redis import RedisBackend


class PolledRedisBackend(RedisBackend):
    """The Redis backend without the subscription at sending time."""

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Do nothing: whoever wants the result reads its key."""
