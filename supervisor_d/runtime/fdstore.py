"""Listening sockets in systemd's fd store: they outlive daemon, shims and workers, all of them at once.

After each change of the listeners the store is brought to what they are; the next daemon finds the sockets among
$LISTEN_FDS, by the names of runtime/inherited.py.  Where there is no store (no systemd, or FileDescriptorStoreMax=0)
the messages fall on deaf ears, and the sockets come back from whoever holds them.

At a clean end TCP sockets stay in the store: `systemctl stop` empties it anyway, and over a `systemctl restart`
connections wait in the sockets' queues instead of being refused.  A unix socket's file goes, and its socket with it.
"""

from __future__ import annotations

from collections.abc import Iterable

from supervisor_d.runtime.inherited import fd_name
from supervisor_d.runtime.listeners import Held
from supervisor_d.runtime.systemd import Notifier


class FdStore:
    """What the manager keeps for us, as far as we know."""

    def __init__(self, notifier: Notifier, stored: frozenset[str]) -> None:
        self._notifier = notifier
        self.stored = stored

    def bring_to(self, sockets: Iterable[Held]) -> None:
        """Store what is not there yet, give up what is there and no more wanted; a socket unit's are its own."""
        if not self._notifier.address:
            return
        wanted = {fd_name(held.pool, held.fd): held.fd for held in sockets if not held.foreign}
        for name in sorted(self.stored - wanted.keys()):
            self._notifier.unstore(name)
        kept = {name for name, fd in wanted.items() if name in self.stored or self._notifier.store(name, fd)}
        self.stored = frozenset(kept)

    def end(self, sockets: Iterable[Held]) -> None:
        """A clean end: only TCP sockets stay."""
        self.bring_to(held for held in sockets if not held.path)
