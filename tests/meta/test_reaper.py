"""The reaper finds what escaped, and lets a clean command through."""

from __future__ import annotations

import signal
import subprocess
import sys

import psutil
import pytest

ESCAPE = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        time.sleep(60)
    os._exit(0)
os.wait()
"""


def run_reaped(program: str, grace: str = "0.2") -> subprocess.CompletedProcess[str]:
    launcher = "import sys; from tests.support import reaper; reaper.GRACE_SECONDS = float(sys.argv[1]); "
    launcher += "sys.exit(reaper.main(sys.argv[2:]))"
    argv = [sys.executable, "-c", launcher, grace, sys.executable, "-c", program]
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)


def test_an_escaped_process_is_named_killed_and_fails_the_run() -> None:
    done = run_reaped(ESCAPE)
    assert done.returncode == 1
    assert "left behind: pid" in done.stderr
    pid = int(done.stderr.split("pid ")[1].split(",")[0])
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_process_that_is_just_ending_is_given_its_grace() -> None:
    done = run_reaped(ESCAPE.replace("time.sleep(60)", "time.sleep(0.3)"), grace="10")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("program", "code"), [("", 0), ("raise SystemExit(7)", 7), ("import os; os.abort()", 134)])
def test_the_commands_own_exit_code_is_passed_on(program: str, code: int) -> None:
    assert run_reaped(program).returncode == code


SPAWN = "import os, sys; os.waitpid(os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ), 0)"
SHOW_IGNORED = "print(next(line for line in open('/proc/self/status') if line.startswith('SigIgn')))"


def test_the_command_begins_with_clean_signals_though_posix_spawn_started_us() -> None:
    reaper = [sys.executable, "-m", "tests.support.reaper", sys.executable, "-c", SHOW_IGNORED]
    argv = [sys.executable, "-c", SPAWN, *reaper]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True)
    pythons_own = {signal.SIGPIPE, signal.SIGXFSZ}
    mask = int(done.stdout.split()[1], 16)
    assert {number for number in range(1, 65) if mask >> number - 1 & 1} == pythons_own
