"""Listening sockets in an fd store: they outlive daemon, shims and workers, all of them at once.

After each change of the listeners the store is brought to what they are.  systemd keeps them where it runs the daemon:
the next one finds the sockets among $LISTEN_FDS, by the names of runtime/inherited.py; where it keeps none
(FileDescriptorStoreMax=0) the messages fall on deaf ears, and the sockets come back from whoever holds them.  Elsewhere
a process of ours keeps them (runtime/socket_store.py).

At a clean end TCP sockets stay in the store: `systemctl stop` empties it anyway, and over a `systemctl restart`
connections wait in the sockets' queues instead of being refused.  A unix socket's file goes, and its socket with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from supervisor_d.runtime.inherited import fd_name
from supervisor_d.runtime.listeners import Held


class DescriptorKeeper(Protocol):
    """Who keeps descriptors by name: systemd's manager, or a store of ours."""

    @property
    def address(self) -> str:
        """Empty where there is none."""
        ...

    def store(self, name: str, fd: int) -> bool:
        """Keep one; False when that cannot be."""
        ...

    def unstore(self, name: str) -> bool:
        """Keep it no more."""
        ...


class FdStore:
    """What is kept for us, as far as we know."""

    def __init__(self, keeper: DescriptorKeeper, stored: frozenset[str]) -> None:
        self._keeper = keeper
        self.stored = stored

    def bring_to(self, sockets: Iterable[Held]) -> None:
        """Store what is not there yet, give up what is there and no more wanted; a socket unit's are its own."""
        if not self._keeper.address:
            return
        wanted = {fd_name(held.pool, held.fd): held.fd for held in sockets if not held.foreign}
        for name in sorted(self.stored - wanted.keys()):
            self._keeper.unstore(name)
        kept = {name for name, fd in wanted.items() if name in self.stored or self._keeper.store(name, fd)}
        self.stored = frozenset(kept)

    def end(self, sockets: Iterable[Held]) -> None:
        """A clean end: only TCP sockets stay."""
        self.bring_to(held for held in sockets if not held.path)
