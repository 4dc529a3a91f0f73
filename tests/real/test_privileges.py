"""What a process gets and what it does not: user, groups, capabilities, environment, descriptors, limits, secrets."""

from __future__ import annotations

import os
import pwd
import signal
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import net, procs
from tests.support.daemon import Daemon
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.real]

needs_root = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can start processes as another user"),
    pytest.mark.skip_allowed("only root can start processes as another user"),
]
SLEEPER = {"program": "command", "command": ["sleep", "600"]}
CANARY = "s3cr3t-canary-8f1e"


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """One of root, whose pool runs as nobody."""
    limits = {"nice": 5, "open_files": 256, "oom_score_adj": 100, "umask": "0027"}
    with Daemon({"one": {**SLEEPER, "user": "nobody", "limits": limits}}, settings={"allow_root": False}) as daemon:
        daemon.wait_running("one")
        yield daemon


class TestAnotherUser:
    pytestmark = needs_root

    def test_all_ids_are_the_users_and_no_capability_is_left(self, daemon: Daemon) -> None:
        nobody = pwd.getpwnam("nobody")
        status = procs.status(daemon.pid_of("one"))
        assert status["Uid"].split() == [str(nobody.pw_uid)] * 4
        assert status["Gid"].split() == [str(nobody.pw_gid)] * 4
        assert set(status["Groups"].split()) <= {str(gid) for gid in os.getgrouplist("nobody", nobody.pw_gid)}
        for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            assert int(status[name], 16) == 0, name
        assert status["NoNewPrivs"] == "1"

    def test_limits_are_set(self, daemon: Daemon) -> None:
        pid = daemon.pid_of("one")
        assert procs.status(pid)["Umask"] == "0027"
        assert procs.limits(pid)["Max open files"] == ("256", "256")
        assert procs.limits(pid)["Max core file size"] == ("0", "0")
        assert os.getpriority(os.PRIO_PROCESS, pid) == 5
        assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "100"

    def test_its_shim_keeps_the_daemons_user(self, daemon: Daemon) -> None:
        shim = daemon.shim_of(daemon.pid_of("one"))
        assert procs.status(shim)["Uid"].split() == ["0"] * 4

    def test_it_owns_its_private_directory_and_can_look_into_no_other(self, daemon: Daemon) -> None:
        run = daemon.directory / "run"
        (name,) = daemon.pids("one")
        private = (run / "private" / name).stat()
        assert (private.st_uid, stat.S_IMODE(private.st_mode)) == (pwd.getpwnam("nobody").pw_uid, 0o700)
        record = (run / "processes" / name).stat()
        assert (record.st_uid, stat.S_IMODE(record.st_mode)) == (0, 0o700)
        assert stat.S_IMODE((daemon.directory / "state").stat().st_mode) == 0o700

    def test_a_pool_of_root_without_a_user_is_refused(self, daemon: Daemon) -> None:
        before = daemon.all_pids()
        text = daemon.config.read_text()
        try:
            daemon.configure({"one": SLEEPER})
            done = daemon.cli("reload")
            assert done.returncode == 78
            assert "user" in done.stderr
        finally:
            daemon.write(text)
        assert daemon.all_pids() == before


