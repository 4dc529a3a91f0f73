"""The composition root: puts the parts together, runs them, takes them apart.  The only module that knows them all.

A daemon's life:

    places     directories, the lock (exit 75), what former daemons wrote down
    adopt      after the death of a daemon, whatever has a record runs on, and the accepted config rules, whatever the
               file says by now; after a clean end, a boot, or in a container that was started again, the file is
               loaded and accepted: every problem at once, exit 78
    serve      control socket, metrics, signals, systemd's notifications
    end        asked: all pools stop, exit 0 with nothing left; unexpected: exit 70, and every process lives on

Processes are without a daemon from its death to the adoption, so that comes before anything is imported that it does
not need: pydantic and YAML (the config), aiohttp (the servers) and prometheus-client are two thirds of a start.
Operators are without one until the servers are up, so the control socket is opened first of all: whoever asks in the
meantime waits in its queue, and is answered.  Until then the garbage collector rests: imports leave it nothing to find.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sys
import time
import traceback
from collections.abc import Coroutine, Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

from supervisor_d import __version__
from supervisor_d.api.access import AccessRules, resolve_rules
from supervisor_d.api.control_socket import bind_control_socket
from supervisor_d.api.slim import without_tls
from supervisor_d.config.whereabouts import whereabouts
from supervisor_d.console import Console
from supervisor_d.control import Control, Figures, Parts
from supervisor_d.core import intent as intents
from supervisor_d.core.aftercare import is_waiting
from supervisor_d.core.change import PoolChange
from supervisor_d.core.config_spec import Config, DaemonSpec
from supervisor_d.core.events import Event
from supervisor_d.core.intent import Intent, PoolIntent
from supervisor_d.core.journal import Note
from supervisor_d.core.process import pool_and_generation
from supervisor_d.core.spec import PoolSpec
from supervisor_d.errors import SupervisorError
from supervisor_d.run_options import RunOptions
from supervisor_d.runtime.adopting import adoption_events, facts_of
from supervisor_d.runtime.attendants import Attendants
from supervisor_d.runtime.contexts import Contexts
from supervisor_d.runtime.herald import Herald
from supervisor_d.runtime.inherited import Inherited, take
from supervisor_d.runtime.journal import Journal
from supervisor_d.runtime.last_words import last_words
from supervisor_d.runtime.linux import Adoption, LinuxHost
from supervisor_d.runtime.operations import LoadedConfig, Operations
from supervisor_d.runtime.places import Places
from supervisor_d.runtime.recovery import recover
from supervisor_d.runtime.restoring import Restorer
from supervisor_d.runtime.samples import Sampler
from supervisor_d.runtime.scopes import UNIT_ENV, Scope
from supervisor_d.runtime.signals import Orders, Signals, detach_output
from supervisor_d.runtime.state import STATE_VERSION, SavedIntent, StateStore
from supervisor_d.runtime.succession import Succession, go_back
from supervisor_d.runtime.supervisor import Supervisor
from supervisor_d.runtime.systemd import notifier
from supervisor_d.runtime.tasks import begin
from supervisor_d.runtime.threads import Threads
from supervisor_d.runtime.upgrade import reap_inherited

EX_SOFTWARE = 70
THREADS_MAX = 4
"""For what is read beside the loop: config and logs."""
LOOK_AT_FILE_SECONDS = 0.5
"""After an adoption, before the file is looked at: whoever waits for an answer comes first."""


def main(config_path: str, *, options: RunOptions) -> int:
    """Run the daemon in the foreground until it is asked to end.  Returns the exit code.

    Raises SupervisorError for what an operator can mend: a wrong config, another daemon, a taken port.
    """
    inherited = take(os.environ)
    codes: list[int] = []
    try:
        asyncio.run(_run(config_path, options, inherited, codes))
    except SupervisorError:
        raise
    except Exception:  # noqa: BLE001  crash-only: say it once, end, leave every process alive
        if not codes:  # else it is asyncio that could not tidy up, for want of a thread
            traceback.print_exc(file=sys.stderr)
    return codes[0] if codes else EX_SOFTWARE


async def _run(config_path: str, options: RunOptions, inherited: Inherited, codes: list[int]) -> None:
    """One daemon's life; its exit code is added to `codes`."""
    async with AsyncExitStack() as stack:
        stack.callback(reap_inherited(asyncio.get_running_loop()))
        try:
            daemon = Daemon(config_path, options, stack, inherited)
        except SupervisorError as error:
            go_back(inherited, error.message)
            raise
        try:
            await daemon.start()
        except Exception as error:
            daemon.succession.go_back(getattr(error, "message", "") or repr(error))
            raise
        codes.append(await daemon.run())


