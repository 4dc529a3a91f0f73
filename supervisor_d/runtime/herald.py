"""What `systemctl status` shows of the daemon, and the time it asks for while it drains.

STATUS= is one line, sent when it is another one than before, and at most twice a second however much happens; an idle
daemon sends nothing.  While everything stops, EXTEND_TIMEOUT_USEC= is sent again and again: as long as the loop runs,
every process is at a step of its stop list that ends with KILL, so it is progress and not a hang.
"""

from __future__ import annotations

import asyncio

from supervisor_d.core.process import State
from supervisor_d.runtime.supervisor import Supervisor
from supervisor_d.runtime.systemd import Notifier

STATUS_SECONDS = 0.5
EXTENSION_SECONDS = 20.0
EXTEND_EVERY_SECONDS = 5.0


class Herald:
    """Tells the service manager; silent where there is none."""

    def __init__(self, notifier: Notifier, supervisor: Supervisor) -> None:
        self._notifier = notifier
        self._supervisor = supervisor
        self._loop = asyncio.get_running_loop()
        self._told = ""
        self._timer: asyncio.TimerHandle | None = None
        if notifier.address:
            supervisor.watch(self._changed)

    def close(self) -> None:
        """Say no more."""
        if self._timer:
            self._timer.cancel()

    async def ask_for_time(self) -> None:
        """For as long as it is not cancelled."""
        while self._notifier.address:
            self._notifier.extend_timeout(EXTENSION_SECONDS)
            await asyncio.sleep(EXTEND_EVERY_SECONDS)

    def text(self) -> str:
        """The line: `running: 5 of 6 processes ready, 3 pools`."""
        observed, desired = self._supervisor.observed, self._supervisor.desired
        processes = [process for process in observed.processes() if process.state is not State.EXITED]
        if stopping := self._supervisor.intent.stopping:
            return f"stopping, {len(processes)} processes left: {stopping}"
        ready = sum(process.state is State.READY for process in processes)
        return f"running: {ready} of {len(processes)} processes ready, {len(desired.pools)} pools"

    def _changed(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(STATUS_SECONDS, self._tell)

    def _tell(self) -> None:
        self._timer = None
        text = self.text()
        if text != self._told and self._notifier.status(text):
            self._told = text
