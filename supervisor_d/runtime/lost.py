"""A tree whose shim is dead: what can still be known of it, and how it is ended.

The shim was its parent, and parents know.  Without it the daemon has, in this order:

    the main process's pidfd    readable at its end; where the kernel tells how it ended (Linux 6.15) once anybody
                                reaped it, which the zygote does at once for those whose shim it started
    the cgroup                  names every process, kills all, and says when none is left: proven
    session, descendants, FIFO  runtime/survivors.py: what can be seen, not proven

As under a shim, survivors of the main process may live for the orphans' grace, and are then killed.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from dataclasses import dataclass

from supervisor_d.core.process import Exit
from supervisor_d.runtime import cgroups, pidfd
from supervisor_d.runtime.known import exit_of
from supervisor_d.runtime.survivors import Marks, survivors

EXIT_LOOKS = 60
EXIT_LOOK_SECONDS = 0.05
"""A dead process that nobody has reaped has no exit yet; a slow PID 1 takes 2 s."""
ROUND_SECONDS = 0.02
ROUND_MAX_SECONDS = 1.0


@dataclass(slots=True)
class Tree:
    """What is known of the lost tree.  `main` is a pidfd or None; `cgroup` is "" without one."""

    main: int | None
    marks: Marks
    cgroup: str
    grace_seconds: float


class LostTree:
    """Watches a tree to its end.  `exited` is called once, unless the exit was known; then `emptied`, with the
    number of processes killed.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        tree: Tree,
        *,
        exit_known: bool,
        exited: Callable[[Exit], None],
        emptied: Callable[[int], None],
    ) -> None:
        self._loop = loop
        self._tree = tree
        self._exited = exited
        self._emptied = emptied
        self._main_over = False
        self._killing = False
        self._killed: set[int] = set()
        self._pause = ROUND_SECONDS
        self._timer: asyncio.TimerHandle | None = None
        self._exit_timer: asyncio.TimerHandle | None = None
        self._grace_timer: asyncio.TimerHandle | None = None
        if exit_known:
            loop.call_soon(self._after_main)
        elif tree.main is None:
            loop.call_soon(self._tell_exit, Exit())
        else:
            loop.add_reader(tree.main, self._main_ended, tree.main)

    def kill(self) -> None:
        """SIGKILL to all, until nothing is left."""
        self._killing = True
        self._pause = ROUND_SECONDS
        self._round()

    def close(self) -> None:
        """Look no more."""
        if self._tree.main is not None:
            self._loop.remove_reader(self._tree.main)
        for timer in (self._timer, self._exit_timer, self._grace_timer):
            if timer:
                timer.cancel()

    def _main_ended(self, main: int) -> None:
        self._loop.remove_reader(main)  # it stays readable for ever
        self._look_for_exit(main, EXIT_LOOKS)

    def _look_for_exit(self, main: int, looks: int) -> None:
        try:
            status = pidfd.exit_status(main)
        except pidfd.ExitUnknownError:
            looks, status = 0, None
        if status is None and looks > 0:
            self._exit_timer = self._loop.call_later(EXIT_LOOK_SECONDS, self._look_for_exit, main, looks - 1)
            return
        self._tell_exit(Exit() if status is None else exit_of(status))

    def _tell_exit(self, how: Exit) -> None:
        self._exited(how)
        self._after_main()

    def _after_main(self) -> None:
        self._main_over = True
        if self._tree.grace_seconds > 0 and not self._killing:
            self._grace_timer = self._loop.call_later(self._tree.grace_seconds, self.kill)
            self._round()
        else:
            self.kill()

    def _round(self) -> None:
        """Look who is left; kill them if it is time; and again, until nobody is."""
        if self._timer:
            self._timer.cancel()
        left = self._round_in_cgroup() if self._tree.cgroup else self._round_by_marks()
        if self._main_over and not left:
            self.close()
            self._emptied(len(self._killed))
            return
        self._timer = self._loop.call_later(self._pause, self._round)
        self._pause = min(2 * self._pause, ROUND_MAX_SECONDS)

    def _round_in_cgroup(self) -> bool:
        if self._killing and self._main_over:
            self._killed |= cgroups.members(self._tree.cgroup)
        if self._killing:
            cgroups.kill(self._tree.cgroup)
        return cgroups.populated(self._tree.cgroup)

    def _round_by_marks(self) -> bool:
        left = False
        for pid, survivor in survivors(self._tree.marks):
            left = True
            if self._killing:
                self._killed.add(pid)
                pidfd.send(survivor, signal.SIGKILL)
        if self._killing and self._tree.main is not None:
            pidfd.send(self._tree.main, signal.SIGKILL)
        return left
