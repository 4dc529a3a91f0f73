"""The shim: parent and subreaper of one program's tree, from the gate to the last process of it.

Theory of operation.  A supervisor that is the parent of its processes takes exit codes, log pipes and sockets with it
when it dies.  So the shim holds them, one small process for each spawned one, and does nothing clever: no policy, no
name service, no clock but for the grace of orphans.  The daemon may die and come back as often as it likes; daemon and
zygote may be gone for ever: program, log and records go on, and the shim, blocked in epoll, costs nothing.

It moves through these states, once, and each step is a line in the record before anybody is told (wire.py):

    spare     forked by the zygote, all is ready that needs no request
    gated     `began` is said.  While the daemon puts us on its books, the child is forked, and is on record too
              (`forked`); it makes itself ready for exec, and waits.  EOF instead of `go`: both end, and no program was
              started.  So none can run that a daemon doesn't know.
    starting  the gate is open: the child goes on to exec
    running   `started`
    orphaned  `exited`: the main process ended, but others of its tree live: they may for orphan_grace_seconds
    killing   asked to, or the grace is over: kill_below, at once, at every death, and at growing intervals
    empty     waitpid said ECHILD.  The FIFO is drained, then `emptied` is told.  We stay, as long as it takes, until a
              daemon has taken note and says `release`.

What a program could do to us: it runs as another user or as ours, shares the FIFO and datagram sockets with us, and
nothing else.  It may fill them (pump.py, told.py) or kill us, if it runs as our user; then the daemon takes over what
can still be known (runtime/lost.py).

Worked example, `web.0@g1.1`, a shell that starts `sleep 60 &` and dies by SIGKILL, with orphan_grace_seconds 0:

    daemon > spare    request, with descriptors: link, record, log directory, listeners
    shim   > daemon   {"event":"began","version":1,"process":[700, ...]}, {"event":"forked","process":[701, ...]}
    daemon > shim     {"ask":"go"}
    shim   > daemon   {"event":"started"}
    SIGCHLD 701       wait4: 701, status 9          > {"event":"exited","status":9, ...}
                      wait4: nothing more, others live (sleep is now our child): kill_below: SIGKILL
    SIGCHLD 702       wait4: 702; wait4: ECHILD     > {"event":"emptied","killed":1, ...}
    daemon > shim     {"ask":"release"}
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import time
from collections.abc import Iterable

from supervisor_d.shim import cgroup, kernel, tree, wire
from supervisor_d.shim.child import Child
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

EVENTS_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
FIFO_FLAGS = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW


class Shim:
    """One life.  Made before it has anything to do: all that needs no request is then behind it."""

    def __init__(self) -> None:
        self._loop = Loop()
        self._links = Links(self._loop, self._asked, self._link_ended, self._replay)
        self._told = Told(self._loop, self._heard)
        self._said: list[bytes] = []
        self._main = 0
        self._gate: Link | None = None
        self._report: Socket | None = None
        self._released = False
        self._failure: tuple[str, int] | None = None
        self._empty = False
        self._killing = False
        self._killed = 0
        self._dropped = 0
        self._kill_again = KILL_AGAIN_SECONDS
        kernel.become_subreaper()
        self._wakes, wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        kernel.set_handler(kernel.SIGCHLD, _nothing)
        kernel.set_wakeup_fd(wakes, warn_on_full_buffer=False)
        self._loop.watch(self._wakes, self._died)
        self._identity = identity(os.getpid())

    def run(self, link: Socket, record: int, log_directory: int, listeners: list[int]) -> None:
        """Until released, or until the gate is closed unopened.  Descriptors: of the record's directory, of the log's,
        and the program's listeners."""
        self._record = record
        self._listeners = listeners
        self._spec: wire.Spec = wire.decode(wire.read(wire.SPEC, record))  # type: ignore[assignment]
        self._events = os.open(wire.EVENTS, EVENTS_FLAGS, 0o600, dir_fd=record)
        self._gate = self._links.add(link)
        self.say({"event": "began", "version": wire.VERSION, "process": self._identity})
        if self._gate is not None:  # it may have ended over our first word
            self._prepare(log_directory, listeners)
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
        if self._dropped:
            yield wire.encode({"event": "dropped", "bytes": self._dropped})

    def _heard(self, line: bytes) -> None:
        self._links.tell(line, may_drop=True)

    def _asked(self, link: Link, message: wire.Message) -> None:
        match message.get("ask"):
            case "go" if link is self._gate:
                self._gate = None
                self._release()
            case "sockets":
                self._give(link, "sockets", self._listeners)
            case "lent":
                self._give(link, "lent", self._told.lent)
            case "tell":
                self._told.tell(str(message.get("text", "")))
            case "kill" if self._main and not self._empty:
                self._kill()
            case "release" if self._empty:
                self._loop.stop()

    def _give(self, link: Link, what: str, descriptors: list[int]) -> None:
        line = wire.encode({"event": what, "count": len(descriptors)})
        link.send_rights(line, descriptors) if descriptors else link.send(line)

    # -- gated

    def _prepare(self, log_directory: int, listeners: list[int]) -> None:
        """All up to exec, while the daemon puts us on its books."""
        spec = self._spec
        self._step = "make its output"
        try:
            self._make_output()
            self._fork(listeners)
            kernel.set_name(f"shim {spec['id']}")
            log = spec["log"]
            self._step = f"open the log {spec['log_directory']}/{log['name']}.log"
            file = LogFile(log_directory, log["name"], log["max_size_bytes"], log["keep"])
            self._pump = Pump(self._fifo, grow(self._fifo), file, log["block_seconds"])
            self._loop.watch(self._fifo, self._look, IN | ONESHOT)
            self._step = "listen to daemons"
            self._links.listen(self._record)
        except OSError as error:
            self._fail_to_start(self._step, error.errno or 0)

    def _make_output(self) -> None:
        account = self._spec["account"]
        os.mkfifo(wire.FIFO, 0o600, dir_fd=self._record)
        self._fifo = os.open(wire.FIFO, FIFO_FLAGS, dir_fd=self._record)
        if account:
            os.fchown(self._fifo, account["uid"], account["gid"])
        if self._spec["notify"]:
            self._step = "listen to its notifications"
            self._told.listen_for_notify(self._spec["private_dir"])

    def _fork(self, listeners: list[int]) -> None:
        """Fork the program's process.  It makes itself ready for exec, and waits at its gate."""
        self._step = "fork"
        passed = list(listeners)
        agent = self._told.pair_for_agent() if self._spec["agent"] else None
        if agent:
            passed.append(agent.fileno())
        self._report, gate = kernel.socketpair()
        self._main, in_cgroup = _fork_into(self._spec["cgroup"])
        if self._main == 0:
            Child(gate.fileno(), self._record, self._spec, passed).run()
        gate.close()
        if agent:
            agent.close()
        self._loop.watch(self._report.fileno(), self._reported)
        self.say({"event": "forked", "process": identity(self._main), "cgroup": in_cgroup})

    def _link_ended(self, link: Link) -> None:
        """The first link's end, with the gate unopened: nobody wants us, and nobody will know of us."""
        if link is not self._gate:
            return
        self._gate = None
        self._close_report()
        if self._main and not self._empty:
            os.waitpid(self._main, 0)
        cgroup.remove(self._spec["cgroup"])
        self._loop.stop()

    # -- starting

    def _release(self) -> None:
        self._released = True
        self.say({"event": "opened"})
        if self._report:
            try:
                self._report.send(b"!")
            except OSError:
                pass  # it was killed already, which its death will tell

    def _reported(self) -> None:
        """Exec closed the child's gate; or the child said which step failed, and ends."""
        if self._report is None:
            return
        try:
            data = self._report.recv(wire.MESSAGE_MAX_BYTES)
        except OSError:
            data = b""  # it was killed with our word unread
        self._close_report()
        if data:
            failure = wire.decode(data)
            self._failure = (failure["step"], failure["errno"])
        elif self._released:
            self.say({"event": "started"})
        else:
            self._failure = ("wait for its exec", errno.EINTR)

    def _close_report(self) -> None:
        if self._report:
            self._loop.unwatch(self._report.fileno())
            self._report.close()
            self._report = None

    def _fail_to_start(self, step: str, number: int) -> None:
        """No program will run; it is told when nothing is left."""
        self._failure = (step, number)
        self._close_report()  # a child that waits there ends, and its death brings us on
        if self._main == 0:
            self._end()

    # -- running

    def _look(self) -> None:
        """The FIFO has something, or it is time to look."""
        pause = self._pump.look()
        self._tell_dropped()
        if pause is None:
            self._loop.watch(self._fifo, self._look, IN | ONESHOT)
        else:
            self._loop.after(pause, "look", self._look)

    def _tell_dropped(self) -> None:
        if self._pump.dropped_bytes != self._dropped:
            self._dropped = self._pump.dropped_bytes
            fact = {"event": "dropped", "bytes": self._dropped}
            self._links.tell(wire.encode(fact), may_drop=True)

    def _drain(self) -> None:
        """What the program wrote last goes to the log, before anybody hears of its end."""
        self._pump.drain()
        self._tell_dropped()

    # -- orphaned, killing, empty

    def _died(self) -> None:
        """Take note of every death, until no child is left to wait for."""
        os.read(self._wakes, 4096)
        while self._main and not self._empty:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                self._end()
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
        self._reported()
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

    def _end(self) -> None:
        """Nothing is left."""
        self._empty = True
        if self._failure:
            step, number = self._failure
            self.say({"event": "failed", "step": step, "errno": number})
        else:
            self._drain()
            self.say({"event": "emptied", "killed": self._killed, "at": time.time()})
        # Behind the word: it takes the kernel milliseconds, and the slot's next process may wait for the word.
        cgroup.remove(self._spec["cgroup"])


def _nothing(*_: object) -> None:
    """A handler there must be, for the wake-up descriptor to be written."""


def identity(pid: int) -> tuple[int, int, int, str]:
    """Of ourselves or of a child that nobody else can reap."""
    pidfd = os.pidfd_open(pid)
    try:
        return wire.identity_fields(pid, pidfd)
    finally:
        os.close(pidfd)


def grow(fifo: int) -> int:
    """Make the FIFO as large as we may.  Returns its size."""
    try:
        fcntl.fcntl(fifo, fcntl.F_SETPIPE_SZ, FIFO_WISH_BYTES)
    except OSError:
        pass
    return fcntl.fcntl(fifo, fcntl.F_GETPIPE_SZ)


def _fork_into(path: str) -> tuple[int, bool]:
    """The child's pid (0 in the child), and whether it is in the cgroup.  Raises OSError when no way goes.

    Where a filter refuses clone3(2) altogether, as systemd's RestrictNamespaces= does (it could hide a namespace from
    the filter), the child is moved, while it waits at its gate.
    """
    if not path:
        return os.fork(), False
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return kernel.fork_into(directory), True
        finally:
            os.close(directory)
    except OSError:
        pid = os.fork()
        return pid, pid != 0 and cgroup.admit(path, pid)
