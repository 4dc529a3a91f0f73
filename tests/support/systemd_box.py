"""A real systemd for a test: PID 1 of namespaces of its own, on a copy-on-write root, gone at the end.

    with SystemdBox({directory: "/opt/shop"}) as box:
        box.run("systemctl", "start", "supervisor-d")

It has its own mounts, pids, cgroups and network (loopback alone); nothing of this machine's own systemd, files and
processes is touched.  All of it lives in one cgroup, so that the end is one write to cgroup.kill, whatever happened.

Its root is a copy of this machine's, or of the directory that SUPERVISOR_D_BOX_ROOT names: another Debian, with another
systemd (`make systemd-257`).

Needs root, a writable cgroup2 mount, and Debian's systemd and iproute2: `unavailable()` says what is missing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support import procs
from tests.support.waiting import wait_for

BOOT_SECONDS = 60.0
INIT = Path("/lib/systemd/systemd")
BOX_ROOT = Path(os.environ.get("SUPERVISOR_D_BOX_ROOT") or "/")
TOOLS = ("unshare", "nsenter", "pivot_root", "ip", "setpriv", "mount", "systemd-run")
_SCRIPT = Path(__file__).with_name("systemd_box.sh")


def unavailable() -> str:
    """Why there can be no box here; empty when there can."""
    if os.geteuid() != 0:
        return "only root can make namespaces with a systemd in them"
    init = BOX_ROOT / INIT.relative_to("/")
    if not os.access(init, os.X_OK):
        return f"{init} is not installed"
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        return f"{', '.join(missing)}: not installed"
    mount = _cgroup2()
    if mount is None or not os.access(mount / "cgroup.procs", os.W_OK):
        return "no cgroup2 file system is mounted writable"
    tried = subprocess.run(
        ["unshare", "--mount", "--pid", "--cgroup", "--net", "--fork", "mount", "-t", "tmpfs", "tmpfs", "/mnt"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    return f"namespaces are refused: {tried.stderr.strip()}" if tried.returncode else ""


class SystemdBox:
    """One booted systemd.  `shares` are directories of this machine and where they are in the box, writable."""

    def __init__(self, shares: Mapping[Path, str]) -> None:
        self._shares = shares
        self._scratch = Path(tempfile.mkdtemp(prefix="box-", dir="/var/tmp"))
        mount = _cgroup2()
        assert mount is not None
        self._cgroup = mount / self._scratch.name
        self._launcher: subprocess.Popen[bytes] | None = None
        self.leader = 0
        """Its PID 1, as this machine counts."""

    def __enter__(self) -> Self:
        try:
            self._boot()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is not None:
            with suppress(subprocess.SubprocessError, OSError):
                print(self.journal()[-12000:])
        self.stop()

    def _boot(self) -> None:
        for part in ("box/exec", "launcher"):
            (self._cgroup / part).mkdir(parents=True)
        shares = [f"{ours}={theirs}" for ours, theirs in self._shares.items()]
        namespaces = ["--mount", "--pid", "--uts", "--ipc", "--cgroup", "--net", "--fork", "--kill-child"]
        # The launcher joins box/ before it unshares: that is what the new cgroup namespace takes for its root.
        join = f'echo $$ >"{self._cgroup}/box/cgroup.procs" && exec "$@"'
        script = ["bash", str(_SCRIPT), str(self._scratch), str(BOX_ROOT), *shares]
        argv = ["sh", "-c", join, "sh", "unshare", *namespaces, *script]
        with (self._scratch.parent / f"{self._scratch.name}.log").open("wb") as log:
            self._launcher = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        launcher = self._launcher
        (self.leader,) = wait_for(lambda: procs.children(launcher.pid), BOOT_SECONDS, "the box's PID 1")[:1]
        (self._cgroup / "launcher" / "cgroup.procs").write_text(str(launcher.pid))
        wait_for(self._is_up, BOOT_SECONDS, "systemd to have booted")

    def _is_up(self) -> bool:
        launcher = self._launcher
        assert launcher is not None
        assert launcher.poll() is None, f"the box ended: {self._log().read_text(errors='replace')[-3000:]}"
        if not procs.command_line(self.leader).startswith(str(INIT)):
            return False
        done = self._nsenter("systemctl", "is-active", "box.target", timeout=20)
        return str(done.stdout).strip() == "active"

    def _log(self) -> Path:
        return self._scratch.parent / f"{self._scratch.name}.log"

    def stop(self) -> None:
        """End it, whatever runs in it, and prove that nothing is left."""
        if self._cgroup.exists():
            (self._cgroup / "cgroup.kill").write_text("1")
            events = self._cgroup / "cgroup.events"
            wait_for(lambda: "populated 0" in events.read_text(), 20, "the box's processes to be gone")
            wait_for(self._remove_cgroups, 20, "the box's cgroups to be gone")
        if self._launcher is not None:
            self._launcher.wait(20)
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._log().unlink(missing_ok=True)

    def _remove_cgroups(self) -> bool:
        for directory, _, _ in os.walk(self._cgroup, topdown=False):
            with suppress(OSError):
                os.rmdir(directory)
        return not self._cgroup.exists()

    # inside

    def argv(self, *command: str) -> list[str]:
        """A command line that runs `command` inside, in every namespace, and dies with its caller."""
        into = ["nsenter", "-t", str(self.leader), "-m", "-u", "-i", "-n", "-p", "-C"]
        join = f'echo $$ >"{self._cgroup}/box/exec/cgroup.procs" && exec "$@"'
        return ["sh", "-c", join, "sh", *into, "setpriv", "--pdeathsig", "KILL", "--", *command]

    def _nsenter(self, *command: str, timeout: float) -> subprocess.CompletedProcess[str]:
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0"}
        return subprocess.run(
            self.argv(*command), env=env, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=timeout, check=False,
        )  # fmt: skip

    def run(self, *command: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run a command in the box; its exit code and output."""
        return self._nsenter(*command, timeout=timeout)

    def must(self, *command: str, timeout: float = 60.0) -> str:
        """Run a command in the box, which must succeed; what it printed."""
        done = self.run(*command, timeout=timeout)
        assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout

    def begin(self, *command: str, **popen: Any) -> subprocess.Popen[bytes]:
        """Start a command in the box and wait for nothing."""
        return subprocess.Popen(self.argv(*command), cwd="/", **popen)

    def property(self, unit: str, name: str) -> str:
        """One property of a unit."""
        return self.must("systemctl", "show", "-p", name, "--value", unit).strip()

    def journal(self, unit: str = "") -> str:
        """The journal, of one unit if named."""
        return self.run("journalctl", "--no-pager", "-b", *(["-u", unit] if unit else [])).stdout

    def cgroup(self, path: str) -> Path:
        """A cgroup of the box, as this machine sees it."""
        return self._cgroup / "box" / path.lstrip("/")

    def outside(self, pid: int) -> int:
        """The pid of this machine for a pid of the box; 0 when there is no such process."""
        for directory, _, _ in os.walk(self._cgroup / "box"):
            for found in (Path(directory) / "cgroup.procs").read_text().split():
                if inside(int(found)) == pid:
                    return int(found)
        return 0

    def members(self, path: str) -> dict[int, str]:
        """The live processes of a cgroup and those below it: pid in the box -> command line."""
        found: dict[int, str] = {}
        for directory, _, _ in os.walk(self.cgroup(path)):
            with suppress(OSError):
                for pid in map(int, (Path(directory) / "cgroup.procs").read_text().split()):
                    if procs.alive(pid):
                        found[inside(pid)] = procs.command_line(pid)
        return found


def inside(pid: int) -> int:
    """The pid that a process has in its innermost namespace; 0 when it is gone."""
    with suppress(OSError, KeyError):
        return int(procs.status(pid)["NSpid"].split()[-1])
    return 0


def _cgroup2() -> Path | None:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[fields.index("-") + 1] == "cgroup2":
            return Path(fields[4])
    return None