def _load(path: str) -> Config:
    """The config file as it is now.  Raises ConfigError."""
    from supervisor_d.config.loader import load

    return load(path, environ=os.environ)


def _compare(former: Mapping[str, PoolSpec], wanted: Mapping[str, PoolSpec]) -> tuple[PoolChange, ...]:
    from supervisor_d.config.diff import compare

    return compare(former, wanted)


class _Loaded:
    """A config as operations need it."""

    def __init__(self, config: Config) -> None:
        self.pools: Mapping[str, PoolSpec] = config.pools
        self.starts_at_once = config.daemon.starts_at_once
        self.digest = config.digest
        self.daemon = config.daemon


class Daemon:
    """One daemon from start to end."""

    def __init__(self, config_path: str, options: RunOptions, stack: AsyncExitStack, inherited: Inherited) -> None:
        """Raises ConfigError when the file is to be accepted and cannot be."""
        found = whereabouts(config_path, environ=os.environ, euid=os.geteuid())
        self._places = Places(found.runtime_dir, found.state_dir, found.log_dir)
        self._config_path = str(Path(config_path).resolve())
        self._config = None if self._places.ruled_before else _load(config_path)
        self._options = options
        self._stack = stack
        self._console = Console(options)
        self._notifier = notifier()
        self._scope_wanted = UNIT_ENV in os.environ
        self._scope = Scope.take(os.environ)
        self._ended = asyncio.Event()
        self._figures = Figures(time.time(), self._config_path, "")
        self._spec: DaemonSpec | None = None
        self._door: tuple[AccessRules, socket.socket] | None = None
        """The control socket, open before anybody can be answered; with the rules that its file was made by."""
        self.succession = Succession(
            inherited,
            places=self._places,
            config_path=self._config_path,
            options=options,
            notifier=self._notifier,
            environ=self._scope.environ if self._scope else {},
        )
        self._listeners = self.succession.listeners
        self._background: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Take the lock, adopt or accept, open the doors.  Raises SupervisorError; then only runs what ran before."""
        self._places.prepare()
        self.succession.lock.acquire()
        self._stack.callback(self.succession.lock.release)
        self._build()
        self._note("started", f"supervisor-d {__version__}, pid {os.getpid()}, config {self._config_path}")
        self._listen_to_signals()
        began = time.monotonic()
        saved = self._store.load_intent()
        if self._config is None and saved is not None and saved.daemon is not None:
            self._open_door(saved.daemon)
        adoptions = await self._adopt()
        # A scope that lives can wait for the zygote, which joins it anyway when it is first needed.
        later = bool(adoptions and self._scope and self._scope.lives())
        if not later:
            self._enter_scope()
        lives = any(not adoption.empty for adoption in adoptions)
        if saved is not None and self._store.ruled_until_death(lives=lives):
            self._take_over(saved, adoptions)
            self._figures.adopted_total = len(adoptions)
            self._figures.adoption_seconds = time.monotonic() - began
            await asyncio.sleep(0)  # the turn that acts on what was found
            await self._serve_adopted()
        else:
            await self._accept(saved, adoptions)
            await self._serve(self._rules)
        if later:
            asyncio.get_running_loop().call_soon(self._enter_scope)  # once it is ready

    def _enter_scope(self) -> None:
        if self._scope_wanted and not (self._scope and self._host.enter_scope()):
            self._note("scope-refused", "processes live in the daemon's own cgroup; see docs/systemd.md")

    def _build(self) -> None:
        loop = asyncio.get_running_loop()
        places = self._places
        self._store = StateStore(places.state_dir, places.runtime_dir)
        self._journal = Journal(places.state_dir / "history.jsonl", self._console.show)
        contexts = Contexts(places.runtime_dir)
        self._attendants = Attendants(
            self._post, self._listeners.addresses_of, contexts.private_dir, self._tell, self._listeners.listen_again
        )
        restorer = Restorer(self._post, places.runtime_dir)
        self._host = LinuxHost(self._post, self._attendants.told, places.runtime_dir, places.log_dir, loop, self._scope)
        self._supervisor = Supervisor(
            self._host,
            self._attendants,
            self,
            self._journal,
            contexts.of,
            self._listeners.fds_of,
            restorer.restore,
        )
        self._operations = Operations(
            self._supervisor, self._listeners, self._load, _compare, self._accepted, self._short
        )
        self._sampler = Sampler()
        self._herald = Herald(self._notifier, self._supervisor)
        self._control = Control(
            Parts(
                self._supervisor,
                self._operations,
                self._host,
                self._journal,
                self._listeners,
                self._sampler,
                places,
                self._figures,
                self.succession,
                self._attendants,
            )
        )
        loop.set_exception_handler(self._unexpected)
        loop.set_default_executor(Threads(THREADS_MAX))
        for closing in (
            self._console.close,
            self._journal.flush,
            self._host.close,
            self._attendants.close,
            restorer.close,
            self._sampler.close,
            self._herald.close,
        ):
            self._stack.callback(closing)
        self._supervisor.watch(self._look_for_end)

    def _post(self, event: Event) -> None:
        self._supervisor.post(event)

    def _tell(self, process_id: str, text: str) -> None:
        self._host.tell(process_id, text)

    # Keeper: what the supervisor has written down

    def save(self, intent: Intent) -> None:
        """Write the intent down, durably."""
        digest = self._figures.config_digest
        self._store.save_intent(SavedIntent(STATE_VERSION, self._config_path, digest, intent, self._spec))

    def save_successes(self, generations: Mapping[str, tuple[int, ...]]) -> None:
        """Write oneshots' successes down."""
        self._store.save_successes(generations)

    def version_rules(self, spec: PoolSpec, *, alone: bool) -> None:
        """Once no rollout is under way, sockets that only another version of a pool had are closed."""
        if alone:
            self._listeners.settle(spec)
        else:
            self._listeners.want(spec)

    def last_words(self, pool: str, log: str, since: float) -> str:
        """What was last written to a pool's log, at or after a monotonic time; empty if nothing was."""
        since_wall = time.time() - (self._host.now() - since)
        return last_words(self._supervisor.intent, pool, log, self._places.log_dir, since_wall)

    # start

    async def _accept(self, saved: SavedIntent | None, adoptions: list[Adoption]) -> None:
        """The file's config rules.  Ports are taken before anything is started: one that is taken ends the daemon."""
        config = _load(self._config_path) if self._config is None else self._config
        self._spec, self._figures.config_digest = config.daemon, config.digest
        self._rules = resolve_rules(config.daemon.control)
        await self._serve_public(config.daemon)
        self._store.clear_successes()
        intent = intents.begin(saved.intent if saved else Intent(), config.pools)
        self._bind(config.pools)
        self._supervisor.change(intents.with_starts_at_once(intent, config.daemon.starts_at_once))
        self._store.mark_ruling()
        for event in adoption_events(adoptions, self._supervisor.intent, self._host.now()):
            self._supervisor.post(event)

    def _open_door(self, spec: DaemonSpec) -> None:
        """What a former daemon's rules let in may queue up; what is refused now is told when it is to be served."""
        with suppress(SupervisorError):
            rules = resolve_rules(spec.control)
            self._door = rules, bind_control_socket(self._places.control_socket, rules)

    async def _adopt(self) -> list[Adoption]:
        """What former daemons left and can be ruled; of anything else is told what was done about it."""
        for name, why in await self._host.clear(lambda process_id, facts: facts_of(process_id, facts) is not None):
            self._note("debris", f"{name} {why}")
        return self._host.adopt()

    def _take_over(self, saved: SavedIntent, adoptions: list[Adoption]) -> None:
        """What was accepted rules, and the file is not even opened."""
        self._store.mark_ruling()
        self._spec, self._figures.config_digest = saved.daemon, saved.config_digest
        self._revive(intents.revived(saved.intent), adoptions)
        for event in adoption_events(adoptions, self._supervisor.intent, self._host.now()):
            self._supervisor.post(event)

    async def _serve_adopted(self) -> None:
        """Open the doors; what cannot be opened is told, and never ends what runs."""
        spec = self._spec or DaemonSpec("", "", "")
        try:
            rules = resolve_rules(spec.control)
        except SupervisorError as error:
            self._note("control-refused", f"{error.message}; root and the daemon's own user may still ask")
            rules = AccessRules(os.geteuid())
        await self._serve(rules)
        try:
            await self._serve_public(spec)
        except SupervisorError as error:
            self._note("metrics-refused", error.message)
        self._spin(self._look_at_file(), "config")

    async def _look_at_file(self) -> None:
        """Tell when the file is not what rules.  Nothing follows from it: a reload is an operator's decision."""
        await asyncio.sleep(LOOK_AT_FILE_SECONDS)
        try:
            config = await asyncio.to_thread(_load, self._config_path)
        except SupervisorError as error:
            self._note("config-refused", f"{error}; what was accepted before rules on")
            return
        if self._spec is None:
            self._spec = config.daemon
        if config.digest != self._figures.config_digest:
            self._note("config-differs", "the file is not the config that was accepted: `reload` applies it")

    async def _short(self, rolling: Mapping[str, PoolIntent]) -> Mapping[str, str]:
        return await self._control.short_of_memory(rolling)

    def _accepted(self, loaded: LoadedConfig) -> None:
        """A reload made another config the one that rules."""
        assert isinstance(loaded, _Loaded)  # noqa: S101  `_load` made it
        self._spec, self._figures.config_digest = loaded.daemon, loaded.digest
        try:
            self.save(self._supervisor.intent)
        except OSError as error:
            self._note("state-refused", f"cannot write down the daemon's settings: {error.strerror}")

    def _revive(self, intent: Intent, adoptions: list[Adoption]) -> None:
        """The intent of a former daemon, and its sockets, out of the processes that hold them."""
        pools = {name: pool for name, pool in intent.pools.items() if not pool.removed}
        wanted = {name: pool.wanted.spec for name, pool in pools.items()}
        previous = {name: pool.previous.spec for name, pool in pools.items() if pool.previous is not None}
        self.succession.offer((*wanted.values(), *previous.values()))
        for adoption in adoptions:
            pool, generation = pool_and_generation(adoption.process_id)
            recover(self._listeners, intent, pool, generation, self._host.sources(adoption.process_id))
        for refused in self._listeners.revive(wanted, previous):
            self._note("listen-refused", f"{refused.message}; tried again when it is needed")
        self._supervisor.restore(intent, self._store.load_successes())

    def _bind(self, specs: Mapping[str, PoolSpec]) -> None:
        self.succession.offer(tuple(specs.values()))
        self._listeners.commit(self._listeners.prepare(specs))

    async def _serve_public(self, spec: DaemonSpec) -> None:
        if spec.metrics_listen:
            with without_tls():
                from supervisor_d.api.public import PublicServer

            public = PublicServer(spec.metrics_listen, self._metrics)
            await public.start()
            self._stack.push_async_callback(public.close)
            self._note("serving", f"metrics on http://{public.address}/metrics")

    async def _serve(self, rules: AccessRules) -> None:
        with without_tls():
            from supervisor_d.api.server import ControlServer

        server = ControlServer(self._control, rules)
        await server.start(self._places.control_socket, self._opened(rules))
        self._stack.push_async_callback(server.close)
        if self._options.show_logs:
            self._spin(self._console.follow_logs(self._control.log_directories), "logs")
        self._spin(self._notifier.feed_watchdog(), "watchdog")

    def _opened(self, rules: AccessRules) -> socket.socket | None:
        """The control socket where it is open by these rules; one that is open by others is closed."""
        if self._door is None:
            return None
        made_by, listener = self._door
        if made_by == rules:
            return listener
        listener.close()
        return None

    async def _metrics(self) -> tuple[bytes, str]:
        from supervisor_d.metrics.exposition import render

        await self._control.sampled(within_seconds=1.0)
        return await asyncio.to_thread(render, self._control.snapshot())

    def _spin(self, work: Coroutine[object, object, None], name: str) -> None:
        task = begin(work, name)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _load(self) -> LoadedConfig:
        """The config file as it is now, read and checked beside the loop."""
        return _Loaded(await asyncio.to_thread(_load, self._config_path))

    # running

    async def run(self) -> int:
        """Until everything has stopped, or something unexpected happened."""
        self.succession.tell(self._journal)
        self.succession.keep_sockets(self._host.begin_store, self._journal)
        self._notifier.ready("running")
        gc.freeze()
        gc.enable()
        ended = asyncio.create_task(self._ended.wait())
        either: list[asyncio.Future[Any]] = [ended, self._supervisor.failed]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        for task in (*self._background, ended):
            task.cancel()
        if self._supervisor.failed.done():
            self._supervisor.failed.result()
        self._store.end()
        self.succession.end()
        self._listeners.close(unlink=True)
        self._note("ended", "everything has stopped")
        return 0

    def _look_for_end(self) -> None:
        supervisor = self._supervisor
        if supervisor.intent.stopping and all(is_waiting(process) for process in supervisor.observed.processes()):
            self._ended.set()  # what waits for a broker that is away is taken up by the next daemon

    def _unexpected(self, loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        """Crash-only: a bug in a callback ends the daemon; its processes live on and are adopted by the next one."""
        error = context.get("exception")
        if isinstance(error, Exception) and not self._supervisor.failed.done():
            self._supervisor.failed.set_exception(error)
        elif not isinstance(error, Exception):
            loop.default_exception_handler(context)

    def _listen_to_signals(self) -> None:
        orders = Orders(self._shut_down, self._operations.kill_now, self._reload_by_signal, self._detach)
        Signals(orders).install(asyncio.get_running_loop())

    def _shut_down(self, reason: str) -> None:
        self._notifier.stopping(reason)
        self._spin(self._herald.ask_for_time(), "herald")
        self._note("stopping", reason)
        self._operations.shut_down(reason)

    def _detach(self) -> None:
        detach_output()
        self._note("detached", "the terminal hung up; the daemon goes on")

    def _reload_by_signal(self) -> None:
        self._spin(self._reload(), "reload")

    async def _reload(self) -> None:
        self._notifier.reloading()
        try:
            await self._operations.reload("SIGHUP", 0)
        except SupervisorError as error:
            self._note("reload-refused", str(error))
        finally:
            self._notifier.ready("running")

    def _note(self, name: str, reason: str) -> None:
        self._journal.record(Note("daemon", name, "", "daemon", reason))
