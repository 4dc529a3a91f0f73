"""gunicorn as supervisor-d runs it: `python -m supervisor_d_gunicorn_agent ARGS` is `gunicorn ARGS`, and more is known.

A guest in somebody else's process.  The configuration is read as ever; then our hooks are put in front of the ones it
ends up with, each of which still runs, with the same arguments and the same right to raise.  What goes wrong in ours is
swallowed: a request, or a worker, is worth more than a figure.

    pre_fork          master    a slot of the scoreboard for the new worker
    post_fork         worker    SIGTERM when the master dies, which ends one that boots; stacks to the log on SIGRTMIN+6
    post_worker_init  worker    the application is loaded
    pre_request       worker    a request begins
    post_request      worker    it is over, however it ended
    worker_exit       worker    it ends without having loaded the application
    child_exit        master    the slot is free again

Why SIGTERM at the master's death (PR_SET_PDEATHSIG, prctl(2)): on its own a worker notices it by its parent's pid, up
to half a `timeout` later, and then leaves its loop without telling busy connections to close (gthread, asgi) or ends at
once, with all that it serves (gevent).  A SIGTERM is the graceful way for each of them.

Why a boot that fails does not end a master that has proven itself: gunicorn ends the whole service when a worker cannot
load the application, also when ten others serve and one that crashed was to be replaced, from code that somebody broke
on disk in the meantime.  Once one worker of a master was ready, the next ones fail with exit codes that gunicorn does
not take for that, and each waits a little longer than the last before it tries.  The daemon sees them fail.

asgi has a way of its own: gunicorn's asgi worker keeps a connection busy until the application's call has returned
when there is a post_request hook (asgi/protocol.py), so there the application itself is wrapped and no hook is set.
A websocket is no request: it is not counted.

Written for every Python that gunicorn runs on, which need not be the daemon's.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import supervisor_d_gunicorn_scoreboard as scoreboard

ENV = "SUPERVISOR_D_AGENT_DIR"
STACKS_SIGNAL = signal.SIGRTMIN + 6
FAILED_ALONE = (13, 14)
"""Exit codes in place of gunicorn's WORKER_BOOT_ERROR and APP_LOAD_ERROR, 3 and 4."""
FIRST_WAIT_SECONDS = 0.25
WAIT_MAX_SECONDS = 8.0
_PR_SET_PDEATHSIG = 1
_SLOT = "_supervisor_d_slot"
_ARITY = {"post_worker_init": 1, "post_request": 4}


def guarded(hook: Callable[..., Any]) -> Callable[..., Any]:
    """`hook`, whose own mistakes nobody notices."""

    @functools.wraps(hook)
    def safe(*args: Any) -> Any:
        try:
            return hook(*args)
        except Exception:  # noqa: BLE001  that is the whole point
            return None

    return safe


