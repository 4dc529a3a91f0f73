from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from supervisor_d import __version__
from supervisor_d.api.wire import OperateRequest, Outcome, PoolChange, PoolOutcome
from supervisor_d.cli import main as main_module
from supervisor_d.cli.main import COMMANDS, cli, main
from supervisor_d.cli.settings import Settings
from supervisor_d.errors import ConfigError, PrepareError, Problem
from tests.support.fake_service import AT, Served, entry, pool_view, served, snapshot_of
from tests.support.waiting import wait_for

Capture = pytest.CaptureFixture[str]
CONFIG = "version: 1\ndaemon: {allow_root: true}\npools:\n  tick: {program: command, command: [/bin/sleep, '60']}\n"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    with served(tmp_path) as running:
        monkeypatch.setenv("SUPERVISOR_D_SOCKET", str(running.path))
        monkeypatch.chdir(tmp_path)
        yield running


def requests(server: Served) -> list[tuple[str, object]]:
    return [(name, request) for name, _, request in server.service.asked]


# every command


@pytest.mark.parametrize(
    "command",
    [
        ["status"], ["status", "web"], ["diff"], ["reload"], ["scale", "web=3"], ["scale", "web=3", "worker=config"],
        ["start", "web"], ["stop", "--all"], ["restart", "web"],
        ["deploy"], ["rollback", "web"], ["events"], ["logs"], ["why", "web.0"], ["schema"],
        ["check", "good.yaml"], ["check", "bad.yaml"], ["status", "nobody"], ["scale", "web"], ["nonsense"],
        ["logs", "nobody"], ["start"], ["events", "--lines", "x"],
    ],
    ids=" ".join,
)  # fmt: skip
@pytest.mark.parametrize("before", [True, False], ids=["before", "behind"])
def test_json_is_json(server: Served, tmp_path: Path, capsys: Capture, command: list[str], before: bool) -> None:
    (tmp_path / "good.yaml").write_text(CONFIG)
    (tmp_path / "bad.yaml").write_text("version: 1\npools: {web: {program: nothing}}\n")
    (tmp_path / "web.0.log").write_text("hello\n")
    server.service.journal = [entry(1), entry(2)]
    code = main(["--json", *command] if before else [*command, "--json"])
    out = capsys.readouterr().out
    lines = out.splitlines() if command[0] in ("events", "logs") else [out]
    told = [json.loads(line) for line in lines]
    assert told
    assert (code != 0) == ("error" in told[0])


def test_every_command_has_help_and_a_module(capsys: Capture) -> None:
    assert main(["--help"]) == 0
    whole = capsys.readouterr().out
    for command in COMMANDS:
        assert f"\n  {command} " in whole
        assert main([command, "--help"]) == 0
        assert "--json" in capsys.readouterr().out


def test_clicks_own_runner_knows_the_group() -> None:
    result = CliRunner().invoke(cli, ["--version"], obj=Settings())
    assert (result.exit_code, result.output) == (0, f"supervisor-d {__version__}\n")


def test_version(capsys: Capture) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"supervisor-d {__version__}\n"


# status


def test_status_is_a_table(server: Served, capsys: Capture) -> None:
    assert main(["status"]) == 0
    out = capsys.readouterr().out
    assert "worker.1 restarts in 12.0 s" in out
    assert "\x1b" not in out


def test_status_of_pools(server: Served, capsys: Capture) -> None:
    assert main(["status", "beat", "--json"]) == 0
    assert [pool["name"] for pool in json.loads(capsys.readouterr().out)["pools"]] == ["beat"]
    assert main(["status", "webb"]) == 66
    assert capsys.readouterr().err == "cannot find a pool 'webb'\n  hint: there are: web, worker, beat\n"


def test_watch_draws_again_when_something_happens(server: Served) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "supervisor_d", "status", "--watch", "--interval", "1h", "--json"],
        stdout=subprocess.PIPE,
        cwd=Path(main_module.__file__).parents[2],
    )
    assert process.stdout is not None
    try:
        assert json.loads(process.stdout.readline())["pools"][0]["name"] == "web"
        wait_for(lambda: server.service.followers, what="the watcher to follow")
        server.service.picture = snapshot_of(pool_view("other"))
        server.run(lambda: server.service.tell(entry(1)))
        assert json.loads(process.stdout.readline())["pools"][0]["name"] == "other"
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


