"""A plain user for tests that root runs: `nobody`, who must be able to read this interpreter and this tree."""

from __future__ import annotations

import os
import pwd
import shlex
import subprocess
import sys
from pathlib import Path

from tests.support.daemon import ROOT

NAME = "nobody"
_BECOME = ["setpriv", f"--reuid={NAME}", "--regid=nogroup", "--clear-groups", "--"]


def uid() -> int:
    """The plain user's uid."""
    return pwd.getpwnam(NAME).pw_uid


def becoming(scratch: Path) -> list[str]:
    """A command that execs another as the plain user; empty when none can be had.

    Where a directory of root's home bars the way (pyenv), the parts that are needed are mounted in its place, for this
    one process: a mount namespace, no copy.  `scratch` is an empty directory that everybody can enter.
    """
    if _works(_BECOME):
        return _BECOME
    home = Path("/root")
    needed = {Path(part).relative_to(home).parts[0] for part in _own_paths() if Path(part).is_relative_to(home)}
    lines = ["set -e"]
    for name in sorted(needed):
        place = shlex.quote(str(scratch / name))
        lines += [f"mkdir -p {place}", f"mount --bind {shlex.quote(str(home / name))} {place}"]
    lines += [f"mount --rbind {shlex.quote(str(scratch))} {home}", 'exec "$@"']
    namespace = ["unshare", "--mount", "--propagation", "private", "sh", "-c", "\n".join(lines), "sh", *_BECOME]
    return namespace if _works(namespace) else []


def _own_paths() -> set[str]:
    return {os.path.realpath(sys.executable), sys.base_prefix, sys.prefix, str(ROOT)}


def _works(prefix: list[str]) -> bool:
    # The interpreter must also find itself again: the daemon starts its zygote with it.
    script = "import msgspec, subprocess, supervisor_d, sys; subprocess.run([sys.executable, '-c', ''], check=True)"
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    argv = [*prefix, sys.executable, "-c", script]
    return subprocess.run(argv, env=env, cwd="/", capture_output=True, check=False, timeout=30).returncode == 0
