"""A result backend for a web process, which asks for results later, by id, and never waits for one.

Celery's Redis backend subscribes the *sender* of a task to its channel before it sends, in case it will wait.  In
a web worker that is a second connection and a round trip for nothing, and worse while Redis is away: a request that
queues a task hangs for 19 seconds of retries and ends in a RuntimeError, where without the subscription the
publishing policy decides (sample/settings.py), in half a second.  (celery/backends/redis.py, `on_task_call`.)
"""

from __future__ import annotations

from typing import Any

from celery.backends.redis import RedisBackend


class PolledRedisBackend(RedisBackend):
    """The Redis backend without the subscription at sending time."""

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Do nothing: whoever wants the result reads its key."""
