"""What dies is started again, with its reason in the journal; what it left behind is gone first."""

from __future__ import annotations

import os
import signal

import pytest

from tests.support import procs
from tests.support.daemon import Daemon
from tests.support.ending import Watched
from tests.support.programs import Notes
from tests.support.waiting import wait_for

pytestmark = pytest.mark.real

SLEEPER = {"program": "command", "command": ["sleep", "600"]}


def test_a_killed_process_comes_back_and_its_escaped_child_is_gone() -> None:
    daemon = Daemon()
    notes = Notes(daemon.work / "notes")
    daemon.configure({"one": {"program": "command", "command": notes.stubborn("s"), "stop": "TERM 100ms, KILL"}})
    with daemon:
        main, child = notes.wait("s", "ready").pid, notes.wait("s-child", "ready").pid
        daemon.wait_running("one")
        with Watched(child) as watched:
            os.kill(main, signal.SIGKILL)
            watched.end_time(5)
        again = notes.wait("s", "ready", 2).pid
        daemon.wait_running("one")
        assert daemon.pid_of("one") == again != main
        assert daemon.wait_event("main-exited", text="killed by SIGKILL, by itself").pool == "one"
        assert "1 left over by it were killed" in daemon.wait_event("tree-emptied").reason
        assert daemon.wait_event("spawn", text="restart 1: killed by SIGKILL").pool == "one"
        assert dict(daemon.pool("one").restarts_total) == {"signal": 1}


def test_what_ends_with_an_error_is_told_with_its_last_words() -> None:
    script = "echo starting; echo no space for the cache >&2; exit 3"
    with Daemon({"one": {"program": "command", "command": ["sh", "-c", script]}}) as daemon:
        told = daemon.wait_event("tree-emptied")
        assert told.reason == "nothing is left of its tree; its last words: starting | no space for the cache"


def test_a_killed_shim_is_told_and_its_process_lives_on_and_is_ended_whole() -> None:
    daemon = Daemon()
    notes = Notes(daemon.work / "notes")
    daemon.configure({"one": {"program": "command", "command": notes.stubborn("s"), "stop": "TERM 100ms, KILL"}})
    with daemon:
        main, child = notes.wait("s", "ready").pid, notes.wait("s-child", "ready").pid
        daemon.wait_running("one")
        os.kill(daemon.shim_of(main), signal.SIGKILL)
        daemon.wait_event("shim-replaced", text="its shim died")
        assert daemon.pid_of("one") == main
        assert dict(daemon.pool("one").restarts_total) == {}
        with Watched(main) as watched, Watched(child) as watched_child:
            daemon.must("stop", "one")
            watched.end_time(10)
            watched_child.end_time(10)


def test_the_zygote_is_replaced_when_it_is_next_needed() -> None:
    with Daemon({"one": SLEEPER}) as daemon:
        daemon.wait_running("one")
        before = daemon.pids("one")
        zygote = _zygote(daemon)
        with Watched(zygote) as watched:
            os.kill(zygote, signal.SIGKILL)
            watched.end_time(5)
        # The first new shim may be the spare one, which the zygote had forked before it died.
        daemon.must("scale", "one=4")
        assert before.items() < daemon.wait_pids("one", 4).items()
        assert _zygote(daemon) != zygote


def _zygote(daemon: Daemon) -> int:
    def found() -> list[int]:
        return [pid for pid in procs.children(daemon.pid) if "zygote" in procs.command_line(pid)]

    return wait_for(found, 5, "a zygote")[0]


def test_processes_outlive_a_killed_daemon_and_the_next_one_takes_them_over() -> None:
    daemon = Daemon()
    notes = Notes(daemon.work / "notes")
    daemon.configure({"one": {"program": "command", "command": notes.polite("p")}, "two": {**SLEEPER, "workers": 2}})
    with daemon:
        daemon.wait_running("one", "two")
        before = daemon.all_pids()
        daemon.kill()
        assert all(procs.alive(pid) for pid in before.values())
        daemon.start()
        assert daemon.all_pids() == before
        assert all(process.adopted for pool in daemon.status().pools for process in pool.processes)
        assert daemon.status().daemon.adopted_total == 3
        assert notes.of("p", "term") == []


def test_an_end_while_no_daemon_ran_is_known_to_the_next_one() -> None:
    with Daemon({"one": SLEEPER}) as daemon:
        daemon.wait_running("one")
        before = daemon.pid_of("one")
        daemon.kill()
        with Watched(before) as watched:
            os.kill(before, signal.SIGSEGV)
            watched.end_time(5)
        daemon.start()
        daemon.wait_event("main-exited", text="killed by SIGSEGV, by itself")
        daemon.wait_running("one")
        assert daemon.pid_of("one") != before


def test_a_process_that_always_ends_is_given_up_with_the_reason_and_start_tries_anew() -> None:
    restart = {"backoff": "1ms", "backoff_max": "1ms", "limit": 3}
    pool = {"program": "command", "command": ["sh", "-c", "exit 3"], "ready": {"notify": True}, "restart": restart}
    with Daemon({"bad": pool}) as daemon:
        failed = daemon.wait_pool("bad", "failed")
        assert "more than 3 restarts within 120 s; the last: exited with code 3" in failed.detail
        assert dict(failed.exits_total) == {"error": 4}
        done = daemon.cli("start", "bad")
        assert done.returncode == 1
        assert "exited with code 3" in done.stdout + done.stderr
        wait_for(lambda: daemon.pool("bad").exits_total["error"] >= 8, 10, "a fresh round of tries")


def test_a_program_that_cannot_be_executed_is_told_as_such() -> None:
    daemon = Daemon()
    program = daemon.work / "program"
    program.write_text("#!/nonexistent/interpreter\n")
    program.chmod(0o755)
    daemon.configure({"bad": {"program": "command", "command": [str(program)], "restart": "never"}})
    with daemon:
        event = daemon.wait_event("spawn-failed")
        assert str(program) in event.reason
        assert "No such file" in event.reason
        assert "No such file" in daemon.wait_pool("bad", "failed").detail
