"""The facts that a program needs, besides its spec, to say what is to be started."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from functools import partial
from importlib.resources import files
from pathlib import Path

from supervisor_d.core.process import Process
from supervisor_d.core.spec import LaunchContext, PoolSpec
from supervisor_d.packages import installed_version

CLEAN_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
AGENTS_DIR = str(files("supervisor_d") / "agents")


def base_env(user: str) -> Mapping[str, str]:
    """What every process gets, whatever the daemon's own environment holds: PATH, LANG and who it is (environ(7)).

    A user that does not exist gets no HOME: the spawn itself then fails with the reason.
    """
    env = {"PATH": CLEAN_PATH, "LANG": "C.UTF-8", "SHELL": "/bin/sh"}
    try:
        entry = _entry(user)
    except KeyError:
        return env
    return {**env, "HOME": entry.pw_dir, "USER": entry.pw_name, "LOGNAME": entry.pw_name}


def _entry(user: str) -> pwd.struct_passwd:
    if not user:
        return pwd.getpwuid(os.geteuid())
    return pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)


class Contexts:
    """Makes the context of each process below one runtime directory."""

    def __init__(self, runtime_dir: Path) -> None:
        self._private = runtime_dir / "private"

    def private_dir(self, process_id: str) -> str:
        """The directory that belongs to the process's user."""
        return str(self._private / process_id)

    def of(self, process: Process, spec: PoolSpec) -> LaunchContext:
        """The context of a process in its slot and generation."""
        return LaunchContext(
            process_id=process.id,
            slot=process.slot,
            generation=process.generation,
            workers=process.workers,
            private_dir=self.private_dir(process.id),
            agents_dir=AGENTS_DIR,
            base_env=base_env(spec.user),
            role=process.role,
            installed=partial(installed_version, spec.python),
        )
