"""The shim: parent and subreaper of one program's tree, from the gate to the last process of it.

Theory of operation.  A supervisor that is the parent of its processes takes exit codes, log pipes and sockets with it
when it dies.  So the shim holds them, one small process for each spawned one, and does nothing clever: no policy, no
name service, no clock but for the grace of orphans.  The daemon may die and come back as often as it likes; daemon and
zygote may be gone for ever: program, log and records go on, and the shim, blocked in epoll, costs nothing.

It moves through these states, once, and each step is a line in the record before anybody is told (wire.py):

    gated     `began` is said.  The daemon puts us on its books and opens the gate; EOF there instead: we end, and
              nothing was started.  So no process can exist that a daemon doesn't know.
    starting  the child is forked and held at a gate of its own, `forked` is on record, then it goes on to exec
    running   `started`
    orphaned  `exited`: the main process ended, but others of its tree live: they may for orphan_grace_seconds
    killing   asked to, or the grace is over: kill_below, at once, at every death, and at growing intervals
    empty     waitpid said ECHILD.  The FIFO is drained, then `emptied` is told.  We stay, as long as it takes, until a
              daemon has taken note and says `release`.

What a program could do to us: it runs as another user or as ours, shares the FIFO and datagram sockets with us, and
nothing else.  It may fill them (pump.py, told.py) or kill us, if it runs as our user; then the daemon takes over what
can still be known (runtime/lost.py).

Worked example, `web.0@g1.1`, a shell that starts `sleep 60 &` and dies by SIGKILL, with orphan_grace_seconds 0:

    daemon > zygote   request, with descriptors: link, record, log directory, listeners
    shim   > daemon   {"event":"began","version":1,"process":[700, ...]}
    daemon > shim     {"ask":"go"}
    shim   > daemon   {"event":"forked","process":[701, ...]}, then, exec done, {"event":"started"}
    SIGCHLD 701       wait4: 701, status 9          > {"event":"exited","status":9, ...}
                      wait4: nothing more, others live (sleep is now our child): kill_below: SIGKILL
    SIGCHLD 702       wait4: 702; wait4: ECHILD     > {"event":"emptied","killed":1, ...}
    daemon > shim     {"ask":"release"}
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Iterable
from typing import NoReturn

from supervisor_d.shim import cgroup, child, kernel, tree, wire
from supervisor_d.shim.kernel import Socket
from supervisor_d.shim.links import Link, Links
from supervisor_d.shim.logfile import LogFile
from supervisor_d.shim.loop import IN, ONESHOT, Loop
from supervisor_d.shim.pump import Pump
from supervisor_d.shim.told import Told

FIFO_WISH_BYTES = 256 * 1024
"""A wish: all pipes of a plain user may hold 64 MiB together, after which they shrink (pipe(7))."""
KILL_AGAIN_SECONDS = 0.001
KILL_AGAIN_MAX_SECONDS = 0.25

_EVENTS_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
_FIFO_FLAGS = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW


def main(link: Socket, record: int, log_directory: int, listeners: list[int]) -> NoReturn:
    """What the zygote's child does: one shim's life.  A bug ends it, and the record says why."""
    try:
        shim = Shim(link, record, log_directory, listeners)
        try:
            shim.run()
        except Exception as error:  # noqa: BLE001  (the last thing that can be done about it is to record it)
            shim.say({"event": "broken", "error": repr(error)})
            os._exit(70)
        os._exit(0)
    finally:
        os._exit(70)


class Shim:
    """One life.  Descriptors: the record's directory, the log's directory, the program's listeners."""

    def __init__(self, link: Socket, record: int, log_directory: int, listeners: list[int]) -> None:
        self._record = record
        self._log_directory = log_directory
        self._listeners = listeners
        self._spec: wire.Spec = wire.decode(wire.read(wire.SPEC, record))  # type: ignore[assignment]
        self._events = os.open(wire.EVENTS, _EVENTS_FLAGS, 0o600, dir_fd=record)
        self._said: list[bytes] = []
        self._loop = Loop()
        self._links = Links(self._loop, self._asked, self._link_ended, self._replay)
        self._told = Told(self._loop, lambda line: self._links.tell(line, may_drop=True))
        self._gate: Link | None = self._links.add(link)
        self._main = 0
        self._report: Socket | None = None
        self._failure: child.StepError | None = None
        self._empty = False
        self._killing = False
        self._killed = 0
        self._kill_again = KILL_AGAIN_SECONDS

    def run(self) -> None:
        """Until released, or until the gate is closed unopened."""
        kernel.set_name(f"shim {self._spec['id']}")
        kernel.become_subreaper()
        self._hear_signals()
        self.say({"event": "began", "version": wire.VERSION, "process": _identity(os.getpid())})
        self._prepare()
        self._loop.run()

    def say(self, fact: wire.Message) -> None:
        """Put a fact on record, then tell it.  A record that can't be written (a full tmpfs) silences nobody."""
        line = wire.encode(fact)
        self._said.append(line)
        try:
            os.write(self._events, line)
        except OSError:
            pass
        self._links.tell(line)

    def _replay(self) -> Iterable[bytes]:
        yield from self._said
        yield from self._told.kept

    # -- gated

    def _hear_signals(self) -> None:
        ours, theirs = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        kernel.set_handler(kernel.SIGCHLD, lambda *_: None)
        kernel.set_wakeup_fd(theirs, warn_on_full_buffer=False)

        def died() -> None:
            os.read(ours, 4096)
            self._reap()

        self._loop.watch(ours, died)

    def _prepare(self) -> None:
        """All that can be made while the daemon puts us on its books."""
        spec, log = self._spec, self._spec["log"]
        step = f"open the log {spec['log_directory']}/{log['name']}.log"
        try:
            file = LogFile(self._log_directory, log["name"], log["max_size_bytes"], log["keep"])
            step = "make its output"
            os.mkfifo(wire.FIFO, 0o600, dir_fd=self._record)
            self._fifo = os.open(wire.FIFO, _FIFO_FLAGS, dir_fd=self._record)
            if spec["account"]:
                os.fchown(self._fifo, spec["account"]["uid"], spec["account"]["gid"])
            step = "make its sockets"
            self._links.listen(self._record)
            if spec["notify"]:
                self._told.listen_for_notify(spec["private_dir"])
        except OSError as error:
            self._fail(child.StepError(step, error.errno or 0))
            return
        self._pump = Pump(self._fifo, _grow(self._fifo), file, log["block_seconds"])
        self._loop.watch(self._fifo, self._look, IN | ONESHOT)

    def _asked(self, link: Link, message: wire.Message) -> None:
        match message.get("ask"):
            case "go" if link is self._gate:
                self._gate = None
                self._start()
            case "kill" if self._main and not self._empty:
                self._kill()
            case "release" if self._empty:
                self._loop.stop()

    def _link_ended(self, link: Link) -> None:
        if link is self._gate:
            self._loop.stop()

    # -- starting

    def _start(self) -> None:
        if self._failure:
            return
        passed = list(self._listeners)
        agent = self._told.pair_for_agent() if self._spec["agent"] else None
        if agent:
            passed.append(agent.fileno())
        self._report, gate = kernel.socketpair()
        try:
            self._main, in_cgroup = _fork(self._spec["cgroup"])
        except OSError as error:
            self._fail(child.StepError("fork", error.errno or 0))
            return
        if self._main == 0:
            child.run(gate.fileno(), self._record, self._spec, passed)
        gate.close()
        if agent:
            agent.close()
        self.say({"event": "forked", "process": _identity(self._main), "cgroup": in_cgroup})
        self._loop.watch(self._report.fileno(), self._started)
        try:
            self._report.send(b"!")
        except OSError:
            pass  # it was killed already, which its death will tell

    def _started(self) -> None:
        """Exec closed the child's gate; or the child said which step failed, and ends."""
        if self._report is None:
            return
        try:
            data = self._report.recv(wire.MESSAGE_MAX_BYTES)
        except OSError:
            data = b""  # it was killed before it could fail
        self._loop.unwatch(self._report.fileno())
        self._report.close()
        self._report = None
        if data:
            failure = wire.decode(data)
            self._failure = child.StepError(failure["step"], failure["errno"])
        else:
            self.say({"event": "started"})

    def _fail(self, failure: child.StepError) -> None:
        """No program runs and nothing is left."""
        self._failure = failure
        self._empty = True
        cgroup.remove(self._spec["cgroup"])
        self.say({"event": "failed", "step": failure.step, "errno": failure.number})

    # -- running

    def _look(self) -> None:
        """The FIFO has something, or it is time to look."""
        dropped = self._pump.dropped_bytes
        pause = self._pump.look()
        if self._pump.dropped_bytes != dropped:
            fact = {"event": "dropped", "bytes": self._pump.dropped_bytes}
            self._links.tell(wire.encode(fact), may_drop=True)
        if pause is None:
            self._loop.watch(self._fifo, self._look, IN | ONESHOT)
        else:
            self._loop.after(pause, "look", self._look)

    # -- orphaned, killing, empty

    def _reap(self) -> None:
        """Take note of every death, until no child is left to wait for."""
        while self._main and not self._empty:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                self._emptied()
                return
            if pid == self._main:
                self._main_exited(status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)
            elif pid and self._killing and os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
                self._killed += 1
            elif pid == 0:
                if self._killing:
                    self._kill()
                return

    def _main_exited(self, status: int, cpu_seconds: float, max_rss_bytes: int) -> None:
        self._started()
        if self._failure:
            return
        usage = {"cpu_seconds": cpu_seconds, "max_rss_bytes": max_rss_bytes}
        self.say({"event": "exited", "status": status, "at": time.time(), "rusage": usage})
        if grace := self._spec["orphan_grace_seconds"]:
            self._loop.after(grace, "grace", self._kill)
        else:
            self._killing = True

    def _kill(self) -> None:
        """SIGKILL to all that is seen; and again at the next death, or in a while."""
        if self._empty:
            return
        self._killing = True
        cgroup.kill(self._spec["cgroup"])
        tree.kill_below(os.getpid())
        self._loop.after(self._kill_again, "kill", self._kill)
        self._kill_again = min(2 * self._kill_again, KILL_AGAIN_MAX_SECONDS)

    def _emptied(self) -> None:
        self._pump.drain()
        if self._failure:
            self._fail(self._failure)
            return
        self._empty = True
        cgroup.remove(self._spec["cgroup"])
        self.say({"event": "emptied", "killed": self._killed, "at": time.time()})


def _identity(pid: int) -> wire.Identity:
    """Of ourselves or of a child that nobody else can reap."""
    pidfd = os.pidfd_open(pid)
    try:
        return wire.identify(pid, pidfd)
    finally:
        os.close(pidfd)


def _grow(fifo: int) -> int:
    """Make the FIFO as large as we may.  Returns its size."""
    try:
        fcntl.fcntl(fifo, fcntl.F_SETPIPE_SZ, FIFO_WISH_BYTES)
    except OSError:
        pass
    return fcntl.fcntl(fifo, fcntl.F_GETPIPE_SZ)


def _fork(into: str) -> tuple[int, bool]:
    """The child's pid (0 in the child), and whether it was born in the cgroup.  Raises OSError when no way goes."""
    if not into:
        return os.fork(), False
    try:
        directory = os.open(into, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return kernel.fork_into(directory), True
        finally:
            os.close(directory)
    except OSError:
        return os.fork(), False
