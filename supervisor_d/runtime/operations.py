"""What operators can ask for: each is a change of the intent, told in the journal with who asked, and awaited.

A reload is atomic: the file is read and checked whole, sockets are bound beside the old ones, the new intent is written
down, and only then does anything change.  A failure at any step leaves every process, socket and decision as it was.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from supervisor_d.core import events as ev
from supervisor_d.core import intent as intents
from supervisor_d.core.change import PoolChange
from supervisor_d.core.intent import Intent, PoolIntent
from supervisor_d.core.journal import Note
from supervisor_d.core.outcome import Outcome
from supervisor_d.core.spec import PoolSpec
from supervisor_d.errors import NotPermittedError, PrepareError, SupervisorError, UnknownNameError
from supervisor_d.programs.registry import PROGRAMS
from supervisor_d.runtime import crash
from supervisor_d.runtime.code_changed import code_changed
from supervisor_d.runtime.deploying import members_of_deploy, refuse_rollback
from supervisor_d.runtime.listeners import Listeners, Prepared
from supervisor_d.runtime.outcomes import Goal, await_outcome
from supervisor_d.runtime.supervisor import Supervisor

MAX_WORKERS = 10_000


class LoadedConfig(Protocol):
    """What operations need of a loaded config."""

    @property
    def pools(self) -> Mapping[str, PoolSpec]: ...

    @property
    def starts_at_once(self) -> int: ...


Load = Callable[[], Awaitable[LoadedConfig]]
ShortOfMemory = Callable[[Mapping[str, PoolIntent]], Awaitable[Mapping[str, str]]]
"""Why there is no memory for two generations at once, of those among these pools of which that is so."""
Compare = Callable[[Mapping[str, PoolSpec], Mapping[str, PoolSpec]], tuple[PoolChange, ...]]


async def _never_short(_: Mapping[str, PoolIntent]) -> Mapping[str, str]:
    return {}


class Operations:
    """Carries out requests one at a time where they could meet (reload), and waits for what becomes of them."""

    def __init__(
        self,
        supervisor: Supervisor,
        listeners: Listeners,
        load: Load,
        compare: Compare,
        accepted: Callable[[LoadedConfig], None] = lambda _: None,
        short_of_memory: ShortOfMemory = _never_short,
    ) -> None:
        """`accepted` is told of each config that a reload made the one that rules."""
        self._supervisor = supervisor
        self._listeners = listeners
        self._load = load
        self._compare = compare
        self._accepted = accepted
        self._short_of_memory = short_of_memory
        self._reloading = asyncio.Lock()

    async def diff(self) -> Outcome:
        """What a reload would do now.  Raises ConfigError when the file is wrong."""
        loaded = await self._load()
        return Outcome(ok=True, message="nothing was changed", changes=self._changes(loaded))

    async def reload(self, who: str, wait_seconds: float) -> Outcome:
        """Apply the config file.  Raises ConfigError, PrepareError; nothing has changed then."""
        async with self._reloading:
            self._refuse_while_stopping()
            loaded = await self._load()
            changes, now = self._changes(loaded), self._supervisor.host.now()
            self._take(loaded, await self._with_memory(lambda: self._accept(loaded, changes, now), now))
            touched = self._touched(changes)
            self._note("reload", "", who, ", ".join(f"{c.change} {c.pool}" for c in touched) or "nothing changed")
        goals = self._goals(touched)
        return await await_outcome(self._supervisor, goals, wait_seconds, changes=changes, message="reloaded")

    async def deploy(self, who: str, pools: tuple[str, ...], label: str, wait_seconds: float) -> Outcome:
        """Apply the config file and roll these pools, and all that it changes, as one (core.intent.deploy).

        Raises ConfigError, PrepareError, UnknownNameError; nothing has changed then.
        """
        async with self._reloading:
            self._refuse_while_stopping()
            label = label or time.strftime("%Y-%m-%dT%H:%M:%S")
            loaded = await self._load()
            changes, now = self._changes(loaded), self._supervisor.host.now()
            members, once = members_of_deploy(self._accept(loaded, changes, now), pools)

            def begun() -> Intent:
                return intents.deploy(self._accept(loaded, changes, now), members, once, label, now)

            self._take(loaded, await self._with_memory(begun, now))
            touched = self._touched(changes)
            self._clear_failures(members)
            self._note("deploy", "", who, f"{label}: {', '.join(members)}")
        goals = dict([*self._goals(touched), *((name, "running") for name in members)])
        message = f"deployed {label}"
        return await await_outcome(self._supervisor, goals.items(), wait_seconds, changes=changes, message=message)

    async def rollback(self, who: str, pools: tuple[str, ...], wait_seconds: float) -> Outcome:
        """Go back to what ruled before the last rollout that succeeded; give up one that is under way."""
        names = refuse_rollback(self._supervisor.intent, self._known(pools), everything=not pools)
        before, now = self._supervisor.intent.pools, self._supervisor.host.now()
        given_up = [name for name in names if before[name].previous is not None]
        reason = f"rollback by {who}"
        intent = await self._with_memory(lambda: intents.rollback(self._supervisor.intent, names, now, reason), now)
        prepared = self._listeners.prepare({name: pool.wanted.spec for name, pool in intent.pools.items()})
        self._change_with(intent, prepared)
        self._clear_failures(names)
        for name in names:
            self._note("rollback", name, who, "asked to roll back")
        goals: list[tuple[str, Goal]] = [(name, "back" if name in given_up else "running") for name in names]
        return await await_outcome(self._supervisor, goals, wait_seconds, message="rolled back")

    def _accept(self, loaded: LoadedConfig, changes: tuple[PoolChange, ...], now: float) -> Intent:
        why = _why(changes, "its config changed")
        accepted = intents.accept(self._supervisor.intent, loaded.pools, now, reason=why)
        return intents.with_starts_at_once(accepted, loaded.starts_at_once)

    async def _with_memory(self, make: Callable[[], Intent], now: float) -> Intent:
        """What `make` makes, with the reasons why some of the rollouts that begin now must go one by one.

        It is made anew once the reasons are known: others may have decided something meanwhile.
        """
        pools = make().pools.items()
        rolling = {n: p for n, p in pools if p.previous is not None and p.rollout and p.rollout.began_at == now}
        short = await self._short_of_memory(rolling)
        return intents.short_of_memory(make(), short, now)

    def _take(self, loaded: LoadedConfig, intent: Intent) -> None:
        """Make a config rule, under that intent: its sockets are bound before, and closed again when it cannot."""
        prepared = self._listeners.prepare(loaded.pools)
        crash.point("reload-before-intent")
        self._change_with(intent, prepared)
        self._accepted(loaded)

    def _change_with(self, intent: Intent, prepared: Prepared) -> None:
        try:
            self._change(intent)
        except SupervisorError:
            self._listeners.abandon(prepared)
            raise
        crash.point("reload-after-intent")
        self._listeners.commit(prepared)

    def _touched(self, changes: tuple[PoolChange, ...]) -> tuple[PoolChange, ...]:
        """What a config changed; those pools get a fresh try."""
        touched = tuple(change for change in changes if change.change != "keep")
        self._clear_failures(tuple(change.pool for change in touched if change.change != "add"))
        return touched

    def _goals(self, touched: tuple[PoolChange, ...]) -> list[tuple[str, Goal]]:
        running = self._supervisor.desired.pools
        goals: list[tuple[str, Goal]] = [
            (change.pool, self._runs(change.pool))
            for change in touched
            if change.change != "update" and running[change.pool].running
        ]
        return [*goals, *((change.pool, "stopped") for change in touched if change.change == "remove")]

    async def scale(self, who: str, pool: str, workers: int | None, wait_seconds: float) -> Outcome:
        """Want another number of workers of a pool; None: as configured."""
        self._known((pool,))
        spec = self._supervisor.intent.pools[pool].wanted.spec
        traits = PROGRAMS[spec.program].traits
        if traits.exclusive or traits.oneshot:
            raise NotPermittedError(f"cannot scale {pool}: there is at most one {spec.program} process, ever")
        if workers is not None and not 0 <= workers <= MAX_WORKERS:
            raise NotPermittedError(f"cannot scale {pool} to {workers}: 0 to {MAX_WORKERS} workers can be wanted")
        changed = await code_changed(self._supervisor, spec, spec.workers if workers is None else workers)
        self._known((pool,))  # it may have been removed meanwhile
        if changed:
            return await self._roll_then_scale(who, pool, workers, changed, wait_seconds)
        self._scale(who, pool, workers)
        wanted = self._supervisor.intent.pools[pool].wanted_workers
        goals = [(pool, self._runs(pool))]
        message = f"{pool} wants {wanted} workers"
        return await await_outcome(self._supervisor, goals, wait_seconds, message=message)

    def _runs(self, pool: str) -> Goal:
        """To run, for what began no rollout itself: one that was rolled back before is no part of it."""
        return "running" if self._supervisor.intent.pools[pool].previous is not None else "back"

    def _scale(self, who: str, pool: str, workers: int | None) -> None:
        crash.point("scale-before-intent")
        self._change(intents.scale(self._supervisor.intent, pool, workers))
        crash.point("scale-after-intent")
        wanted = self._supervisor.intent.pools[pool].wanted_workers
        self._note("scale", pool, who, f"to {wanted} workers{' as configured' if workers is None else ''}")

    async def _roll_then_scale(
        self, who: str, pool: str, workers: int | None, changed: str, wait_seconds: float
    ) -> Outcome:
        """New workers would run other code than those that are there, or none at all: a rollout tries that first."""
        message = f"{changed}: rolled, not scaled"
        now = self._supervisor.host.now()

        def begun() -> Intent:
            self._known((pool,))  # it may have been removed meanwhile
            return intents.scale_once_rolled(self._supervisor.intent, pool, workers, now, changed)

        intent = await self._with_memory(begun, now)
        self._clear_failures((pool,))
        self._change(intent)
        then = "as configured" if workers is None else f"to {workers} workers"
        self._note("scale", pool, who, f"{message}; then {then}")
        return await self._awaited((pool,), "running", wait_seconds, message)

    async def start(self, who: str, pools: tuple[str, ...], wait_seconds: float) -> Outcome:
        """Start stopped pools, and give failed ones a fresh try."""
        names = self._known(pools)
        self._clear_failures(names)
        self._change(intents.start(self._supervisor.intent, names))
        for name in names:
            self._note("start", name, who, "asked to start")
        goals = [(name, self._runs(name)) for name in names]
        return await await_outcome(self._supervisor, goals, wait_seconds, message="started")

    async def stop(self, who: str, pools: tuple[str, ...], wait_seconds: float) -> Outcome:
        """Stop pools until they are started again."""
        names = self._known(pools)
        self._change(intents.stop(self._supervisor.intent, names, f"stopped by {who}"))
        for name in names:
            self._note("stop", name, who, "asked to stop")
        return await self._awaited(names, "stopped", wait_seconds, "stopped")

    async def restart(self, who: str, pools: tuple[str, ...], wait_seconds: float) -> Outcome:
        """Replace the pools' processes by a rollout of the same spec; stopped pools are started."""
        names = self._known(pools)
        self._clear_failures(names)
        now, reason = self._supervisor.host.now(), f"restart by {who}"
        intent = await self._with_memory(lambda: intents.restart(self._supervisor.intent, names, now, reason), now)
        self._change(intents.start(intent, names))
        for name in names:
            self._note("restart", name, who, "asked to restart")
        return await self._awaited(names, "running", wait_seconds, "restarted")

    def shut_down(self, reason: str) -> None:
        """Stop everything, in reverse order of dependencies.  Not written down: whoever starts the daemon again
        wants it to run."""
        self._supervisor.steer(intents.shut_down(self._supervisor.intent, reason))

    def kill_now(self) -> None:
        """Every stop list jumps to KILL."""
        self._supervisor.steer(intents.kill_now(self._supervisor.intent))

    def _changes(self, loaded: LoadedConfig) -> tuple[PoolChange, ...]:
        accepted = {n: p.wanted.spec for n, p in self._supervisor.intent.pools.items() if not p.removed}
        return self._compare(accepted, loaded.pools)

    async def _awaited(self, names: tuple[str, ...], goal: Goal, wait_seconds: float, message: str) -> Outcome:
        return await await_outcome(self._supervisor, [(n, goal) for n in names], wait_seconds, message=message)

    def _change(self, intent: Intent) -> None:
        try:
            self._supervisor.change(intent)
        except OSError as error:
            raise PrepareError(
                f"cannot write the decision down: {error.strerror}", hint="nothing was changed; see the state directory"
            ) from error

    def _known(self, pools: tuple[str, ...]) -> tuple[str, ...]:
        self._refuse_while_stopping()
        known = {name for name, pool in self._supervisor.intent.pools.items() if not pool.removed}
        for name in pools:
            if name not in known:
                raise UnknownNameError(f"cannot find a pool {name!r}", hint=f"there are: {', '.join(sorted(known))}")
        return pools or tuple(name for name in self._supervisor.intent.pools if name in known)

    def _refuse_while_stopping(self) -> None:
        if self._supervisor.intent.stopping:
            raise NotPermittedError(f"cannot do that: the daemon is stopping ({self._supervisor.intent.stopping})")

    def _clear_failures(self, names: tuple[str, ...]) -> None:
        for name in names:
            if name in self._supervisor.observed.pools:
                self._supervisor.post(ev.FailureCleared(name))

    def _note(self, name: str, pool: str, who: str, text: str) -> None:
        self._supervisor.journal.record(Note("operator", name, pool, pool or "daemon", f"{text} ({who})"))


def _why(changes: tuple[PoolChange, ...], fallback: str) -> str:
    keys = sorted({key for change in changes if change.change == "roll" for key in change.keys})
    return f"changed: {', '.join(keys)}" if keys else fallback
