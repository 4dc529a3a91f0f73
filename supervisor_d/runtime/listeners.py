"""The listening sockets: bound by the daemon, inherited by every generation, closed by nobody while a pool has them.

Theory of operation.  A reload has two halves.  `prepare` binds what the new config needs beside what is there, and
raises for whatever the machine refuses: nothing has changed then.  `commit` makes the prepared sockets the pools' own,
and closes those of pools that are gone.  Sockets are known by their address, so that one stays open, with all the
connections in its queue, when its pool is renamed; only a port of 0 belongs to a place in a pool.

Where a pool changed its address, both sockets stay until `settle`: the old generation serves on the former one until
the rollout is over, and is respawned on it if it dies, and a rollback goes back to it.

    web: bind 127.0.0.1:8000 -> :9000      prepare  binds :9000
                                           commit   fds_of(old spec) is 8000's, fds_of(new spec) is 9000's
                                           settle   (new spec) closes 8000, or (old spec, rolled back) closes 9000

Adoption has one step, `revive`, after what former daemons held was offered.  A socket that came back from nobody is
bound anew; one that cannot be bound yet (a process that nobody may look into still holds it, and serves on it) is tried
again whenever it is needed, by `fds_of`.

SO_REUSEADDR, so that connections of a former run in TIME_WAIT hinder nobody; never SO_REUSEPORT, whose closing sockets
reset the connections in their queues.  All sockets are close-on-exec; a shim gets its own by SCM_RIGHTS.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from supervisor_d.core.spec import Listener, PoolSpec
from supervisor_d.errors import PrepareError
from supervisor_d.programs.addresses import parse_address
from supervisor_d.runtime.backlog import waiting_connections
from supervisor_d.runtime.binding import Bound, bind, listens_as

Key = tuple[str, str, int]
"""("", address, 0), or (pool, address, index) for a port that the kernel chooses."""


@dataclass(slots=True)
class Prepared:
    """What a config needs of sockets: all keys it wants, and the new sockets among them, not yet in use."""

    wanted: Mapping[str, tuple[Key, ...]]
    """By pool, in the order of its listeners."""
    fresh: dict[Key, Bound] = field(default_factory=dict)
    settings: Mapping[Key, Listener] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Held:
    """A socket in use; `pool` is "" for one that is known by its address, `path` for one that has no file."""

    fd: int
    pool: str
    foreign: bool
    path: str


class Listeners:
    """Owns the daemon's listening sockets.  `changed` is called whenever there are others than before."""

    def __init__(self, changed: Callable[[], None] = lambda: None) -> None:
        self._changed = changed
        self._bound: dict[Key, Bound] = {}
        self._wanted: Mapping[str, tuple[Key, ...]] = {}
        self._former: dict[str, set[Key]] = {}
        """By pool: what versions need that are not accepted any more, until its rollout is over."""
        self._offered: dict[Key, Bound] = {}

    def offer(self, spec: PoolSpec, fds: Iterable[int]) -> None:
        """Take over sockets of a former daemon (from a shim, or from systemd's fd store); the next `prepare` that
        wants them uses them.  Each goes to the first listener of the spec that it fits and that has none yet; what
        fits none is closed.
        """
        for fd in fds:
            if not self.take((spec,), fd):
                os.close(fd)

    def take(self, specs: Sequence[PoolSpec], fd: int, *, foreign: bool = False) -> bool:
        """Whether a socket fits a listener of a spec that has none yet; then it is taken over.

        The one at whose very address it listens comes before one with a port of 0, or a name, that it could be meant
        for: else it would serve another pool.  One that is `foreign` was bound by systemd: owner, mode and file are its
        socket unit's business.
        """
        vacancy = self._vacancy(specs, fd, exactly=True) or self._vacancy(specs, fd, exactly=False)
        if vacancy is None:
            return False
        self._offered[vacancy[0]] = Bound.adopt(fd, vacancy[1], foreign=foreign)
        return True

    def lacks(self, spec: PoolSpec) -> bool:
        """Whether a listener of the spec has no socket yet."""
        return any(key not in self._bound and key not in self._offered for key in _keys(spec))

    def revive(self, wanted: Mapping[str, PoolSpec], previous: Mapping[str, PoolSpec]) -> tuple[PrepareError, ...]:
        """Put to use what was offered, for the accepted specs and for those that a rollback would go back to; bind
        what is missing.  Returns what the machine refuses for now."""
        refused: list[PrepareError] = []
        for spec in (*wanted.values(), *previous.values()):
            for key, listener in zip(_keys(spec), spec.listeners, strict=True):
                if key in self._offered:
                    self._bound.setdefault(key, self._offered.pop(key))
                try:
                    self._bind_missing(key, listener)
                except PrepareError as error:
                    refused.append(self._explained(error, key))
        self._wanted = {spec.name: _keys(spec) for spec in wanted.values()}
        self._former = {spec.name: set(_keys(spec)) for spec in previous.values()}
        self._drop_offered()
        self._changed()
        return tuple(refused)

    def held(self) -> tuple[Held, ...]:
        """Every socket that is in use."""
        return tuple(Held(bound.fd, key[0], bound.foreign, bound.address.path) for key, bound in self._bound.items())

    def prepare(self, specs: Mapping[str, PoolSpec]) -> Prepared:
        """Bind what `specs` need and is not there yet; nothing that exists is changed.

        Raises PrepareError, every refused address in its text.
        """
        prepared = Prepared({spec.name: _keys(spec) for spec in specs.values()}, settings=_settings(specs))
        refused: list[PrepareError] = []
        for key, listener in prepared.settings.items():
            existing = self._bound.get(key) or self._offered.get(key)
            try:
                if existing is not None:
                    existing.check(listener)
                else:
                    prepared.fresh[key] = bind(listener)
            except PrepareError as error:
                refused.append(self._explained(error, key))
        if refused:
            self.abandon(prepared)
            raise _joined(refused)
        return prepared

    def commit(self, prepared: Prepared) -> None:
        """Put what was prepared to use; close what belongs to no pool any more."""
        self._bound |= prepared.fresh
        for key in prepared.settings:
            if key in self._offered:
                self._bound[key] = self._offered.pop(key)
        self._former = {
            name: self._former.get(name, set()) | set(keys)
            for name, keys in self._wanted.items()
            if name in prepared.wanted
        }
        self._wanted = prepared.wanted
        self._close_unneeded()
        self._drop_offered()
        for key, listener in prepared.settings.items():
            self._bound[key].change(listener)
        self._changed()

    def abandon(self, prepared: Prepared) -> None:
        """Close what was bound for a config that is not accepted."""
        for bound in prepared.fresh.values():
            bound.close(unlink=True)
        prepared.fresh.clear()

    def want(self, spec: PoolSpec) -> None:
        """Another version of a pool rules, and nobody prepared it: a rollback that goes with another pool's.  What it
        lacks is bound when it is needed (`fds_of`)."""
        former = self._wanted.get(spec.name, ())
        if former != (keys := _keys(spec)):
            self._former.setdefault(spec.name, set()).update(former)
            self._wanted = {**self._wanted, spec.name: keys}

    def settle(self, spec: PoolSpec) -> None:
        """A pool's rollout is over and this spec rules: close the sockets that only another version of it had."""
        self._wanted = {**self._wanted, spec.name: _keys(spec)}
        self._former.pop(spec.name, None)
        self._close_unneeded()
        self._changed()

    def fds(self, pool: str) -> tuple[int, ...]:
        """The descriptors of the pool's accepted listeners, in their order."""
        return tuple(self._bound[key].fd for key in self._wanted.get(pool, ()) if key in self._bound)

    def fds_of(self, spec: PoolSpec) -> tuple[int, ...]:
        """The descriptors for one version of a pool, the accepted or the former one, in the order of its listeners.

        Raises PrepareError for one that could not be bound at the adoption, and cannot be now.
        """
        if self.lacks(spec):
            for key, listener in zip(_keys(spec), spec.listeners, strict=True):
                self._bind_missing(key, listener)
            self._changed()
        return tuple(self._bound[key].fd for key in _keys(spec))

    def addresses(self, pool: str) -> tuple[str, ...]:
        """Where the pool listens, with the port that the kernel chose for a port of 0."""
        return self._addresses(self._wanted.get(pool, ()))

    def addresses_of(self, spec: PoolSpec) -> tuple[str, ...]:
        """The same of one version of a pool, the accepted or the former one."""
        return self._addresses(_keys(spec))

    def waiting(self, pool: str) -> int | None:
        """How many connections wait in the pool's listeners to be accepted; None where that is not known."""
        lengths = [waiting_connections(fd) for fd in self.fds(pool)]
        known = [length for length in lengths if length is not None]
        return sum(known) if known else None

    def listen_again(self, spec: PoolSpec) -> None:
        """Give the pool's queues their length back: whoever inherits a socket may call listen(2) with less, as
        gunicorn's asgi worker does with 100, and the last call counts for all.
        """
        for key, listener in zip(_keys(spec), spec.listeners, strict=True):
            if key in self._bound:
                self._bound[key].listen(listener.backlog)

    def close(self, *, unlink: bool) -> None:
        """Close everything: with `unlink` when all pools have ended, without it when their processes live on."""
        for bound in (*self._bound.values(), *self._offered.values()):
            bound.close(unlink=unlink)
        self._bound.clear()
        self._offered.clear()
        self._wanted = {}
        self._former = {}

    def _addresses(self, keys: tuple[Key, ...]) -> tuple[str, ...]:
        return tuple(str(self._bound[key].address) for key in keys if key in self._bound)

    def _bind_missing(self, key: Key, listener: Listener) -> None:
        if key not in self._bound:
            self._bound[key] = bind(listener)

    def _drop_offered(self) -> None:
        for offered in self._offered.values():
            offered.close(unlink=True)
        self._offered.clear()

    def _vacancy(self, specs: Sequence[PoolSpec], fd: int, *, exactly: bool) -> tuple[Key, Listener] | None:
        for spec in specs:
            for key, listener in zip(_keys(spec), spec.listeners, strict=True):
                vacant = key not in self._bound and key not in self._offered
                if vacant and listens_as(fd, listener, exactly=exactly):
                    return key, listener
        return None

    def _explained(self, error: PrepareError, key: Key) -> PrepareError:
        """The error, with the way out where a socket of our own stands in the way (0.0.0.0 and 127.0.0.1)."""
        port = parse_address(key[1]).port
        ours = [bound.address for bound in self._bound.values() if port and bound.address.port == port]
        if not ours:
            return error
        return PrepareError(
            error.message,
            hint=f"this daemon itself listens on {ours[0]}: use another port, or stop the daemon and start it again",
        )

    def _close_unneeded(self) -> None:
        needed = {key for keys in (*self._wanted.values(), *self._former.values()) for key in keys}
        for key in [key for key in self._bound if key not in needed]:
            self._bound.pop(key).close(unlink=True)


def _keys(spec: PoolSpec) -> tuple[Key, ...]:
    return tuple(_key(spec.name, index, listener) for index, listener in enumerate(spec.listeners))


def _key(pool: str, index: int, listener: Listener) -> Key:
    address = parse_address(listener.address)
    floating = not address.path and address.port == 0
    return (pool, str(address), index) if floating else ("", str(address), 0)


def _settings(specs: Mapping[str, PoolSpec]) -> dict[Key, Listener]:
    """Every listener by its key.  Raises PrepareError when two places want one address."""
    found: dict[Key, tuple[str, Listener]] = {}
    for spec in specs.values():
        for key, listener in zip(_keys(spec), spec.listeners, strict=True):
            if key in found:
                raise PrepareError(
                    f"cannot listen on {listener.address} for pool {spec.name}: pool {found[key][0]} listens there",
                    hint="give each pool an address of its own",
                )
            found[key] = (spec.name, listener)
    return {key: listener for key, (_, listener) in found.items()}


def _joined(refused: list[PrepareError]) -> PrepareError:
    if len(refused) == 1:
        return refused[0]
    hints = dict.fromkeys(error.hint for error in refused if error.hint)
    return PrepareError("\n".join(error.message for error in refused), hint="; ".join(hints))