# operations


@pytest.mark.parametrize("name", ["start", "stop", "restart", "rollback"])
def test_operations_ask_and_tell(server: Served, capsys: Capture, name: str) -> None:
    assert main([name, "web", "worker", "--timeout", "30s"]) == 0
    assert requests(server) == [(name, OperateRequest(("web", "worker"), None, 30.0))]
    assert "web   running\ndone\n" in capsys.readouterr().out
    assert main([name, "--all", "--no-wait"]) == 0
    assert requests(server)[-1] == (name, OperateRequest((), None, 0.0))
    assert main([name]) == 64
    assert main([name, "--all", "web"]) == 64
    assert main([name, "web", "--no-wait", "--timeout", "1s"]) == 64
    assert main([name, "web", "--timeout", "30"]) == 64
    assert "give a unit: 30s" in capsys.readouterr().err


def test_scale_asks_for_every_pool(server: Served) -> None:
    assert main(["scale", "web=6", "worker=config", "--no-wait"]) == 0
    asked = sorted(requests(server), key=str)
    assert asked == [("scale", OperateRequest(("web",), 6)), ("scale", OperateRequest(("worker",), None))]


@pytest.mark.parametrize(
    "words", [["web"], ["=3"], ["web=x"], ["web=-1"], ["web=99999"], ["web=1", "web=2"], ["web=²"]]
)
def test_sizes_that_are_none(server: Served, capsys: Capture, words: list[str]) -> None:
    assert main(["scale", *words]) == 64
    assert capsys.readouterr().err.startswith("cannot scale ")
    assert requests(server) == []


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [({"web": "timeout"}, 124), ({"web": "failed"}, 1), ({"web": "timeout", "worker": "rolled-back"}, 1), ({}, 1)],
)
def test_an_outcome_that_is_not_ok_has_a_code(server: Served, verdicts: dict[str, str], code: int) -> None:
    pools = tuple(PoolOutcome(pool, ok=False, verdict=verdict, reason="why") for pool, verdict in verdicts.items())
    server.service.outcome = Outcome(ok=False, message="reloaded", pools=pools)
    assert main(["reload"]) == code


def test_reload_says_what_it_did(server: Served, capsys: Capture) -> None:
    server.service.outcome = Outcome(
        ok=False,
        message="reloaded",
        changes=(PoolChange("web", "roll", ("threads",), "one more for a while"), PoolChange("worker", "keep")),
        pools=(PoolOutcome("web", ok=False, verdict="rolled-back", reason="the canary died"),),
    )
    assert main(["reload"]) == 1
    assert capsys.readouterr().out == (
        "POOL  CHANGE  KEYS     DETAIL\n"
        "web   roll    threads  one more for a while\n"
        "1 unchanged\n"
        "\n"
        "POOL  OUTCOME      REASON\n"
        "web   rolled-back  the canary died\n"
        "reloaded, but not everything went well\n"
    )


def test_a_bad_config_tells_every_place(server: Served, capsys: Capture) -> None:
    problems = (Problem("a.yaml", 3, 5, "pools.web.thread", "unknown key"), Problem("a.yaml", 9, 1, "x", "no"))
    server.service.refuses = ConfigError(problems)
    assert main(["reload"]) == 78
    assert capsys.readouterr().err == (
        "a.yaml:3:5: pools.web.thread: unknown key\na.yaml:9:1: x: no\n2 problems; nothing was changed\n"
    )
    assert main(["diff", "--json"]) == 78
    told = json.loads(capsys.readouterr().out)["error"]
    assert [problem["line"] for problem in told["problems"]] == [3, 9]


def test_a_refusal_keeps_its_hint_and_code(server: Served, capsys: Capture) -> None:
    server.service.refuses = PrepareError("cannot bind 127.0.0.1:80", hint="use the socket unit")
    assert main(["reload"]) == 73
    assert capsys.readouterr().err == "cannot bind 127.0.0.1:80\n  hint: use the socket unit\n"


