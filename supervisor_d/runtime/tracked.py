"""One process as the daemon follows it: its shim by link and pidfd, its main process by pidfd.

It starts from what is known (nothing, or a record), and turns what its shim says into events.  A link that breaks is
made anew as long as the shim lives, and the shim's replay fills the gap.  When a shim dies before its tree is empty,
one in adopt mode takes its place (shim/keeper.py), and the tree itself is left to runtime/lost.py.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from supervisor_d.core.events import Event, ShimLost
from supervisor_d.core.process import Exit
from supervisor_d.runtime import cgroups, crash, pidfd, shimlink
from supervisor_d.runtime.known import Known
from supervisor_d.runtime.lost import LostTree, Tree
from supervisor_d.runtime.records import Record
from supervisor_d.runtime.recovery import sources
from supervisor_d.runtime.shimlink import ShimLink
from supervisor_d.runtime.survivors import marks_of
from supervisor_d.shim import wire

RECONNECT_SECONDS = 0.05
RECONNECT_MAX_SECONDS = 2.0
_ENDINGS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
SILENCE_SECONDS = 1.0
"""After a main process's end: a shim tells it within milliseconds."""
REPLACE_SECONDS = 5.0
"""How long a shim in adopt mode may take to come up."""
SHORT_LIFE_SECONDS = 0.1
SHORT_LIVES_MAX = 10
"""So many shims in a row that lived so shortly: something kills them, and no other is made."""


@dataclass(frozen=True, slots=True)
class Ties:
    """What a tracked process needs of its host."""

    loop: asyncio.AbstractEventLoop
    emit: Callable[[Event], None]
    told: Callable[[str, str], None]
    answered: Callable[[str], None]
    """The zygote's work for that process is done."""
    unanswered: Callable[[str], None]
    """The zygote died before it made that shim."""
    keep: Callable[[str, socket.socket, int], None]
    """Ask for a shim in adopt mode, with its end of the link and the main process's pidfd.  Raises OSError."""


