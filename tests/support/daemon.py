"""A real daemon for a test: started from a config in a directory of its own, watched from outside, gone at the end.

    with Daemon({"tick": {"program": "command", "command": ["sleep", "60"]}}) as daemon:
        daemon.wait_pool("tick", "running")
        os.kill(daemon.pids("tick")["tick.0"], signal.SIGKILL)

Everything that the daemon starts carries a mark (tests/support/marker.py).  When the block ends, the daemon is stopped
and nothing with the mark may be left, or the test fails.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import yaml

from supervisor_d.api.client import Client
from supervisor_d.api.wire import MAX_LINES
from supervisor_d.core.snapshot import Entry, PoolView, ProcessView, Snapshot
from supervisor_d.errors import SupervisorError
from supervisor_d.shim.wire import STORE
from tests.support import procs
from tests.support.marker import new_marker
from tests.support.waiting import wait_for

START_SECONDS = 20.0
POOL_SECONDS = 30.0
STOP_SECONDS = 30.0
LEFT_SECONDS = 2.0
"""How long the zygote, which ends when its daemon does, may take to be gone on a machine that does much else."""
TAIL_BYTES = 6000
ROOT = Path(__file__).resolve().parents[2]

Pools = Mapping[str, Mapping[str, Any]]


class Daemon:
    """One runtime directory, and the daemons that rule it one after the other."""

    def __init__(
        self,
        pools: Pools | None = None,
        *,
        settings: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        owner: int | None = None,
        python: str = sys.executable,
    ) -> None:
        """`settings` stand under `daemon:` of the config; `prefix` is a command that execs the daemon's."""
        # Not pytest's tmp_path: the path of a unix socket has 107 bytes at most.
        self.directory = Path(tempfile.mkdtemp(prefix="sd-", dir="/tmp"))
        self.directory.chmod(0o755)
        self.config = self.directory / "supervisor-d.yaml"
        self.socket = self.directory / "run" / "control" / "control.sock"
        self.log_dir = self.directory / "log"
        self.work = self.directory / "work"
        self.work.mkdir()
        self.work.chmod(0o1777)
        if owner is not None:
            os.chown(self.directory, owner, -1)
        self._settings = {"allow_root": True, **(settings or {})}
        self.env = dict(env or {})
        self.prefix = list(prefix)
        self._python = python
        self.marker = new_marker(self.directory)
        self.process: subprocess.Popen[bytes] | None = None
        self.popen: dict[str, Any] = {}
        """How else the daemon is started, in subprocess's words."""
        self.configure(pools or {})

    # the config

    def configure(self, pools: Pools, **settings: Any) -> None:
        """Write the config file; a running daemon reads it when it is told to reload."""
        self._settings.update(settings)
        own = {name: str(self.directory / name.partition("_")[0]) for name in ("state_dir", "log_dir")}
        daemon = {"runtime_dir": str(self.directory / "run"), **own, **self._settings}
        self.write(yaml.safe_dump({"version": 1, "daemon": daemon, "pools": dict(pools)}, sort_keys=False))

    def write(self, text: str) -> None:
        """Write the config file as it is."""
        self.config.write_text(text)

    # the daemon itself

    def __enter__(self) -> Self:
        try:
            if self.process is None:
                self.start()
        except BaseException:
            self.clear()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is not None:
            print(self.story())
            self.clear()
            return
        self.close()

    @contextmanager
    def idle(self) -> Iterator[Self]:
        """A block in which the test itself starts what it wants; it ends as the other does."""
        try:
            yield self
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        self.close()

    def command(self) -> list[str]:
        """What runs the daemon in the foreground."""
        return [self._python, "-m", "supervisor_d", "run", "-c", str(self.config)]

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start a daemon and wait for nothing."""
        argv = [*self.prefix, *self.command()]
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        env = {**inherited, "PYTHONPATH": str(ROOT), "PYTHONFAULTHANDLER": "1", **self.env}
        with self._out("out").open("ab") as out, self._out("err").open("ab") as err:
            options: dict[str, Any] = {
                "stdin": subprocess.DEVNULL,
                "stdout": out,
                "stderr": err,
                "start_new_session": True,
                "cwd": self.directory,
                "env": env,
            }
            self.process = subprocess.Popen(self.marker.entering(argv), **{**options, **self.popen})
        return self.process

    def start(self) -> None:
        """Start a daemon and wait until it answers."""
        self.spawn()
        wait_for(self._answers, START_SECONDS, "the daemon's control socket")
        try:
            Client(str(self.socket)).get("/v1/events", (("lines", "0"),))
        except SupervisorError:
            code = self.running.wait(START_SECONDS)
            raise AssertionError(f"the daemon ended with {code} instead of starting\n{self.story()}") from None

    def _answers(self) -> bool:
        """Whether the control socket is open: who connects is answered once the daemon is ready."""
        if (code := self.running.poll()) is not None:
            raise AssertionError(f"the daemon ended with {code} instead of starting\n{self.story()}")
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.socket))
            except OSError:
                return False
        return True

    def _out(self, name: str) -> Path:
        return self.directory / f"daemon.{name}"

    @property
    def running(self) -> subprocess.Popen[bytes]:
        """The daemon started last."""
        assert self.process is not None, "no daemon was started"
        return self.process

    @property
    def pid(self) -> int:
        """The daemon's own pid, as it says itself: `prefix` may stand between."""
        return self.status().daemon.pid

    @property
    def stderr(self) -> str:
        return self._out("err").read_text(errors="replace")

    @property
    def stdout(self) -> str:
        return self._out("out").read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the daemon."""
        self.running.send_signal(number)

    def wait_end(self, seconds: float = STOP_SECONDS) -> int:
        """The daemon's exit code, once it has ended."""
        return self.running.wait(seconds)

    def stop(self, seconds: float = STOP_SECONDS) -> int:
        """Ask the daemon to end with all its processes; its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait_end(seconds)

    def kill(self) -> None:
        """SIGKILL the daemon alone, and wait for its end: its processes live on."""
        self.running.kill()
        self.wait_end()

    # the end

    def left(self) -> list[str]:
        """What still lives of all that was ever started here."""
        return [procs.describe(pid) for pid in sorted(self.marker.members())]

    def assert_nothing_left(self) -> None:
        """Fail, naming them, when processes are left."""
        deadline = time.monotonic() + LEFT_SECONDS
        while self.marker.members() and time.monotonic() < deadline:
            time.sleep(0.005)
        left = self.left()
        assert not left, "left behind:\n" + "\n".join(left) + "\n" + self.story()

    def close(self) -> None:
        """Stop the daemon if it runs, prove that nothing is left, remove the directory."""
        try:
            if self.process is not None and self.process.poll() is None:
                code = self.stop()
                assert code == 0, f"the daemon ended with {code}\n{self.story()}"
            self.assert_nothing_left()
        finally:
            self.clear()

    def clear(self) -> None:
        """Kill whatever is left, without a word; for the way out of a test that has failed already."""
        try:
            self.marker.clear()
            if self.process is not None:
                self.process.wait(5)
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)

    # what it says

    def cli(self, *args: str, seconds: float = 60.0, **run: Any) -> subprocess.CompletedProcess[str]:
        """Run one of our commands against this daemon."""
        # The socket by name: a test may have written a config that does not say where the daemon is.
        own = {"PYTHONPATH": str(ROOT), "SUPERVISOR_D_SOCKET": str(self.socket)}
        env = {**os.environ, **own, **self.env, **run.pop("env", {})}
        command, *rest = args
        argv = [self._python, "-m", "supervisor_d", command, "-c", str(self.config), *rest]
        return subprocess.run(
            argv, capture_output=True, text=True, timeout=seconds, env=env, check=False, cwd=self.directory, **run
        )

    def cli_begin(self, *args: str, err: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        """Begin one of our commands against this daemon, and wait for nothing; what it says is not kept, but for
        `err`."""
        env = {**os.environ, "PYTHONPATH": str(ROOT), "SUPERVISOR_D_SOCKET": str(self.socket), **self.env}
        argv = [self._python, "-m", "supervisor_d", *args]
        null = subprocess.DEVNULL
        return subprocess.Popen(argv, stdin=null, stdout=null, stderr=err, env=env, cwd=self.directory)

    def must(self, *args: str, seconds: float = 60.0) -> str:
        """Run one of our commands, which must succeed; what it printed."""
        done = self.cli(*args, seconds=seconds)
        assert done.returncode == 0, f"{' '.join(args)} ended with {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout

    def reload(self, seconds: float = 60.0) -> subprocess.CompletedProcess[str]:
        """`supervisor-d reload`, awaited."""
        return self.cli("reload", seconds=seconds)

    def status(self) -> Snapshot:
        """The daemon's picture of this instant."""
        return msgspec.json.decode(Client(str(self.socket)).get("/v1/status"), type=Snapshot)

    def pool(self, name: str) -> PoolView:
        """One pool of the picture."""
        found = [pool for pool in self.status().pools if pool.name == name]
        assert found, f"there is no pool {name!r}"
        return found[0]

    def live(self, name: str) -> list[ProcessView]:
        """The pool's processes whose main process runs, by slot and age."""
        found = [process for process in self.pool(name).processes if process.pid and process.state != "exited"]
        return sorted(found, key=lambda process: (process.slot, process.generation, process.id))

    def pids(self, name: str) -> dict[str, int]:
        """Main pids of the pool's live processes, by process id."""
        return {process.id: process.pid for process in self.live(name) if process.pid}

    def wait_pids(self, name: str, count: int, seconds: float = POOL_SECONDS) -> dict[str, int]:
        """`pids`, once there are so many: an operation is over while what it retired may still drain."""
        found = wait_for(lambda: len(self.pids(name)) == count and self.pids(name), seconds, f"{count} of {name}")
        assert found
        return found

    def pid_of(self, name: str) -> int:
        """The main pid of a pool that has one process."""
        (pid,) = self.pids(name).values()
        return pid

    def all_pids(self) -> dict[str, int]:
        """Main pids of all live processes, by process id."""
        return {
            process.id: process.pid
            for pool in self.status().pools
            for process in pool.processes
            if process.pid and process.state != "exited"
        }

    def shim_of(self, pid: int) -> int:
        """The pid of the shim that keeps a main process."""
        shim = self.find_shim(pid)
        assert shim is not None, f"pid {pid} has no record"
        return shim

    def find_shim(self, pid: int) -> int | None:
        """The same by its record, since one in adopt mode is not its parent; None once the process is forgotten."""
        processes = self.socket.parents[1] / "processes"
        for record in os.listdir(processes):
            try:
                lines = (processes / record / "events.jsonl").read_bytes().splitlines()
            except FileNotFoundError:
                continue
            facts = [msgspec.json.decode(line) for line in lines if line.endswith(b"}")]
            pids = {fact["event"]: fact["process"][0] for fact in facts if "process" in fact}
            if pids.get("forked") == pid:
                return int(pids.get("replaced", pids["began"]))
        return None

    def find_store(self) -> int | None:
        """The pid of the process that keeps the listening sockets beside the daemon; None where there is none."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
            try:
                asking.connect(str(self.socket.parents[1] / STORE))
            except OSError:
                return None
            pid, _, _ = struct.unpack("3i", asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            return int(pid)

    def store_pid(self) -> int:
        """The same, of one that is there."""
        found = wait_for(self.find_store, 5, "the store of sockets")
        assert found is not None
        return found

    def wait_pool(self, name: str, state: str, seconds: float = POOL_SECONDS) -> PoolView:
        """The pool, once its state is `state` (`running` also asks that every wanted worker is ready)."""
        seen: list[PoolView] = []

        def reached() -> PoolView | None:
            with suppress(SupervisorError, OSError):
                seen[:] = [self.pool(name)]
            if not seen or seen[0].state != state:
                return None
            full = state != "running" or seen[0].workers_ready >= seen[0].workers_desired
            return seen[0] if full else None

        try:
            found = wait_for(reached, seconds, f"pool {name} to be {state}")
        except AssertionError as error:
            last = f"{seen[0].state}: {seen[0].detail}" if seen else "no answer"
            raise AssertionError(f"{error}\nlast seen: {last}\n{self.story()}") from None
        assert found is not None
        return found

    def wait_running(self, *names: str, seconds: float = POOL_SECONDS) -> None:
        """Wait until all these pools run."""
        for name in names:
            self.wait_pool(name, "running", seconds)

    def events(self, *, after: int = 0, pool: str = "") -> list[Entry]:
        """The journal, oldest first."""
        query = [("after", str(after)), ("lines", str(MAX_LINES)), *([("pool", pool)] if pool else [])]
        lines = Client(str(self.socket)).get("/v1/events", query).splitlines()
        return [msgspec.json.decode(line, type=Entry) for line in lines]

    def last_serial(self) -> int:
        """The serial of the newest entry: what comes after it is news."""
        entries = self.events()
        return entries[-1].serial if entries else 0

    def wait_event(self, name: str, *, after: int = 0, pool: str = "", text: str = "", seconds: float = 20.0) -> Entry:
        """The first entry with that name, and `text` in its reason, behind the serial `after`."""

        def happened() -> Entry | None:
            found = [e for e in self.events(after=after, pool=pool) if e.name == name and text in e.reason]
            return found[0] if found else None

        try:
            found = wait_for(happened, seconds, f"an event {name} {text!r} of {pool or 'any pool'}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.story()}") from None
        assert found is not None
        return found

    def log(self, name: str) -> str:
        """The current log of a slot (`web.0`)."""
        path = self.log_dir / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def story(self) -> str:
        """All that helps to understand a failure: the daemon's output and its workers' last words."""
        paths = [self.config, self._out("out"), self._out("err"), *sorted(self.log_dir.glob("*.log"))]
        journal = sorted(
            Path(path, "history.jsonl") for path, _, _ in os.walk(self.directory) if path.endswith("/state")
        )
        return "\n".join(f"----- {path.name}\n{_tail(path)}" for path in [*paths, *journal] if path.exists())


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        return file.read().decode(errors="replace")
