"""A kernel that gives no process and no thread, to daemon, zygote and shims alike: it is told, and waited for.

Everything that the daemon is asked in the meantime it answers, and whatever runs, runs on.
"""

from __future__ import annotations

import errno
import json
import os
import signal

import pytest

from tests.support.daemon import Daemon
from tests.support.refusing import Refusals, unavailable

REASON = "has a filter on its system calls, which only root may without giving up all privileges"
pytestmark = [
    pytest.mark.real,
    pytest.mark.root,
    pytest.mark.skipif(bool(unavailable()), reason=unavailable() or REASON),
    pytest.mark.skip_allowed(REASON),
]

SLEEPER = {
    "program": "command",
    "command": ["sleep", "600"],
    "restart": {"backoff": "50ms", "backoff_max": "500ms", "limit": 1000},
}


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.EAGAIN], ids=["ENOMEM", "EAGAIN"])
def test_neither_process_nor_thread_can_be_had(number: int) -> None:
    daemon = Daemon({"one": SLEEPER, "two": SLEEPER})
    with Refusals() as kernel:
        daemon.prefix = kernel.prefix
        with daemon:
            daemon.wait_running("one", "two")
            pid, two = daemon.pid, daemon.pids("two")
            with kernel.refusing(number):
                os.kill(daemon.pid_of("one"), signal.SIGKILL)
                failed = daemon.wait_event("spawn-failed", pool="one")
                assert os.strerror(number) in failed.reason
                # It backs off: the fourth try has waited for longer than all before it together.
                daemon.wait_event("spawn", pool="one", text="restart 4")
                daemon.kill()
                daemon.start()
                assert daemon.pids("two") == two, "adopted"
                for command in (["status"], ["logs"], ["events"], ["reload"], ["scale", "two=2", "--no-wait"]):
                    daemon.must(*command)
                refused = daemon.cli("upgrade")
                assert refused.returncode == 73
                assert os.strerror(number) in refused.stderr
                asked = kernel.refused
                daemon.wait_event("spawn-failed", pool="two")
            assert asked > 8
            daemon.wait_running("one", "two")
            assert two.items() < daemon.wait_pids("two", 2).items()
            assert daemon.pid != pid
            assert "Traceback" not in daemon.stderr


def test_the_first_start_waits_for_better_times() -> None:
    daemon = Daemon({"one": SLEEPER})
    with Refusals() as kernel:
        daemon.prefix = kernel.prefix
        with kernel.refusing(errno.ENOMEM), daemon.idle():
            daemon.start()
            told = daemon.wait_event("spawn-failed", pool="one")
            assert os.strerror(errno.ENOMEM) in told.reason
            assert json.loads(daemon.must("status", "--json"))["pools"][0]["name"] == "one"
            kernel.relent()
            daemon.wait_running("one")