class Tracked:
    """Follows one process from its request, or its adoption, to its empty tree."""

    def __init__(self, ties: Ties, record: Record, spec: wire.Spec, known: Known) -> None:
        self.record = record
        self.known = known
        self._ties = ties
        self._spec = spec
        self._link: ShimLink | None = None
        self._shim: int | None = None
        self._main: int | None = None
        self._lost: LostTree | None = None
        self._gated = True
        self._kill_wanted = False
        self._signal_wanted: signal.Signals | None = None
        self._reconnect_seconds = RECONNECT_SECONDS
        self._replacing: asyncio.TimerHandle | None = None
        self._silence: asyncio.TimerHandle | None = None
        self._replaced_at = 0.0
        self._short_lived = 0
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None

    # -- from the host

    def await_shim(self, connection: socket.socket) -> None:
        """The zygote was asked for a shim, whose first link, and gate, is `connection`."""
        self._use(connection)

    def take_over(self) -> None:
        """Follow a process of a former daemon, from what its record tells."""
        self._gated = False
        if self.known.over:
            self._watch_shim()
            if self.known.failure:
                self._timer = self._ties.loop.call_soon(self._ties.emit, self.known.failure)
        elif self._watch_shim():
            self._open_main()
            if self.known.keepers and self.known.main:
                self._follow_lost(self.known.main)
            self._connect()
        else:
            self._timer = self._ties.loop.call_soon(self._shim_is_gone)

    def signal(self, number: signal.Signals) -> None:
        """Signal the main process; one that is still before its exec gets it then."""
        if self.known.exit or self.known.over:
            return
        if self.known.started:
            if self._main is not None:
                pidfd.send(self._main, number)
                if number in _ENDINGS:
                    pidfd.send(self._main, signal.SIGCONT)  # one that was stopped can't even hear it
        else:
            self._signal_wanted = number

    def kill(self) -> None:
        """SIGKILL to the whole tree; one whose gate is shut never starts."""
        if self.known.over:
            return
        self._kill_wanted = True
        if self._lost:
            self._lost.kill()
        elif self._gated:
            self.give_up("it was killed before it was started")
        elif self._link:
            if self._shim is not None:
                pidfd.send(self._shim, signal.SIGCONT)  # somebody may have stopped it
            self._link.ask("kill")

    def tell(self, text: str) -> None:
        """Pass a datagram on to the agent; lost where there is none, or nobody to carry it."""
        if self._link and self.known.started and not self.known.over:
            self._link.tell(text)

    def release(self) -> None:
        """Nothing is left and everything is known: let the shim end, and forget."""
        if self._link:
            self._link.ask("release")
        elif self._shim is not None:
            pidfd.send(self._shim, signal.SIGKILL)  # it has nothing left to do, and nobody to tell
        if self._shim is None:
            cgroups.remove(self._spec["cgroup"])  # else its shim does, and off the loop
        self.close()
        self.record.remove()

    def close(self) -> None:
        """Follow no more; the process goes on."""
        for timer in (self._timer, self._replacing, self._silence):
            if timer:
                timer.cancel()
        if self._link:
            self._link.close()
            self._link = None
        if self._lost:
            self._lost.close()
            self._lost = None
        if self._shim is not None:
            self._ties.loop.remove_reader(self._shim)
            os.close(self._shim)
            self._shim = None
        if self._main is not None:
            self._ties.loop.remove_reader(self._main)
            os.close(self._main)
            self._main = None

    @property
    def log_directory(self) -> str:
        """Where its output goes."""
        return self._spec["log_directory"]

    @property
    def listeners(self) -> int:
        """How many listening sockets it was given."""
        return self._spec["listeners"]

    def sources(self) -> Iterator[list[int]]:
        """The listening sockets of whoever holds them for this process (runtime/recovery.py)."""
        return sources(self.record, self.known)

    # -- link

    def _use(self, connection: socket.socket) -> None:
        if self._link:
            self._link.close()  # of a shim that died, whose end has not been read yet: it must not pass for this one's
        self._link = ShimLink(self._ties.loop, connection, self._received, self._link_ended)

    def _connect(self) -> None:
        try:
            self._use(shimlink.connect(self.record))
        except OSError:
            self._timer = self._ties.loop.call_later(self._reconnect_seconds, self._connect)
            self._reconnect_seconds = min(2 * self._reconnect_seconds, RECONNECT_MAX_SECONDS)
            return
        self._reconnect_seconds = RECONNECT_SECONDS
        if self._kill_wanted and self._link:
            self._link.ask("kill")

    def _link_ended(self) -> None:
        self._link = None
        if self._replacing:
            self._end_replacing()
            self._shim_is_gone()  # as any other, and so counted
        elif self._gated:
            if self.known.shim is None:
                self._ties.unanswered(self.record.process_id)
            else:
                self.give_up("its shim died")
        elif self._shim is not None and not self.known.over:
            self._timer = self._ties.loop.call_later(self._reconnect_seconds, self._connect)

    def _received(self, fact: wire.Message) -> None:
        if fact.get("event") == "told":
            self._ties.told(self.record.process_id, str(fact.get("text", "")))
            return
        try:
            event = self.known.fold(fact)
        except ValueError:
            return
        match fact.get("event"):
            case "began" if self._gated:
                self._open_gate()
            case "failed" if self._gated:
                self._gated = False
                self._ties.answered(self.record.process_id)
            case "started" if event:
                self._open_main()
            case "replaced" if event and self._replacing:
                self._replaced()
        if event:
            self._ties.emit(event)
        self._deliver()

    # -- start

    def _open_gate(self) -> None:
        self._ties.answered(self.record.process_id)
        if not self._watch_shim():
            self.give_up("its shim died")
            return
        self._gated = False
        crash.point("spawn-before-gate")
        if self._link:
            self._link.ask("go")
        crash.point("spawn-after-gate")

    def give_up(self, reason: str) -> None:
        """The gate stays shut: its end of file ends the shim, if there is one, and nothing was started."""
        self._gated = False
        self._ties.answered(self.record.process_id)
        if self._link:
            self._link.close()
            self._link = None
        if not self.known.over:
            self._ties.loop.call_soon(self._ties.emit, self.known.spawn_failed(reason))

    def _watch_shim(self) -> bool:
        """Whether the shim that is known lives; it is watched from now on."""
        if self.known.shim is None:
            return False
        self._shim = pidfd.open_pidfd(self.known.shim)
        if self._shim is None:
            return False
        self._ties.loop.add_reader(self._shim, self._shim_ended)
        return True

    def _open_main(self) -> None:
        if self._main is None and self.known.started and self.known.main:
            self._main = pidfd.open_pidfd(self.known.main)
            if self._main is not None and not self.known.exit:
                self._ties.loop.add_reader(self._main, self._main_ended, self._main)

    def _main_ended(self, main: int) -> None:
        """The shim tells how, at once; one that does not was stopped by somebody, and goes on by this."""
        self._ties.loop.remove_reader(main)
        self._silence = self._ties.loop.call_later(SILENCE_SECONDS, self._wake_shim)

    def _wake_shim(self) -> None:
        if self.known.exit is None and self._shim is not None:
            pidfd.send(self._shim, signal.SIGCONT)

    def _deliver(self) -> None:
        """What was wanted before it could be done."""
        if self._signal_wanted and self.known.started:
            wanted, self._signal_wanted = self._signal_wanted, None
            self.signal(wanted)

    # -- the shim's death

    def _shim_ended(self) -> None:
        if self._link:
            self._link.drain()
        if self._shim is not None:
            self._ties.loop.remove_reader(self._shim)
            os.close(self._shim)
            self._shim = None
        if self._link:
            self._link.close()
            self._link = None
        if self._timer:
            self._timer.cancel()
        self._shim_is_gone()

    def _shim_is_gone(self) -> None:
        """Nobody will tell more than the record does; for a program that runs on, another shim takes its place."""
        if self._lost:
            self._lost.close()
            self._lost = None
        for fact in self.record.events():
            self._received(fact)
        if self.known.over:
            return
        if self.known.main and self.known.keepers and self._watch_shim():
            self._follow_lost(self.known.main)  # one that had put itself on record before its link broke
            self._connect()
            return
        if self.known.main is None or not self.known.opened:
            self.give_up("its shim died")
            return
        if not self.known.started:
            # Or it died before its exec: nobody can tell, and its exit comes at once.
            self._ties.emit(self.known.spawned())
        if not self._replace():
            self._lose(self.known.main)

    def _replace(self) -> bool:
        """Ask for a shim in adopt mode, for a program that runs on; False where there is no point in it."""
        self._open_main()
        if self._main is None or self.known.exit or self._kill_wanted or self._is_killed_again_and_again():
            return False
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._ties.keep(self.record.process_id, theirs, self._main)
        except OSError:
            ours.close()
            return False
        self._replacing = self._ties.loop.call_later(REPLACE_SECONDS, self._not_replaced)
        self._use(ours)
        return True

    def _is_killed_again_and_again(self) -> bool:
        now = self._ties.loop.time()
        self._short_lived = self._short_lived + 1 if now - self._replaced_at < SHORT_LIFE_SECONDS else 0
        self._replaced_at = now
        return self._short_lived >= SHORT_LIVES_MAX

    def _replaced(self) -> None:
        """Log, sockets and exit are kept again; the tree is ours to watch."""
        self._end_replacing()
        if not self._watch_shim():
            self._timer = self._ties.loop.call_soon(self._shim_is_gone)
        elif self.known.main:
            self._follow_lost(self.known.main)

    def _not_replaced(self) -> None:
        """No shim came up: this process is lost to its keeper, and the plan replaces it."""
        self._end_replacing()
        if self._link:
            self._link.ask("release")  # read by one that comes after all, and would keep what nobody knows of
        if self._link:
            self._link.close()
            self._link = None
        if self.known.main and not self.known.over:
            self._lose(self.known.main)

    def _end_replacing(self) -> None:
        if self._replacing:
            self._replacing.cancel()
            self._replacing = None

    def _lose(self, main: wire.Identity) -> None:
        self._ties.emit(ShimLost(self.record.process_id))
        self._follow_lost(main)

    def _follow_lost(self, main: wire.Identity) -> None:
        self._open_main()
        tree = Tree(
            main=self._main,
            marks=marks_of(main.pid, main.starttime, str(self.record.path / wire.FIFO)),
            cgroup=self._spec["cgroup"] if self.known.in_cgroup else "",
            grace_seconds=self._spec["orphan_grace_seconds"],
        )
        self._lost = LostTree(
            self._ties.loop,
            tree,
            exit_known=self.known.exit is not None,
            exited=self._exited_unseen,
            emptied=self._emptied_unseen,
        )
        if self._kill_wanted:
            self._lost.kill()

    def _exited_unseen(self, how: Exit) -> None:
        if self.known.exit is None:  # a shim in adopt mode may have told it already
            self._ties.emit(self.known.exited(how))

    def _emptied_unseen(self, killed: int) -> None:
        self._lost = None
        self._ties.emit(self.known.tree_emptied(killed, proven=bool(self._spec["cgroup"] and self.known.in_cgroup)))
