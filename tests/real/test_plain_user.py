"""A daemon of a plain user: all of it works, and what only root may do is refused with the way out."""

from __future__ import annotations

import os
import pwd
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import procs
from tests.support.daemon import ROOT, Daemon

WHY = "runs a daemon as `nobody`, which only root can"
pytestmark = [
    pytest.mark.real,
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason=WHY),
    pytest.mark.skip_allowed(WHY),
]
SLEEPER = {"program": "command", "command": ["sleep", "600"]}
AS_NOBODY = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--"]


def _prefix(scratch: Path) -> list[str]:
    """A command that execs another as nobody, who must be able to read this interpreter and this tree.

    Where a directory of root's home bars the way (pyenv), the parts that are needed are mounted in its place, for this
    one process: a mount namespace, no copy.
    """
    if _works(AS_NOBODY):
        return AS_NOBODY
    home = Path("/root")
    needed = {Path(part).relative_to(home).parts[0] for part in _own_paths() if Path(part).is_relative_to(home)}
    lines = ["set -e"]
    for name in sorted(needed):
        place = shlex.quote(str(scratch / name))
        lines += [f"mkdir -p {place}", f"mount --bind {shlex.quote(str(home / name))} {place}"]
    lines += [f"mount --rbind {shlex.quote(str(scratch))} {home}", 'exec "$@"']
    namespace = ["unshare", "--mount", "--propagation", "private", "sh", "-c", "\n".join(lines), "sh", *AS_NOBODY]
    if _works(namespace):
        return namespace
    pytest.skip("nobody cannot read this Python, and no mount namespace can be had")


def _own_paths() -> set[str]:
    return {os.path.realpath(sys.executable), sys.base_prefix, sys.prefix, str(ROOT)}


def _works(prefix: list[str]) -> bool:
    # The interpreter must also find itself again: the daemon starts its zygote with it.
    script = "import msgspec, subprocess, supervisor_d, sys; subprocess.run([sys.executable, '-c', ''], check=True)"
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    argv = [*prefix, sys.executable, "-c", script]
    return subprocess.run(argv, env=env, cwd="/", capture_output=True, check=False, timeout=30).returncode == 0


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    scratch = tmp_path_factory.mktemp("home")
    for directory in (scratch, *scratch.parents):
        if directory.owner() == "root" and directory.is_relative_to("/tmp") and directory != Path("/tmp"):
            directory.chmod(directory.stat().st_mode | 0o055)
    nobody = pwd.getpwnam("nobody")
    settings = {"allow_root": False}
    daemon = Daemon({"one": SLEEPER}, prefix=_prefix(scratch), owner=nobody.pw_uid, settings=settings)
    with daemon:
        yield daemon


def test_it_runs_and_restarts_its_pools_as_itself(daemon: Daemon) -> None:
    daemon.wait_running("one")
    nobody = str(pwd.getpwnam("nobody").pw_uid)
    for pid in (daemon.pid, daemon.pid_of("one"), daemon.shim_of(daemon.pid_of("one"))):
        assert procs.status(pid)["Uid"].split() == [nobody] * 4
    daemon.must("scale", "one=2")
    assert len(daemon.pids("one")) == 2
    daemon.must("scale", "one=config")


def test_another_user_is_refused_with_the_way_out_and_nothing_changes(daemon: Daemon) -> None:
    daemon.wait_running("one")
    before = daemon.all_pids()
    text = daemon.config.read_text()
    try:
        daemon.configure({"one": SLEEPER, "other": {**SLEEPER, "user": "daemon"}})
        done = daemon.reload()
    finally:
        daemon.write(text)
    assert done.returncode in (73, 78)
    assert "daemon" in done.stderr
    assert "root" in done.stderr
    assert daemon.all_pids() == before


def test_it_outlives_nothing_but_its_processes_do(daemon: Daemon) -> None:
    daemon.wait_running("one")
    before = daemon.all_pids()
    daemon.kill()
    daemon.start()
    assert daemon.all_pids() == before
