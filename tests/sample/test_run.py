"""sample_app/run.py and the programs beside it: ports, the written config, the Redis server, the last lines."""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from supervisor_d.config.loader import load
from supervisor_d.core.config_spec import Config
from tests.support.waiting import wait_for

SAMPLE_APP = Path(__file__).resolve().parents[2] / "sample_app"


def program(name: str) -> ModuleType:
    """A program as a module, without running it."""
    spec = spec_from_file_location(f"sample_{Path(name).stem}", SAMPLE_APP / name)
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


run = program("run.py")
announce = program("bin/announce.py")
redis_server = program("bin/redis_server.py")

PORTS = run.Ports(web=8005, metrics=8011, redis=6399)


@contextmanager
def listening(port: int = 0) -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port))
        listener.listen()
        yield listener.getsockname()[1]


def filled_in(directory: Path, environ: dict[str, str] | None = None) -> str:
    text: str = run.filled_in(run.TEMPLATE.read_text(), directory, directory / "daemon", PORTS, environ or {})
    return text


def loaded(directory: Path, environ: dict[str, str] | None = None) -> Config:
    """What the daemon makes of the written file."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "sample.yaml").write_text(filled_in(directory, environ))
    return load(directory / "sample.yaml", environ=environ or {})


class TestPorts:
    def test_a_taken_port_is_passed_over(self) -> None:
        with listening() as taken:
            assert not run.is_free(taken)
            assert run.next_port(taken, ()) > taken

    def test_a_port_of_a_former_run_is_kept(self) -> None:
        with listening() as taken:
            assert run.next_port(taken, {taken}) == taken

    def test_when_all_are_taken_it_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(run, "is_free", lambda _: False)
        with pytest.raises(OSError, match="no free port from 8000 to 8099"):
            run.find_ports()

    def test_web_and_metrics_never_share_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(run, "is_free", lambda port: port > 8001)

        ports = run.find_ports({6390})
        assert (ports.web, ports.metrics) == (8002, 8003)


class TestKeptPorts:
    def config(self, tmp_path: Path) -> Path:
        path = tmp_path / "sample.yaml"
        path.write_text(filled_in(tmp_path))
        return path

    def test_processes_that_live_on_keep_their_ports(self, tmp_path: Path) -> None:
        config = self.config(tmp_path)
        (tmp_path / "daemon" / "processes" / "web.0.1").mkdir(parents=True)
        assert set(run.kept_ports(config, tmp_path / "daemon")) == {8005, 8011, 6399}

    def test_after_an_orderly_end_nothing_is_kept(self, tmp_path: Path) -> None:
        config = self.config(tmp_path)
        assert not run.kept_ports(config, tmp_path / "daemon")
        (tmp_path / "daemon" / "processes").mkdir(parents=True)
        assert not run.kept_ports(config, tmp_path / "daemon")

    def test_records_from_before_the_last_boot_keep_nothing(self, tmp_path: Path) -> None:
        config = self.config(tmp_path)
        record = tmp_path / "daemon" / "processes" / "web.0.1"
        record.mkdir(parents=True)
        os.utime(record, (1, 1))
        assert not run.kept_ports(config, tmp_path / "daemon")


class TestConfig:
    @pytest.mark.parametrize("name", ["plain", "with a blank", 'a "quote" and \\ more', "käfer #1: x"])
    def test_the_daemon_accepts_it_from_any_directory(self, tmp_path: Path, name: str) -> None:
        directory = tmp_path / name
        config = loaded(directory)

        assert config.daemon.runtime_dir == str(directory / "daemon")
        assert config.daemon.log_dir == str(directory / "log")
        assert config.daemon.metrics_listen == "127.0.0.1:8011"
        web = config.pools["web"]
        assert [listener.address for listener in web.listeners] == ["127.0.0.1:8005"]
        assert (web.cwd, web.python) == (str(SAMPLE_APP), sys.executable)
        assert web.env["SAMPLE_DATA_DIR"] == str(directory)
        assert web.env["REDIS_URL"] == "redis://127.0.0.1:6399/0"

    def test_only_values_are_replaced(self, tmp_path: Path) -> None:
        """Written with the usual values, the copy says what the template says."""
        usual = run.Ports(run.WEB_PORT, run.METRICS_PORT, run.REDIS_PORT)
        text = run.filled_in(run.TEMPLATE.read_text(), tmp_path / "R", tmp_path / "R/daemon", usual, {})
        template = run.TEMPLATE.read_text()
        for place, value in (
            ("../.run", tmp_path / "R"), ("../sample_app", SAMPLE_APP), ("../.venv/bin/python", sys.executable),
        ):  # fmt: skip
            template = template.replace(place, str(value))
        assert yaml.safe_load(text) == yaml.safe_load(template)

    def test_the_template_itself_is_a_config(self, tmp_path: Path) -> None:
        """In a tree that has what it names: .venv beside configs and sample_app."""
        (tmp_path / "configs").mkdir()
        (tmp_path / ".venv/bin").mkdir(parents=True)
        (tmp_path / ".venv/bin/python").symlink_to(sys.executable)
        (tmp_path / "sample_app").symlink_to(SAMPLE_APP)
        shutil.copy(run.TEMPLATE, tmp_path / "configs")
        config = load(tmp_path / "configs" / "sample.yaml", environ={})

        assert set(config.pools) == {"redis", "migrate", "seed", "worker", "web", "beat", "announce"}
        assert config.daemon.runtime_dir == str(tmp_path / ".run" / "daemon")

    def test_what_waits_for_what(self, tmp_path: Path) -> None:
        pools = loaded(tmp_path).pools
        after = {name: set(pool.after) for name, pool in pools.items()}

        assert after == {
            "redis": set(),
            "migrate": {"redis"},
            "seed": {"migrate"},
            "worker": {"redis", "migrate"},
            "web": {"seed", "worker"},
            "beat": {"worker"},
            "announce": {"web", "beat"},
        }
        assert (pools["web"].workers, pools["worker"].workers, pools["beat"].workers) == (2, 2, 1)

    def test_the_environment_is_handed_on_by_name(self, tmp_path: Path) -> None:
        environ = {"DATABASE_URL": "postgres://me:secret@127.0.0.1/library", "DEBUG": "1", "OTHER": "x"}
        env = loaded(tmp_path, environ).pools["web"].env

        assert env["DATABASE_URL"] == environ["DATABASE_URL"]
        assert env["DEBUG"] == "1"
        assert "OTHER" not in env
        assert "secret" not in (tmp_path / "sample.yaml").read_text()

    def test_a_long_directory_gets_a_short_runtime_dir(self, tmp_path: Path) -> None:
        short, long = Path("/srv/shop/.run"), Path("/srv") / ("x" * 60) / ".run"
        assert run.runtime_dir_of(short) == short / "daemon"
        assert len(str(run.runtime_dir_of(long))) <= run.LONGEST_RUNTIME_DIR
        assert run.runtime_dir_of(long) != run.runtime_dir_of(long.parent / "other")


class TestProgram:
    def start(self, *args: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(SAMPLE_APP / "run.py"), *map(str, args)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd="/")

    def test_write_only(self, tmp_path: Path) -> None:
        directory = tmp_path / "a b"
        done = self.start("--directory", directory, "--write-only")

        assert (done.returncode, done.stdout) == (0, f"{directory}/sample.yaml\n")
        assert load(directory / "sample.yaml", environ=os.environ).pools
        assert [path.name for path in directory.iterdir()] == ["sample.yaml"]

    def test_a_directory_that_cannot_be(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        done = self.start("--directory", tmp_path / "file" / "below")

        assert (done.returncode, done.stdout) == (69, "")
        assert done.stderr.startswith("cannot run: ")
        assert "Traceback" not in done.stderr

    def test_a_second_run_changes_nothing(self, tmp_path: Path) -> None:
        runtime_dir = run.runtime_dir_of(tmp_path)
        try:
            runtime_dir.mkdir()
            (tmp_path / "sample.yaml").write_text("as it was")
            with (runtime_dir / "lock").open("w+") as lock:
                lock.write("4711\n")
                lock.flush()
                fcntl.flock(lock, fcntl.LOCK_EX)
                done = self.start("--directory", tmp_path)
        finally:
            shutil.rmtree(runtime_dir, ignore_errors=True)

        assert done.returncode == 75
        assert "the shop runs already (pid 4711)" in done.stderr
        assert (tmp_path / "sample.yaml").read_text() == "as it was"


class TestAnnounce:
    def test_its_addresses_and_commands(self) -> None:
        text = announce.text("127.0.0.1:8005", "127.0.0.1:8011", SAMPLE_APP.parent / ".run" / "sample.yaml")

        assert "http://127.0.0.1:8005/healthz" in text
        assert "http://127.0.0.1:8011/metrics" in text
        assert ".venv/bin/supervisor-d -c .run/sample.yaml status --watch" in text

    def test_a_path_with_a_blank_can_be_pasted(self) -> None:
        path = SAMPLE_APP.parent / "a b" / "sample.yaml"
        scale = ["scale", "web=4", "worker=4"]
        assert self.scale_command(path) == [".venv/bin/supervisor-d", "-c", "a b/sample.yaml", *scale]

    def test_a_config_elsewhere_is_named_in_full(self, tmp_path: Path) -> None:
        assert self.scale_command(tmp_path / "sample.yaml")[2] == str(tmp_path / "sample.yaml")

    def scale_command(self, config: Path) -> list[str]:
        line = next(line for line in announce.text("w", "m", config).splitlines() if "scale web=4" in line)
        return shlex.split(line, comments=True)


class TestFindingRedis:
    def test_the_path_comes_first(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        server = tmp_path / "redis-server"
        server.write_text("#!/bin/sh\n")
        server.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        assert redis_server.find_server() == server

    def test_else_the_one_of_the_package(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        found = redis_server.find_server()
        assert found.name == "valkey-server"
        assert os.access(found, os.X_OK)

    def test_without_any_it_says_what_to_do(self, tmp_path: Path) -> None:
        script = SAMPLE_APP / "bin" / "redis_server.py"
        done = subprocess.run(
            [sys.executable, "-I", "-S", script, "--port", "1"],
            env={"PATH": str(tmp_path)}, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (69, "")
        assert "install redis-server" in done.stderr


@pytest.mark.real
class TestServingRedis:
    @contextmanager
    def server(self, directory: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
        port = run.next_port(run.REDIS_PORT + 200, ())
        script = SAMPLE_APP / "bin" / "redis_server.py"
        command = [sys.executable, str(script), "--port", str(port), "--dir", str(directory)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            wait_for(lambda: redis_server.answers(port), 20, "the server to answer PING")
            yield process, port
        finally:
            process.kill()
            process.wait(10)

    def test_what_was_answered_survives_a_kill(self, tmp_path: Path) -> None:
        import redis

        directory = tmp_path / "a b"
        with self.server(directory) as (process, port):
            client = redis.Redis(port=port)
            config: Any = client.config_get("appendonly")
            assert config == {"appendonly": "yes"}
            client.rpush("celery", "message")
            assert Path(f"/proc/{process.pid}/exe").resolve().name in {
                "redis-server",
                "valkey-server",
                "redis-check-rdb",
            }
        with self.server(directory) as (_, port):
            assert redis.Redis(port=port).lrange("celery", 0, -1) == [b"message"]

    def test_nobody_there(self) -> None:
        with listening() as port:
            pass
        assert not redis_server.answers(port)
