"""Beats that sign what they send, and the judge of it: who sent, when, and whether two ever sent by turns.

Each message carries the pid of its beat, its schedule's name and the instant (CLOCK_MONOTONIC, one for all processes
of a machine) at which it was handed to the broker.  No worker takes them: what is in the queue is what was sent.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import redis

from tests.lossless.judge import Records

PERIOD_SECONDS = 0.2
APP = f"""
import os, time
from datetime import timedelta
from celery import Celery
from celery.signals import before_task_publish

app = Celery("shop", broker=f"redis://127.0.0.1:{{os.environ['BROKER_PORT']}}/0")
app.conf.beat_schedule = {{
    "tick": {{"task": "shop.tick", "schedule": {PERIOD_SECONDS}}},
    "hourly": {{"task": "shop.hourly", "schedule": 3600.0, "last_run_at": app.now() - timedelta(hours=2)}},
}}
app.conf.beat_max_loop_interval = 1

@before_task_publish.connect
def sign(headers=None, **_):
    headers["beat_pid"] = os.getpid()
    headers["beat_at"] = time.monotonic()
    if "SLOW_SEND" in os.environ:
        with open(os.environ["SLOW_SEND"], "a") as file:
            print(headers["task"], file=file, flush=True)
        time.sleep(float(os.environ.get("SEND_SECONDS", "1")))

if "BOOT_SECONDS" in os.environ:
    time.sleep(float(os.environ["BOOT_SECONDS"]))
"""


@dataclass(frozen=True, slots=True)
class Sent:
    """One message."""

    pid: int
    at: float
    task: str


def write_app(directory: Path, more: str = "") -> None:
    """The application `shop`."""
    (directory / "shop.py").write_text(APP + more)


def sent(broker: Records | redis.Redis) -> list[Sent]:
    """Everything in the queue, as it was handed over."""
    client = broker.redis if isinstance(broker, Records) else broker
    heads = [json.loads(message)["headers"] for message in client.lrange("celery", 0, -1)]
    found = [Sent(int(head["beat_pid"]), float(head["beat_at"]), str(head["task"])) for head in heads]
    return sorted(found, key=lambda each: each.at)


def senders(messages: list[Sent]) -> list[int]:
    """The pids in the order of their turns: each once, unless two sent at a time."""
    return [pid for pid, _ in itertools.groupby(messages, key=lambda each: each.pid)]


def gaps(messages: list[Sent]) -> list[float]:
    """The silence between one sender's last message and the next one's first."""
    return [b.at - a.at for a, b in itertools.pairwise(messages) if a.pid != b.pid]


def assert_never_two(messages: list[Sent]) -> None:
    """Fail when a beat sent again after another one had begun."""
    turns = senders(messages)
    assert len(turns) == len(set(turns)), f"two beats sent by turns: {turns}"
