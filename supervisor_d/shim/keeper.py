"""A shim in adopt mode: it takes the place of one that died, beside a program that runs on.

It cannot become the parent of what it did not fork.  What it takes over is everything else that a shim holds, so that
program, log and sockets are as safe from the daemon's death as they were:

    log          the FIFO, which the program itself holds open: what it wrote meanwhile is still in there
    sockets      the listeners, which the daemon got back from the main process
    notify       its socket is bound anew at its path; an agent's pair died with the shim, and is gone: what is told
                 to the agent from now on is lost, and its driver does without
    exit         the main process's pidfd; how it ended is told by the kernel (Linux 6.15), else the status is null
    daemons      the record's socket

The tree is the daemon's to end, by cgroup or by what can be seen (runtime/lost.py), and so `kill` is not for us.

Worked example, `web.0@g1.1` whose shim 700 was killed and whose main process 701 runs:

    daemon > spare    request `keep`, with descriptors: link, record, log directory, pidfd of 701, listeners
    shim   > daemon   (all that is on record), {"event":"replaced","process":[710, ...]}
    701 exits         {"event":"exited","status":0, ...}
    daemon            looks for survivors, and ends them
    daemon > shim     {"ask":"release"}
"""

from __future__ import annotations

import os
import time

from supervisor_d.shim import kernel, wire
from supervisor_d.shim.links import Link
from supervisor_d.shim.logfile import LogFile
from supervisor_d.shim.loop import IN, ONESHOT
from supervisor_d.shim.pump import Pump
from supervisor_d.shim.shim import EVENTS_FLAGS, FIFO_FLAGS, Shim, grow

EXIT_LOOKS = 60
EXIT_LOOK_SECONDS = 0.05
"""A dead process that nobody has reaped has no exit yet; a slow PID 1 takes 2 s."""


class Keeper(Shim):
    """A shim that can be either."""

    def keep(self, link: kernel.Socket, record: int, log_directory: int, main: int, listeners: list[int]) -> None:
        """Until released.  Descriptors: of the record's directory, of the log's, the main process's pidfd, and the
        program's listeners.  Raises OSError when something cannot be taken over; then nothing was told."""
        self._record = record
        self._listeners = listeners
        self._spec = wire.decode(wire.read(wire.SPEC, record))  # type: ignore[assignment]
        self._empty = True  # of children
        self._said = [line + b"\n" for line in wire.read(wire.EVENTS, record).split(b"\n")[:-1]]
        self._events = os.open(wire.EVENTS, EVENTS_FLAGS, 0o600, dir_fd=record)
        self._take_over(log_directory)
        self._links.add(link)
        self.say({"event": "replaced", "process": self._identity})
        self._exit_looks = 0
        self._loop.watch(main, lambda: self._main_ended(main))
        self._loop.run()

    def _take_over(self, log_directory: int) -> None:
        spec = self._spec
        kernel.set_name(f"shim {spec['id']}")
        self._fifo = os.open(wire.FIFO, FIFO_FLAGS, dir_fd=self._record)
        log = spec["log"]
        file = LogFile(log_directory, log["name"], log["max_size_bytes"], log["keep"])
        self._pump = Pump(self._fifo, grow(self._fifo), file, log["block_seconds"])
        self._loop.watch(self._fifo, self._look, IN | ONESHOT)
        if spec["notify"]:
            _unlink(f"{spec['private_dir']}/{wire.NOTIFY}", None)
            self._told.listen_for_notify(spec["private_dir"])
        _unlink(wire.SOCKET, self._record)
        self._links.listen(self._record)

    def _main_ended(self, main: int) -> None:
        """It stays readable for ever; how it ended is known once somebody has reaped it."""
        self._loop.unwatch(main)
        try:
            status = kernel.exit_status(main)
        except OSError:
            status, self._exit_looks = None, EXIT_LOOKS
        if status is None and self._exit_looks < EXIT_LOOKS:
            self._exit_looks += 1
            self._loop.after(EXIT_LOOK_SECONDS, "exit", lambda: self._main_ended(main))
            return
        self.say({"event": "exited", "status": status, "at": time.time()})

    def _asked(self, link: Link, message: wire.Message) -> None:
        if message.get("ask") == "release" and self._main == 0 and self._empty:
            self._drain()
        super()._asked(link, message)


def _unlink(name: str, directory: int | None) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        pass
