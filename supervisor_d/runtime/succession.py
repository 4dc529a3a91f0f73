"""Daemons follow one another: what the one before left for this one, and what this one leaves for the next.

The means are in inherited.py (what came along), upgrade.py (proof and execve), fdstore.py (systemd) and socket_store.py
(where there is no systemd); here they meet the parts of one daemon.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from supervisor_d import __version__
from supervisor_d.core.journal import Note
from supervisor_d.core.spec import PoolSpec
from supervisor_d.errors import NotPermittedError
from supervisor_d.run_options import RunOptions
from supervisor_d.runtime import upgrade
from supervisor_d.runtime.fdstore import FdStore
from supervisor_d.runtime.inherited import Inherited, Socket
from supervisor_d.runtime.journal import Journal
from supervisor_d.runtime.listeners import Listeners
from supervisor_d.runtime.places import Lock, Places
from supervisor_d.runtime.socket_store import SocketStore
from supervisor_d.runtime.systemd import Notifier


class Succession:
    """One daemon between its predecessor and its successor."""

    def __init__(
        self,
        inherited: Inherited,
        *,
        places: Places,
        config_path: str,
        options: RunOptions,
        notifier: Notifier,
        environ: Mapping[str, str],
    ) -> None:
        """`environ` is what was taken out of the environment and the next daemon must find there again."""
        self._inherited = inherited
        self._places = places
        self._config_path = config_path
        self._options = options
        self._environ = {**environ, **notifier.environ}
        self._notifier = notifier
        self._beside = SocketStore(places.runtime_dir, self._store_lost)
        self._store = FdStore(notifier if notifier.address else self._beside, inherited.stored)
        self._proven: tuple[str, upgrade.Proof] | None = None
        self._proving = False
        self._journal: Journal | None = None
        self.lock = Lock(places.runtime_dir, inherited.lock)
        self.listeners = Listeners(self._listeners_changed)

    # the one before

    def offer(self, specs: Sequence[PoolSpec]) -> None:
        """Give the listeners what came along, or was kept beside the one before; what none of these versions of pools
        wants is closed."""
        for each in (*self._inherited.sockets, *self._kept_beside()):
            named = [spec for spec in specs if spec.name == each.pool]
            if not self.listeners.take(named or specs, each.fd, foreign=each.foreign):
                os.close(each.fd)

    def _kept_beside(self) -> tuple[Socket, ...]:
        found = self._beside.find()
        if self._notifier.address:
            self._beside.end()  # of a daemon that systemd had not started
        elif self._beside.address:
            self._store.stored = frozenset(found)
        came = {os.fstat(each.fd).st_ino for each in self._inherited.sockets}
        known = [each for each in found.values() if os.fstat(each.fd).st_ino in came]
        for each in known:
            os.close(each.fd)
        return tuple(each for each in found.values() if each not in known)

    def tell(self, journal: Journal) -> None:
        """What became of the upgrade by which this daemon came, if it did."""
        before = self._inherited.predecessor
        if before is None:
            return
        seconds = time.monotonic() - before.began_at
        if before.failed:
            self._note(journal, "upgrade-failed", f"{before.failed}; supervisor-d {__version__} rules again")
        else:
            text = f"from {before.version} to {__version__} in {seconds * 1000:.0f} ms, pid {os.getpid()} as before"
            self._note(journal, "upgraded", text)

    def go_back(self, reason: str) -> None:
        """This daemon cannot start: let the one before rule again, if this one came by an upgrade."""
        go_back(self._inherited, reason, (*self._held(), *self._inherited.sockets), self._environ)

    # the one after

    async def prove(self, python: str) -> upgrade.Proof:
        """Let the code of an interpreter ("" for this one) prove itself.  Raises PrepareError, NotPermittedError."""
        if self._proving:
            raise NotPermittedError("cannot upgrade: another upgrade is under way")
        self._proving = True
        try:
            proof = await upgrade.prove(python or sys.executable, self._places, self._config_path)
        finally:
            self._proving = False
        self._proven = (python or sys.executable, proof)
        return proof

    async def hand_over(self, journal: Journal, stopping: Callable[[], str]) -> None:
        """Become what was proven.  Returns only when the daemon is asked to end before, or the kernel refuses: that is
        told, and this daemon goes on."""
        if self._proven is None:
            return
        with upgrade.signals_held():
            await upgrade.signals_heard()
            if why := stopping():
                self._proven = None
                self._note(journal, "upgrade-failed", f"the daemon is stopping ({why})")
            else:
                self._hand_over(journal)

    def _hand_over(self, journal: Journal) -> None:
        assert self._proven is not None  # noqa: S101  who calls has seen to it
        (python, proof), self._proven = self._proven, None
        self._note(journal, "hand-over", f"to supervisor-d {proof.version} ({python})")
        journal.flush()
        self._notifier.send("WATCHDOG=1")
        estate = upgrade.Estate(
            __version__, self._argv(sys.executable), self.lock.fd, self._held(), self._store.stored, self._environ
        )
        try:
            upgrade.hand_over(self._argv(python), estate)
        except OSError as error:
            reason = f"{python} cannot be executed: {error.strerror}; supervisor-d {__version__} goes on"
            self._note(journal, "upgrade-failed", reason)

    def keep_sockets(self, begin: Callable[[socket.socket], None], journal: Journal) -> None:
        """From now on the listeners are kept beside this daemon, where systemd does not keep them; `begin` asks for the
        process that does."""
        if not self._notifier.address:
            self._journal = journal
            self._beside.begin_with(begin)
            self._listeners_changed()

    def end(self) -> None:
        """Everything has stopped."""
        self._beside.end()
        self._store.end(self.listeners.held())

    def _listeners_changed(self) -> None:
        held = self.listeners.held()
        if held and self._beside.ensure():
            self._store.stored = frozenset()
        self._store.bring_to(held)

    def _store_lost(self, why: str) -> None:
        """Nothing is kept beside us any more: another store is to be had, as long as there is something to keep."""
        self._store.stored = frozenset()
        if why and self._journal:
            self._note(self._journal, "socket-store-replaced", f"the process that keeps listening sockets: {why}")
        self._listeners_changed()

    def _argv(self, python: str) -> tuple[str, ...]:
        options = self._options
        flags = ["--logs" if options.show_logs else "--no-logs", "--log-format", options.log_format]
        return upgrade.run_argv(python, self._config_path, (*flags, *(() if options.colour else ("--no-color",))))

    def _held(self) -> tuple[Socket, ...]:
        return tuple(Socket(held.fd, held.pool, held.foreign) for held in self.listeners.held())

    def _note(self, journal: Journal, name: str, reason: str) -> None:
        journal.record(Note("daemon", name, "", "daemon", reason))


def go_back(
    inherited: Inherited, reason: str, sockets: tuple[Socket, ...] = (), environ: Mapping[str, str] | None = None
) -> None:
    """Become the daemon before this one again, if this one came by an upgrade.  Returns when that cannot be."""
    if inherited.predecessor is None or inherited.lock is None:
        return
    given = {each.fd: each for each in sockets or inherited.sockets}
    estate = upgrade.Estate(__version__, (), inherited.lock, tuple(given.values()), inherited.stored, environ or {})
    upgrade.go_back(inherited.predecessor, estate, reason)
