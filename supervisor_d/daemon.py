"""The composition root: puts the parts together, runs them, takes them apart.  The only module that knows them all.

A daemon's life:

    load       the config file; every problem at once, exit 78
    places     directories, the lock (exit 75), what former daemons wrote down
    adopt      whatever has a record runs on, and then the accepted config rules; else the file's config is accepted
    serve      control socket, metrics, signals, systemd's notifications
    end        asked: all pools stop, exit 0 with nothing left; unexpected: exit 70, and every process lives on
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
import traceback
from collections.abc import Coroutine, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from supervisor_d import __version__
from supervisor_d.api.access import resolve_rules
from supervisor_d.api.public import PublicServer
from supervisor_d.api.server import ControlServer
from supervisor_d.config.diff import compare
from supervisor_d.config.loader import load
from supervisor_d.console import Console
from supervisor_d.control import Control, Figures, Parts
from supervisor_d.core import intent as intents
from supervisor_d.core.config_spec import Config
from supervisor_d.core.events import Event
from supervisor_d.core.intent import Intent
from supervisor_d.core.journal import Note
from supervisor_d.core.spec import PoolSpec
from supervisor_d.errors import SupervisorError
from supervisor_d.metrics.exposition import render
from supervisor_d.run_options import RunOptions
from supervisor_d.runtime.adopting import adoption_events
from supervisor_d.runtime.attendants import Attendants
from supervisor_d.runtime.contexts import Contexts
from supervisor_d.runtime.inherited import Inherited, take
from supervisor_d.runtime.journal import Journal
from supervisor_d.runtime.linux import Adoption, LinuxHost
from supervisor_d.runtime.operations import LoadedConfig, Operations
from supervisor_d.runtime.places import Places
from supervisor_d.runtime.recovery import listening_sockets
from supervisor_d.runtime.samples import Sampler
from supervisor_d.runtime.signals import Orders, Signals, detach_output
from supervisor_d.runtime.state import STATE_VERSION, SavedIntent, StateStore
from supervisor_d.runtime.succession import Succession, go_back
from supervisor_d.runtime.supervisor import Supervisor
from supervisor_d.runtime.systemd import notifier
from supervisor_d.runtime.tasks import begin
from supervisor_d.runtime.upgrade import reap_inherited

EX_SOFTWARE = 70


def main(config_path: str, *, options: RunOptions) -> int:
    """Run the daemon in the foreground until it is asked to end.  Returns the exit code.

    Raises SupervisorError for what an operator can mend: a wrong config, another daemon, a taken port.
    """
    inherited = take(os.environ)
    try:
        config = load(config_path, environ=os.environ)
    except SupervisorError as error:
        go_back(inherited, error.message)
        raise
    try:
        return asyncio.run(_run(config, options, inherited))
    except SupervisorError:
        raise
    except Exception:  # noqa: BLE001  crash-only: say it once, end, leave every process alive
        traceback.print_exc(file=sys.stderr)
        return EX_SOFTWARE


async def _run(config: Config, options: RunOptions, inherited: Inherited) -> int:
    async with AsyncExitStack() as stack:
        stack.callback(reap_inherited(asyncio.get_running_loop()))
        daemon = Daemon(config, options, stack, inherited)
        try:
            await daemon.start()
        except Exception as error:
            daemon.succession.go_back(getattr(error, "message", "") or repr(error))
            raise
        return await daemon.run()


class _Loaded:
    """A config as operations need it."""

    def __init__(self, config: Config) -> None:
        self.pools: Mapping[str, PoolSpec] = config.pools
        self.starts_at_once = config.daemon.starts_at_once
        self.digest = config.digest


class Daemon:
    """One daemon from start to end."""

    def __init__(self, config: Config, options: RunOptions, stack: AsyncExitStack, inherited: Inherited) -> None:
        self._config = config
        self._options = options
        self._stack = stack
        self._console = Console(options)
        self._notifier = notifier()
        spec = config.daemon
        self._places = Places(Path(spec.runtime_dir), Path(spec.state_dir), Path(spec.log_dir))
        self._ended = asyncio.Event()
        self._figures = Figures(time.time(), str(Path(config.path).resolve()), config.digest)
        self.succession = Succession(
            inherited,
            places=self._places,
            config_path=self._figures.config_path,
            options=options,
            notifier=self._notifier,
            environ={},
        )
        self._listeners = self.succession.listeners
        self._background: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Take the lock, adopt or accept, open the doors.  Raises SupervisorError; then only runs what ran before."""
        self._places.prepare()
        self.succession.lock.acquire()
        self._stack.callback(self.succession.lock.release)
        self._build()
        self._note("started", f"supervisor-d {__version__}, pid {os.getpid()}, config {self._figures.config_path}")
        self._listen_to_signals()
        self._rules = resolve_rules(self._config.daemon.control)
        await self._serve_public()
        self._take_over_or_accept()
        await self._serve()

    def _build(self) -> None:
        loop = asyncio.get_running_loop()
        places = self._places
        self._store = StateStore(places.state_dir, places.runtime_dir)
        self._journal = Journal(places.state_dir / "history.jsonl", self._console.show)
        contexts = Contexts(places.runtime_dir)
        self._attendants = Attendants(self._post, self._listeners.addresses, contexts.private_dir)
        self._host = LinuxHost(self._post, self._attendants.told, places.runtime_dir, places.log_dir, loop)
        self._supervisor = Supervisor(
            self._host, self._attendants, self, self._journal, contexts.of, self._listeners.fds_of
        )
        self._operations = Operations(self._supervisor, self._listeners, self._load, compare)
        self._sampler = Sampler()
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
            )
        )
        loop.set_exception_handler(self._unexpected)
        for closing in (
            self._console.close,
            self._journal.flush,
            self._host.close,
            self._attendants.close,
            self._sampler.close,
        ):
            self._stack.callback(closing)
        self._supervisor.watch(self._look_for_end)

    def _post(self, event: Event) -> None:
        self._supervisor.post(event)

    # Keeper: what the supervisor has written down

    def save(self, intent: Intent) -> None:
        """Write the intent down, durably."""
        figures = self._figures
        self._store.save_intent(SavedIntent(STATE_VERSION, figures.config_path, figures.config_digest, intent))

    def save_successes(self, generations: Mapping[str, tuple[int, ...]]) -> None:
        """Write oneshots' successes down."""
        self._store.save_successes(generations)

    def rollout_concluded(self, spec: PoolSpec) -> None:
        """Sockets that only the version of a pool that did not rule had are closed."""
        self._listeners.settle(spec)

    # start

    def _take_over_or_accept(self) -> None:
        """Adopt if anything has a record, and then the accepted config rules; else accept the file's."""
        began = time.monotonic()
        saved = self._store.load_intent()
        adoptions = self._host.adopt()
        if adoptions and saved is not None:
            self._revive(intents.revived(saved.intent), adoptions)
        else:
            self._store.clear_successes()
            intent = intents.begin(saved.intent if saved else Intent(), self._config.pools)
            self._bind(self._config.pools)
            self._supervisor.change(intents.with_starts_at_once(intent, self._config.daemon.starts_at_once))
        for event in adoption_events(adoptions, self._supervisor.intent, self._host.now()):
            self._supervisor.post(event)
        self._figures.adopted_total = len(adoptions)
        self._figures.adoption_seconds = time.monotonic() - began if adoptions else 0.0

    def _revive(self, intent: Intent, adoptions: list[Adoption]) -> None:
        """The intent of a former daemon, and its sockets, out of the processes that hold them."""
        specs = {name: pool.wanted.spec for name, pool in intent.pools.items() if not pool.removed}
        for adoption in adoptions:
            pool = adoption.process_id.rpartition("@")[0].rpartition(".")[0]
            if adoption.pid is not None and pool in specs and specs[pool].listeners:
                self._listeners.offer(specs[pool], listening_sockets(adoption.pid))
        self._bind(specs)
        self._supervisor.restore(intent, self._store.load_successes())

    def _bind(self, specs: Mapping[str, PoolSpec]) -> None:
        self.succession.offer(specs)
        self._listeners.commit(self._listeners.prepare(specs))

    async def _serve_public(self) -> None:
        """Before anything is started: a port that is taken ends the daemon, and then nothing may run."""
        if self._config.daemon.metrics_listen:
            public = PublicServer(self._config.daemon.metrics_listen, self._metrics)
            await public.start()
            self._stack.push_async_callback(public.close)
            self._note("serving", f"metrics on http://{public.address}/metrics")

    async def _serve(self) -> None:
        server = ControlServer(self._control, self._rules)
        await server.start(self._places.control_socket)
        self._stack.push_async_callback(server.close)
        if self._options.show_logs:
            self._spin(self._console.follow_logs(self._control.log_directories), "logs")
        self._spin(self._notifier.feed_watchdog(), "watchdog")

    async def _metrics(self) -> tuple[bytes, str]:
        await self._control.sampled(within_seconds=1.0)
        return await asyncio.to_thread(render, self._control.snapshot())

    def _spin(self, work: Coroutine[object, object, None], name: str) -> None:
        task = begin(work, name)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _load(self) -> LoadedConfig:
        """The config file as it is now, read and checked beside the loop."""
        return _Loaded(await asyncio.to_thread(load, self._figures.config_path, environ=os.environ))

    # running

    async def run(self) -> int:
        """Until everything has stopped, or something unexpected happened."""
        self.succession.tell(self._journal)
        self._notifier.ready("running")
        ended = asyncio.create_task(self._ended.wait())
        either: list[asyncio.Future[Any]] = [ended, self._supervisor.failed]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        for task in (*self._background, ended):
            task.cancel()
        if self._supervisor.failed.done():
            self._supervisor.failed.result()
        self._store.clear_successes()
        self.succession.end()
        self._listeners.close(unlink=True)
        self._note("ended", "everything has stopped")
        return 0

    def _look_for_end(self) -> None:
        supervisor = self._supervisor
        if supervisor.intent.stopping and next(supervisor.observed.processes(), None) is None:
            self._ended.set()

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