def test_progress_is_what_the_journal_tells_meanwhile(server: Served, capsys: Capture) -> None:
    gate = server.run(asyncio.Event)
    server.service.gate = gate
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(main(["restart", "web", "--progress"])))
    thread.start()
    wait_for(lambda: server.service.asked and server.service.followers, what="the command to wait")
    server.run(lambda: server.service.tell(entry(1), entry(2, "worker"), entry(3)))
    told: list[str] = []

    def shown() -> bool:
        told.append(capsys.readouterr().err)
        return "reason 3" in "".join(told)

    wait_for(shown, what="progress")
    server.loop.call_soon_threadsafe(gate.set)
    thread.join(10)
    assert codes == [0]
    assert "web.0@g3.10  became-ready: reason 1" in "".join(told)
    assert "worker" not in "".join(told)


def test_no_progress_where_nobody_looks(server: Served, capsys: Capture) -> None:
    assert main(["restart", "web"]) == 0
    assert capsys.readouterr().err == ""


# the journal and the logs


def test_events_and_why(server: Served, capsys: Capture) -> None:
    server.service.journal = [
        entry(1, "web", "web.0@g3.10", "spawn"),
        entry(2, "web", "web.1@g3.11", "main-exited"),
        entry(3, "web", "web", "scale"),
        entry(4, "worker", "worker.0@g1.1"),
    ]
    assert main(["events", "--pool", "web", "-n", "2"]) == 0
    assert [line.split("  ")[1] for line in capsys.readouterr().out.splitlines()] == ["web.1@g3.11", "web"]
    assert main(["why", "web.0"]) == 0
    out = capsys.readouterr().out
    assert "spawn: reason 1" in out
    assert "scale: reason 3" in out
    assert "reason 2" not in out
    assert "now  web.0@g3.10 is ready since 1h2m as pid 4711: the pool wants it" in out
    assert "now  web is running: 1 of 1 ready" in out
    assert main(["why", "worker.1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert "worker.1 starts again in 12.0 s (attempt 4); exit code 1" in told["now"]
    assert main(["why", "shop.0"]) == 66


def test_events_are_followed(server: Served) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "supervisor_d", "events", "-f", "-n", "0"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(main_module.__file__).parents[2],
    )
    assert process.stdout is not None
    try:
        wait_for(lambda: server.service.followers, what="the follower")
        server.run(lambda: server.service.tell(entry(1), *(entry(n) for n in range(2, 150))))
        assert "(49 entries are missing here" in process.stdout.readline()
        assert "reason 50" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait(10) == 130
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


def test_logs_are_prefixed_and_clean(server: Served, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "web.0.log").write_bytes(b"one\n\x1b]0;evil\x07two\n")
    (tmp_path / "worker.10.log").write_text("three\n")
    assert main(["logs", "web", "--lines", "5"]) == 0
    assert capsys.readouterr().out == "web.0 | one\nweb.0 | two\n"
    assert main(["logs", "web.1"]) == 0
    assert capsys.readouterr().out == ""
    assert main(["logs", "--since", "10m"]) == 0
    assert "worker.10 | three" in capsys.readouterr().out


def test_since_reads_what_people_write(server: Served, tmp_path: Path, capsys: Capture) -> None:
    log = tmp_path / "web.0.log"
    log.write_text("old\n")
    os.utime(log, (AT, AT))
    assert main(["logs", "--since", "2033-01-01T00:00"]) == 0
    assert capsys.readouterr().out == "web.0 | old\n"
    assert main(["logs", "--since", "2034-01-01"]) == 0
    assert capsys.readouterr().out == ""
    for wrong in ("yesterday", "10", "2033-99-99"):
        assert main(["logs", "--since", wrong]) == 64
        assert capsys.readouterr().err.startswith("cannot read --since: ")


# offline commands


def test_check_good_and_bad(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["check"]) == 64
    assert "--config FILE" in capsys.readouterr().err
    (tmp_path / "supervisor-d.yaml").write_text(CONFIG)
    assert main(["check"]) == 0
    assert capsys.readouterr().out == "supervisor-d.yaml: ok, 1 pool: tick\n"
    (tmp_path / "bad.yaml").write_text(CONFIG.replace("command:", "comand:"))
    assert main(["check", "bad.yaml"]) == 78
    err = capsys.readouterr().err
    assert "bad.yaml:4:" in err
    assert "comand" in err
    assert "Traceback" not in err


def test_check_warns_and_accepts(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "shop.yaml"
    path.write_text(
        "version: 1\npools:\n  web:\n    program: gunicorn\n    app: shop.wsgi\n    bind: 127.0.0.1:8000\n"
        "    worker_class: gevent\n    agent: false\n    user: root\n    preload: true\n"
    )
    assert main(["check", str(path)]) == 0
    told = capsys.readouterr()
    assert told.out == f"{path}: ok, 1 pool: web\n"
    assert f"{path}:7:19: warning: pools.web.worker_class: gevent workers end at once" in told.err
    assert main(["--json", "check", str(path)]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [(warning["line"], warning["key"]) for warning in answer["warnings"]] == [(7, "pools.web.worker_class")]


def test_schema_is_a_schema(capsys: Capture) -> None:
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["$schema"].startswith("https://json-schema.org/")


# errors


def test_no_daemon_is_69(tmp_path: Path, capsys: Capture) -> None:
    assert main(["--socket", str(tmp_path / "none"), "status"]) == 69
    err = capsys.readouterr().err
    assert err.startswith("cannot reach the daemon at ")
    assert "hint: start it with" in err


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["statu"], "did you mean `status`?"),
        (["zzz"], "lists them all"),
        (["status", "--wach"], "supervisor-d status: no such option"),
        (["scale"], "missing argument"),
        (["logs", "-n", "-5"], "-5 is not in the range"),
        ([], "Usage: supervisor-d"),
    ],
)
def test_wrong_command_lines_are_64(capsys: Capture, argv: list[str], told: str) -> None:
    assert main(argv) == 64
    assert told in capsys.readouterr().err