class Agent:
    """Everything of ours in one master and, after the fork, in one worker."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._board: scoreboard.Scoreboard | None = None
        self._desk: scoreboard.Desk | None = None

    def chain(self, cfg: Any) -> None:
        """Put our hooks in front of those of a configuration that is complete."""
        hooks = [
            ("pre_fork", self.pre_fork),
            ("post_fork", self.post_fork),
            ("post_worker_init", self.post_worker_init),
            ("worker_exit", self.worker_exit),
            ("child_exit", self.child_exit),
        ]
        if self._directory and not _is_asgi(cfg):
            hooks += [("pre_request", self.pre_request), ("post_request", self.post_request)]
        for name, ours in hooks:
            cfg.set(name, _in_front(ours, getattr(cfg, name), _ARITY.get(name, 2)))
        # Two masters overlap in a rollout: the second would refuse a pid file that names the first.  None may detach.
        cfg.set("pidfile", None)
        cfg.set("daemon", False)

    @guarded
    def pre_fork(self, server: Any, worker: Any) -> None:
        if not self._directory:
            return
        if self._board is None:
            self._board = scoreboard.Scoreboard(self._directory)
        setattr(worker, _SLOT, self._board.take({getattr(each, _SLOT, -1) for each in server.WORKERS.values()}))

    @guarded
    def child_exit(self, server: Any, worker: Any) -> None:
        slot = getattr(worker, _SLOT, -1)
        if self._board is not None and slot >= 0:
            self._board.release(slot)

    @guarded
    def post_fork(self, server: Any, worker: Any) -> None:
        if self._board is not None and self._board.proven:
            _fail_alone(server)
            _may_be_ended(worker, _pause(self._board.failed_boots))
        else:
            _may_be_ended(worker, 0.0)
        _end_with_master()
        _tell_stacks()
        slot = getattr(worker, _SLOT, -1)
        if self._board is not None and slot >= 0:
            desk = self._board.desk(slot)
            desk.taken(os.getpid(), worker.age)
            self._desk = desk

    @guarded
    def worker_exit(self, server: Any, worker: Any) -> None:
        # gunicorn calls it in the master as well, for a worker that is gone.
        if self._board is not None and worker.pid == os.getpid() and not worker.booted:
            self._board.booted(well=False)

    @guarded
    def post_worker_init(self, worker: Any) -> None:
        _end_with_master()  # a change of user in between (`user` in the configuration file) undoes it
        if os.getppid() != worker.ppid:
            worker.alive = False
        _leave_gracefully(worker)
        if self._board is not None:
            self._board.booted(well=True)
        if self._desk is not None:
            self._desk.ready()
            if hasattr(worker, "asgi"):
                worker.asgi = counted(worker.asgi, self._desk)

    @guarded
    def pre_request(self, worker: Any, req: Any) -> None:
        if self._desk is not None:
            self._desk.began(id(req))

    @guarded
    def post_request(self, worker: Any, req: Any, environ: Any, resp: Any) -> None:
        if self._desk is not None:
            self._desk.ended(id(req), _status_class(resp))


def _in_front(ours: Callable[..., Any], theirs: Callable[..., Any], arity: int) -> Callable[..., Any]:
    """A hook that runs ours and then theirs.  gunicorn looks at the number of arguments."""
    if arity == 1:
        return lambda a: (ours(a), theirs(a))[1]
    if arity == 4:
        return lambda a, b, c, d: (ours(a, b, c, d), theirs(a, b, c, d))[1]
    return lambda a, b: (ours(a, b), theirs(a, b))[1]


def _is_asgi(cfg: Any) -> bool:
    """Whether the workers are gunicorn's own asgi ones, or made of them."""
    try:
        worker_class = cfg.worker_class
        module = sys.modules.get("gunicorn.workers.gasgi")
        return module is not None and issubclass(worker_class, module.ASGIWorker)
    except Exception:  # noqa: BLE001  a class that cannot be loaded: gunicorn says so itself, in a moment
        return False


def _end_with_master() -> None:
    """Have the kernel send SIGTERM when the thread that forked us, the master's only one that forks, is gone."""
    import ctypes

    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _pause(failed: int) -> float:
    return min(FIRST_WAIT_SECONDS * 2 ** min(failed, 16), WAIT_MAX_SECONDS) if failed else 0.0


def _fail_alone(server: Any) -> None:
    """Let this worker, and not its master, end when it cannot load the application (arbiter.py, reap_workers)."""
    arbiter = sys.modules["gunicorn.arbiter"].Arbiter
    for owner in (arbiter, server):
        owner.WORKER_BOOT_ERROR, owner.APP_LOAD_ERROR = FAILED_ALONE


def _may_be_ended(worker: Any, wait_seconds: float) -> None:
    """Let SIGTERM end a worker that still imports the application: it serves nobody yet.

    gunicorn's handler takes note, and looks at the note when the import is through: a stop in that time waits, and one
    of a worker whose import hangs waits for all of `graceful_timeout`.  After others that failed it waits first.

    What Python knows of the signal stays as it is, and only the kernel is told otherwise: an application that sets a
    handler of its own in that time finds gunicorn's, to call it in turn, and not a default that ends the process.
    """
    import ctypes

    load, tell_kernel = worker.load_wsgi, ctypes.CDLL(None, use_errno=True).signal
    tell_kernel.argtypes, tell_kernel.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p

    def load_and_may_be_ended() -> None:
        gunicorns = signal.getsignal(signal.SIGTERM)
        tell_kernel(signal.SIGTERM, None)  # SIG_DFL
        try:
            time.sleep(wait_seconds)
            load()
        finally:
            signal.signal(signal.SIGTERM, _with_the_applications(gunicorns))
            signal.siginterrupt(signal.SIGTERM, False)  # as they had it (workers/base.py, and asyncio)

    worker.load_wsgi = load_and_may_be_ended


