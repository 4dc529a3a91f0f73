"""A systemd scope for our processes: beside the daemon's service, not inside it.

Theory of operation.  What systemd does to a service it does to its cgroup.  Processes that live in the service's die
with it, or, with KillMode=process, are left behind by `systemctl stop`.  So the zygote is put into a scope of its own
(`supervisor-d-processes.scope` for supervisor-d.service), and what it forks, every shim and every program, is born
there: once per daemon, nothing is paid when a process is started.

    daemon dies, hangs, is killed    systemd ends what is left in the service's cgroup: nothing but the daemon
    the next daemon                  finds the scope populated and moves its own zygote in, by cgroup.procs
    systemctl stop                   PartOf= stops the scope too, Before= only after the service: the daemon ends
                                     everything in its own order, and the scope is a net for what then is left,
                                     also where the daemon was dead already
    nothing lives in it              the scope is gone by itself; the next zygote makes it again

The scope is made by systemd-run(1), which becomes the zygote: same pid, same descriptors.  Making one needs root.  The
unit file says that it wants this by Environment=SUPERVISOR_D_UNIT=%n; without it, or where it is refused, processes
stay in the daemon's own cgroup.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from supervisor_d.runtime.cgroups import own_cgroup, populated

UNIT_ENV = "SUPERVISOR_D_UNIT"
STOP_SECONDS = 30
"""What systemd gives to those whom the daemon did not end, between TERM and KILL."""
MAKE_SECONDS = 10.0
_LOOK_SECONDS = 0.002
_SUFFIX = ".service"


@dataclass(frozen=True, slots=True)
class Scope:
    """The scope of the service `unit`; `cgroup` is its directory while it exists."""

    unit: str
    name: str
    slice: str
    cgroup: Path

    @classmethod
    def take(cls, environ: MutableMapping[str, str]) -> Scope | None:
        """The scope that the unit file asks for, or None.  The variable leaves the environment."""
        unit = environ.pop(UNIT_ENV, "")
        own = own_cgroup()
        if not unit.endswith(_SUFFIX) or own is None or own.name != unit or os.geteuid() != 0:
            return None
        name = scope_name(unit)
        parent = own.parent.name
        return cls(unit, name, parent if parent.endswith(".slice") else "-.slice", own.parent / name)

    @property
    def environ(self) -> dict[str, str]:
        """What `take` took, for the daemon that this process becomes by an upgrade."""
        return {UNIT_ENV: self.unit}

    def lives(self) -> bool:
        """Whether it exists, with a process in it that keeps it."""
        return populated(str(self.cgroup))

    def admit(self, pid: int) -> None:
        """Move a process into the scope that lives.  Raises OSError."""
        (self.cgroup / "cgroup.procs").write_text(str(pid), encoding="ascii")

    def making(self, command: Sequence[str]) -> tuple[str, ...]:
        """A command that makes the scope, and becomes `command` inside of it."""
        settings = (
            "Delegate=yes",
            f"PartOf={self.unit}",
            f"Before={self.unit}",
            f"TimeoutStopSec={STOP_SECONDS}s",
            "TasksMax=infinity",
        )
        return (
            shutil.which("systemd-run", path="/usr/bin:/bin") or "systemd-run",
            "--scope", "--quiet", "--collect", "--no-ask-password",
            f"--unit={self.name}", f"--slice={self.slice}", f"--description=Processes of {self.unit}",
            *(word for setting in settings for word in ("--property", setting)),
            "--", *command,
        )  # fmt: skip

    def await_admission(self, child: subprocess.Popen[bytes], seconds: float = MAKE_SECONDS) -> bool:
        """Whether a child that runs `making` got into the scope; False when it was refused and ended."""
        deadline = time.monotonic() + seconds
        mine = f"/{self.name}"
        while time.monotonic() < deadline and child.poll() is None:
            with suppress(OSError):
                if _cgroup_of(child.pid).endswith(mine):
                    return True
            time.sleep(_LOOK_SECONDS)
        return False


def scope_name(unit: str) -> str:
    """The scope's name: `shop@eu.service` has `shop-eu-processes.scope`."""
    return f"{unit.removesuffix(_SUFFIX).replace('@', '-')}-processes.scope"


def _cgroup_of(pid: int) -> str:
    lines = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines()
    return next((line[3:] for line in lines if line.startswith("0::")), "")