def test_a_bug_is_one_line_and_a_file(
    server: Served, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError("boom")

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(Settings, "client", broken)
    assert main(["status"]) == 70
    err = capsys.readouterr().err
    assert err.startswith("cannot go on: unexpected ZeroDivisionError: boom\n  hint: the traceback is in ")
    kept = Path(err.split("traceback is in ")[1].split(";")[0])
    assert "ZeroDivisionError: boom" in kept.read_text()
    assert kept.stat().st_mode & 0o077 == 0
    assert "Traceback" not in err
    assert main(["status", "--debug"]) == 70
    assert "Traceback" in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_error(server: Served) -> None:
    server.service.journal = [entry(n) for n in range(1, 9000)]
    command = f"{shlex.quote(sys.executable)} -m supervisor_d events -n 9000 | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
        cwd=Path(main_module.__file__).parents[2],
    )
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "141"


# start-up


HEAVY = ("aiohttp", "pydantic", "yaml", "rich", "asyncio", "psutil", "prometheus_client", "redis", "http", "pathlib")


@pytest.mark.parametrize(
    "command", [["status"], ["status", "--json"], ["events"], ["stop", "web", "--no-wait"], ["logs"]]
)
def test_nothing_heavy_is_imported(server: Served, command: list[str]) -> None:
    code = (
        "import sys; from supervisor_d.cli.main import main; code = main(sys.argv[1:]); "
        f"print(*(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-c",
            f"sys = __import__('sys'); sys.path.insert(0, {os.fspath(ROOT)!r}); {code}",
            *command,
        ],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0
    assert done.stderr.strip() == ""


def test_colours_are_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert Settings().colour
    assert not Settings(no_color=True).colour
    monkeypatch.setenv("NO_COLOR", "1")
    assert not Settings().colour
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not Settings().colour


def test_completion_knows_the_pools(server: Served) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from supervisor_d.cli.main import main; main()"],
        env={
            **os.environ,
            "_SUPERVISOR_D_COMPLETE": "bash_complete",
            "COMP_WORDS": "supervisor-d stop w",
            "COMP_CWORD": "2",
        },
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
        cwd=ROOT,
    )
    assert done.stdout.split() == ["plain,web", "plain,worker"]


ROOT = Path(main_module.__file__).parents[2]
