"""What the tests under systemd have in common: where things are in the box, and a service in it."""

from __future__ import annotations

import compileall
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import yaml

from supervisor_d.api.client import Client
from supervisor_d.cli import units
from supervisor_d.core.snapshot import Snapshot
from supervisor_d.errors import SupervisorError
from tests.support import procs
from tests.support.systemd_box import SystemdBox, inside
from tests.support.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
OPT, NEXT, PACKAGES, PYTHON, SHOP = "/opt/supervisor-d", "/opt/next", "/opt/packages", "/opt/python", "/srv/shop"
HANG_SIGNAL = "USR2"
"""Makes the installed daemon's loop hang: only these copies know it."""
UNITS = "/etc/systemd/system"
POOL_SECONDS = 40.0

_OWN = ("-m supervisor_d ", "/supervisor_d/shim/zygote.py", "/bin/echo rehearsal")
"""In the command lines of the daemon, of its commands, of the zygote and the shims, and of the zygote's rehearsal."""
_HANG = """

def _hang(*_: object) -> None:
    while True:
        pass


signal.signal(signal.SIGUSR2, _hang)
"""


def install(directory: Path, version: str) -> Path:
    """A virtual environment as it is in the box: the package in a version, everything else out of PACKAGES."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = directory / "lib" / name / "site-packages"
    site.mkdir(parents=True)
    binaries = directory / "bin"
    binaries.mkdir()
    (binaries / "python").symlink_to(f"{PYTHON}/bin/{name}")
    (directory / "pyvenv.cfg").write_text(f"home = {PYTHON}/bin\ninclude-system-site-packages = false\n")
    (site / "packages.pth").write_text(f"{PACKAGES}\n")
    package = site / "supervisor_d"
    shutil.copytree(ROOT / "supervisor_d", package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "__init__.py").write_text(f'__version__ = "{version}"\n')
    _edit(package / "runtime" / "scopes.py", "STOP_SECONDS = 30", "STOP_SECONDS = 3")
    _edit(package / "sweep.py", "TERM_SECONDS = 10.0", "TERM_SECONDS = 1.0")
    signals = package / "runtime" / "signals.py"
    signals.write_text(signals.read_text() + _HANG)
    compileall.compile_dir(package, quiet=2)  # as pip does: under the unit nothing can be written there
    return directory


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, f"{path.name} does not say {old!r}"
    path.write_text(text.replace(old, new))


class Machine:
    """The box, and the directory of its shop as both sides know it."""

    def __init__(self, box: SystemdBox, shop: Path) -> None:
        self.box = box
        self.shop = shop


class Service:
    """One of our services in the box: its unit, its config, its daemon.

    Files lie in `directory` (`inner` in the box), and `work` below it is writable for everybody.
    """

    def __init__(self, machine: Machine, name: str, *, user: str = "", python: str = f"{OPT}/bin/python") -> None:
        self.box = machine.box
        self.name = name
        self.unit = f"{name}.service"
        self.scope = f"{name}-processes.scope"
        self.directory = machine.shop / name
        self.inner = f"{SHOP}/{name}"
        self.config = f"{self.inner}/supervisor-d.yaml"
        self.python = python
        self._user = user
        self.in_scope = not user
        self.directory.mkdir()
        self.directory.chmod(0o755)
        (self.directory / "work").mkdir()
        (self.directory / "work").chmod(0o777)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is not None:
            print(self.box.run("systemctl", "status", "--no-pager", "-n", "0", self.unit).stdout)
            print(self.box.journal(self.unit)[-8000:])
            logs = f"/var/log/{self.name}/*.log /var/lib/{self.name}/log/*.log"
            print(self.box.run("sh", "-c", f"tail -n 25 {logs} 2>/dev/null").stdout)
        with suppress(subprocess.TimeoutExpired):
            self.box.run("systemctl", "stop", f"{self.name}.socket", self.unit, timeout=60)
        self.box.run("systemctl", "kill", "-s", "KILL", self.scope)
        self.box.run("systemctl", "reset-failed")

    # set-up

    def configure(self, pools: Mapping[str, Any], **daemon: Any) -> None:
        """Write the config file."""
        plain = {"log_dir": f"/var/log/{self.name}"} if not self._user else {}
        own = {"runtime_dir": f"/run/{self.name}", "state_dir": f"/var/lib/{self.name}", **plain}
        text = yaml.safe_dump({"version": 1, "daemon": {**own, **daemon}, "pools": dict(pools)}, sort_keys=False)
        (self.directory / "supervisor-d.yaml").write_text(text)

    def install(self, *options: str, drop_in: str = "") -> None:
        """Write the units with our own command, as an operator would."""
        user = ("--user", self._user) if self._user else ()
        written = ("--writable", f"{self.inner}/work", "--write", UNITS, "--name", self.name)
        self.ours("install-unit", *written, *user, *options)
        self._installed(drop_in)

    def write_units(self, drop_in: str = "") -> None:
        """Write the same units from here, which takes a second less."""
        log_dir = f"/var/lib/{self.name}/log" if self._user else f"/var/log/{self.name}"
        facts = units.UnitFacts(
            self.python, self.config, f"/run/{self.name}", f"/var/lib/{self.name}", log_dir,
            user=self._user, writable=(f"{self.inner}/work",),
        )  # fmt: skip
        self._write(self.unit, units.service(facts))
        if self._user:
            self._write(f"{self.name}-sweep.service", units.sweeper(facts, self.name))
        self._installed(drop_in)

    def _installed(self, drop_in: str) -> None:
        if drop_in:
            self._write(f"{self.unit}.d/test.conf", drop_in)
        self.box.must("systemctl", "daemon-reload")

    def _write(self, name: str, text: str) -> None:
        path = Path(f"/proc/{self.box.leader}/root{UNITS}/{name}")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    # commands

    def ours(self, *command: str, timeout: float = 60.0) -> str:
        """One of our commands, which must succeed; what it printed."""
        return self.box.must(self.python, "-I", "-m", "supervisor_d", *command, "-c", self.config, timeout=timeout)

    def systemctl(self, verb: str, *more: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        return self.box.run("systemctl", verb, *more, self.unit, timeout=timeout)

    def must(self, verb: str, *more: str, timeout: float = 60.0) -> None:
        """A systemctl verb on the unit, which must succeed."""
        done = self.systemctl(verb, *more, timeout=timeout)
        assert done.returncode == 0, (
            f"systemctl {verb}: {done.stdout}{done.stderr}\n{self.box.journal(self.unit)[-4000:]}"
        )

    def status(self) -> Snapshot:
        """The daemon's own picture, over its control socket in the box."""
        root = f"/proc/{self.box.leader}/root"
        client = Client(f"{root}/run/{self.name}/control/control.sock")
        return msgspec.json.decode(client.get("/v1/status"), type=Snapshot)

    def shown(self, name: str) -> str:
        return self.box.property(self.unit, name)

    @property
    def main(self) -> int:
        """The daemon's pid in the box; 0 when there is none."""
        return int(self.shown("MainPID"))

    # what is there

    def wait_running(self, *pools: str, seconds: float = POOL_SECONDS) -> None:
        """Wait until these pools run."""

        def reached() -> bool:
            with suppress(SupervisorError):
                states = {
                    pool.name: (pool.state, pool.workers_ready >= pool.workers_desired) for pool in self.status().pools
                }
                return all(states.get(name) in (("running", True), ("done", False), ("done", True)) for name in pools)
            return False

        wait_for(reached, seconds, f"{', '.join(pools)} to run")

    def pids(self) -> dict[str, int]:
        """Main pids in the box of all live processes."""
        pools = self.status().pools
        return {p.id: p.pid for pool in pools for p in pool.processes if p.pid and p.state != "exited"}

    def shim_of(self, process_id: str) -> int:
        """The shim of a process, by its record."""
        root = f"/proc/{self.box.leader}/root"
        lines = Path(f"{root}/run/{self.name}/processes/{process_id}/events.jsonl").read_text().splitlines()
        facts = [json.loads(line) for line in lines]
        return int([fact["process"][0] for fact in facts if fact["event"] in ("began", "replaced")][-1])

    def all_pids(self) -> dict[int, str]:
        """Every process of the service but the daemon and its zygote, wherever it lives."""
        found = {**self.box.members(f"system.slice/{self.unit}"), **self.box.members(f"system.slice/{self.scope}")}
        return {pid: line for pid, line in found.items() if line and not any(own in line for own in _OWN)}

    def left(self) -> dict[int, str]:
        """Whatever is left of the service, in its cgroups or by its directory."""
        found = {**self.box.members(f"system.slice/{self.unit}"), **self.box.members(f"system.slice/{self.scope}")}
        for process in procs.everyone():
            line = procs.command_line(process.pid)
            if self.inner in line and "nsenter" not in line:
                found[inside(process.pid)] = line
        return found

    def listening(self, port: int) -> list[str]:
        """The inodes of the sockets that listen on a port in the box."""
        rows = [line.split() for line in self.box.must("cat", "/proc/net/tcp").splitlines()[1:]]
        return [row[9] for row in rows if row[3] == "0A" and row[1].endswith(f":{port:04X}")]

    def wait_nothing_left(self, seconds: float = 10.0) -> None:
        """`systemctl stop` waits for the service; its scope, stopped with it, may take a moment more."""
        wait_for(lambda: not self.left(), seconds, "everything to be gone")

    def kill(self, pid: int, signal_name: str) -> None:
        """Send a signal to a process of the box."""
        self.box.must("kill", "-s", signal_name, str(pid))

    def wait_restarted(self, restarts: int, seconds: float = 20.0) -> None:
        """Wait until systemd has restarted it more than so many times, and it is ready."""
        wait_for(lambda: int(self.shown("NRestarts")) > restarts and self.active() == "active", seconds, "a restart")

    def active(self) -> str:
        return self.shown("ActiveState")


class Hammer:
    """HTTP load on a port of the box."""

    def __init__(self, box: SystemdBox, port: int) -> None:
        argv = ["nsenter", "-t", str(box.leader), "-n", sys.executable, "-m", "tests.support.hammer", str(port)]
        self._process = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def report(self) -> dict[str, Any]:
        """Requests done, failed, and the slowest, since the last report."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        report: dict[str, Any] = json.loads(self._process.stdout.readline())
        return report

    def wait_done(self, count: int) -> None:
        """Wait until so many more were answered."""
        done = 0
        deadline = time.monotonic() + 60
        while done < count:
            assert time.monotonic() < deadline
            report = self.report()
            assert report["failed"] == []
            done += report["done"]
            time.sleep(0.02)