def test_a_process_has_a_session_clean_signals_and_only_the_listed_descriptors() -> None:
    (port,) = net.free_ports(1)
    leak = os.open("/etc/hostname", os.O_RDONLY)
    os.set_inheritable(leak, True)
    daemon = Daemon(
        {"plain": SLEEPER, "bound": {**SLEEPER, "bind": f"127.0.0.1:{port}"}},
        env={"DAEMONS_OWN": "1", "LD_SOMETHING": "1", "PYTHONHOME_X": "1"},
    )
    daemon.popen = {"close_fds": False}
    with daemon:
        os.close(leak)
        daemon.wait_running("plain", "bound")
        for name, count in (("plain", 3), ("bound", 4)):
            pid = daemon.pid_of(name)
            found = procs.descriptors(pid)
            assert sorted(found) == list(range(count))
            assert found[0] == "/dev/null"
            assert found[1] == found[2]
            assert stat.S_ISFIFO(os.stat(f"/proc/{pid}/fd/1").st_mode)
            own = procs.stat(pid)
            assert own is not None
            assert own.session == own.group == pid
            status = procs.status(pid)
            assert [int(status[key], 16) for key in ("SigBlk", "SigIgn", "SigPnd")] == [0, 0, 0]
            env = procs.environment(pid)
            assert not {"DAEMONS_OWN", "LD_SOMETHING", "PYTHONHOME_X", "PYTHONPATH", "NOTIFY_SOCKET"} & env.keys()
            assert {"PATH", "HOME", "USER"} <= env.keys()
        bound = procs.environment(daemon.pid_of("bound"))
        assert (bound["LISTEN_FDS"], bound["LISTEN_PID"]) == ("1", str(daemon.pid_of("bound")))
        assert "LISTEN_FDS" not in procs.environment(daemon.pid_of("plain"))


def test_secrets_appear_nowhere_but_in_the_process_itself() -> None:
    (port,) = net.free_ports(1)
    daemon = Daemon(settings={"metrics": {"listen": f"127.0.0.1:{port}"}}, env={"THE_SECRET": f"{CANARY}-3"})
    secrets = daemon.work / "secrets.env"
    secrets.write_text(f"FROM_FILE={CANARY}-1\n")
    secrets.chmod(0o600)
    pool = {
        **SLEEPER,
        "env_files": [str(secrets)],
        "env": {"DIRECT": f"{CANARY}-2", "FROM_ENV": {"from_env": "THE_SECRET"}},
    }
    daemon.configure({"one": pool})
    with daemon:
        daemon.wait_running("one")
        env = procs.environment(daemon.pid_of("one"))
        assert [env[name] for name in ("FROM_FILE", "DIRECT", "FROM_ENV")] == [f"{CANARY}-{n}" for n in (1, 2, 3)]
        daemon.configure({"one": {**pool, "env": {"DIRECT": f"{CANARY}-4"}}})
        said = [daemon.must("diff"), daemon.must("reload")]
        os.kill(daemon.pid_of("one"), signal.SIGKILL)
        daemon.wait_event("spawn", text="killed by SIGKILL")
        daemon.wait_running("one")
        said += [daemon.must(*words) for words in (["status"], ["status", "--json"], ["events", "--json"], ["logs"])]
        said += [net.get(port, "/metrics")[1], daemon.stderr, daemon.stdout]
        said += [procs.command_line(process.pid) for process in procs.everyone()]
        said += [path.read_text() for path in daemon.log_dir.rglob("*") if path.is_file()]
        assert daemon.stop() == 0
        said += [daemon.stderr, (daemon.directory / "state" / "history.jsonl").read_text()]
        for text in said:
            assert CANARY not in text


def test_a_secret_in_the_environment_is_not_readable_by_other_users_on_disk() -> None:
    with Daemon({"one": {**SLEEPER, "env": {"DIRECT": CANARY}}}) as daemon:
        daemon.wait_running("one")
        holding = [path for path in daemon.directory.rglob("*") if path.is_file() and CANARY in _text(path)]
        assert holding, "at least the config holds it"
        for path in holding:
            if path != daemon.config:
                closed = [stat.S_IMODE(p.stat().st_mode) & 0o077 == 0 for p in (path, path.parent)]
                assert any(closed), path


def _text(path: Path) -> str:
    return path.read_text(errors="replace")


def test_stdout_can_be_opened_by_name() -> None:
    script = "open('/dev/stdout', 'a').write('by name\\n'); import time; time.sleep(600)"
    user = {"user": "nobody"} if os.geteuid() == 0 else {}
    python = "/usr/bin/python3" if os.geteuid() == 0 and os.access("/usr/bin/python3", os.X_OK) else sys.executable
    with Daemon({"one": {"program": "command", "command": [python, "-c", script], **user}}) as daemon:
        wait_for(lambda: "by name\n" in daemon.log("one.0"), 10, "the line in the log")
