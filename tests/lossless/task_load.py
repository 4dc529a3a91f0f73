"""Tasks, sent by Celery's own client at a steady rate, from a process of its own.

    with TaskLoad(broker_port, rate=20, seconds=(0.02, 0.2)) as load:
        ...
    load.told.sent      # what the broker has confirmed

A message whose sending failed may be in the broker or not (the answer may be what was lost): its id is `unsure`, never
sent again, and no promise is judged by it.  A sending that stalls delays the later ones; none is left out.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from dataclasses import asdict, dataclass, field

from celery import Celery

from tests.lossless.process import LoadProcess, speak, tell

MOST_TASKS = 60_000
MOST_SECONDS = 1500.0
REDIS_SECONDS = 5.0
FLOOD = 0.0
"""The rate of a flood: one after the other, as fast as it goes."""


@dataclass(slots=True)
class Told:
    """What was sent."""

    sent: dict[str, float] = field(default_factory=dict)
    """Task id -> CLOCK_MONOTONIC just before it was given to the broker, which confirmed it."""
    unsure: list[str] = field(default_factory=list)
    """Ids of which the broker's word is missing."""
    late_seconds: float = 0.0
    """How late the client was, at worst, to send a task."""


class _Client:
    """The load itself, inside its process."""

    def __init__(self, port: int, task: str, rate: float, seconds: tuple[float, float], most: int, seed: int) -> None:
        self._task = task
        self._rate = rate
        self._range = seconds
        self._most = most
        self._random = random.Random(seed)
        self._celery = Celery("sender", broker=f"redis://127.0.0.1:{port}/0", set_as_current=False)
        self._celery.conf.update(
            task_ignore_result=True,
            broker_transport_options={"socket_timeout": REDIS_SECONDS, "socket_connect_timeout": REDIS_SECONDS},
        )
        self.ending = False
        self.told = Told()

    async def run(self) -> None:
        """Send until told to end, or until there are enough."""
        began = due = time.monotonic()
        for number in range(self._most):
            if self._rate != FLOOD:
                due += 1 / self._rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                self.told.late_seconds = max(self.told.late_seconds, time.monotonic() - due)
            if self.ending or time.monotonic() - began > MOST_SECONDS:
                break
            await asyncio.to_thread(self._send, f"task-{number:05d}-{self._random.getrandbits(64):016x}")
        self._celery.close()

    def _send(self, task_id: str) -> None:
        seconds = self._random.uniform(*self._range)
        now = time.monotonic()
        try:
            self._celery.send_task(self._task, (seconds,), task_id=task_id, retry=False)
        except Exception:  # noqa: BLE001  redis-py's, kombu's, the socket's: whatever it is, nothing is known
            self.told.unsure.append(task_id)
        else:
            self.told.sent[task_id] = now

    def end(self) -> None:
        """Send nothing more."""
        self.ending = True


class TaskLoad(LoadProcess[Told]):
    """The load on a broker of this host; each task takes as long as chance says, within `seconds`."""

    def __init__(
        self,
        port: int,
        *,
        rate: float = 20.0,
        seconds: tuple[float, float] = (0.02, 0.2),
        most: int = MOST_TASKS,
        task: str = "work",
    ) -> None:
        seed = random.getrandbits(32)
        super().__init__("tests.lossless.task_load", Told, port, task, rate, *seconds, most, seed)

    def sent(self) -> int:
        """How many the broker has confirmed so far."""
        return self.done()


async def _main(port: str, task: str, rate: str, shortest: str, longest: str, most: str, seed: str) -> None:
    seconds = float(shortest), float(longest)
    client = _Client(int(port), task, float(rate), seconds, int(most), int(seed))
    await speak(client.run(), lambda: [len(client.told.sent), len(client.told.unsure)], client.end)
    tell(asdict(client.told))


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