def _with_the_applications(gunicorns: Any) -> Any:
    """The handler of gunicorn, and after it the one that the application has set, if it has.

    That one may end the process, as in a program without a server around it: requests in flight come first.
    """
    applications = signal.getsignal(signal.SIGTERM)
    if applications is gunicorns or not callable(applications) or not callable(gunicorns):
        return gunicorns

    def both(number: int, frame: Any) -> None:
        gunicorns(number, frame)
        try:
            applications(number, frame)
        except SystemExit:
            pass

    return both


def _tell_stacks() -> None:
    """Let a signal write what every thread does to the log, also while the application is imported."""
    import faulthandler

    if signal.getsignal(STACKS_SIGNAL) is signal.SIG_DFL:
        faulthandler.register(STACKS_SIGNAL, file=2, all_threads=True, chain=False)


def _leave_gracefully(worker: Any) -> None:
    """A gevent worker that sees another parent ends at once (ggevent.py): make it finish what it serves."""
    module = sys.modules.get("gunicorn.workers.ggevent")
    if module is None or not isinstance(worker, module.GeventWorker):
        return
    notify = worker.notify

    def notify_or_leave() -> None:
        if worker.ppid != os.getppid():
            worker.ppid = os.getppid()
            worker.alive = False
        notify()

    worker.notify = notify_or_leave


def _status_class(resp: Any) -> int:
    """The first digit of the status that was sent; 0 when the client went away before there was any.

    We run in a `finally`: an exception that is on its way out tells what gunicorn will answer in place of the app.
    """
    status = getattr(resp, "status_code", None)
    if not getattr(resp, "headers_sent", False):
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, StopIteration):
            return 0 if isinstance(error, OSError) else 5
    return status // 100 if isinstance(status, int) else 0


def counted(app: Callable[..., Awaitable[Any]], desk: scoreboard.Desk) -> Callable[..., Awaitable[Any]]:
    """An ASGI application whose HTTP requests are counted."""
    began, ended = guarded(desk.began), guarded(desk.ended)

    async def application(scope: Any, receive: Any, send: Any) -> Any:
        if scope["type"] != "http":
            return await app(scope, receive, send)
        # What the app never answers, gunicorn answers with 500.
        answered = [5]

        async def seen(message: Any) -> None:
            if message["type"] == "http.response.start":
                answered[0] = _digit(message)
            await send(message)

        key = id(scope)
        began(key)
        try:
            return await app(scope, receive, seen)
        except BaseException as error:
            if not isinstance(error, Exception) and answered[0] == 5:
                answered[0] = 0  # cancelled: the client went away
            raise
        finally:
            ended(key, answered[0])

    return application


def _digit(message: Any) -> int:
    status = message.get("status")
    return status // 100 if isinstance(status, int) else 0


def application_class() -> type:
    """The application of gunicorn's command, with our hooks in its configuration."""
    from gunicorn.app.wsgiapp import WSGIApplication

    agent = Agent(os.environ.pop(ENV, ""))

    class Application(WSGIApplication):  # type: ignore[misc]
        def load_config(self) -> None:
            super().load_config()
            try:
                agent.chain(self.cfg)
            except Exception as error:  # noqa: BLE001  better without an agent than not at all
                sys.stderr.write(f"supervisor-d: gunicorn runs without its agent: {error}\n")

    return Application


def run() -> None:
    """Be `gunicorn`."""
    application_class()("%(prog)s [OPTIONS] [APP_MODULE]", prog="gunicorn").run()


if __name__ == "__main__":
    run()
