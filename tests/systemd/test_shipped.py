"""The units in systemd/ are what install-unit makes for the usual paths, and as tight as docs/systemd.md says."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from supervisor_d.cli import units
from supervisor_d.cli.main import cli
from supervisor_d.cli.settings import Settings
from supervisor_d.config.directories import default_directories
from supervisor_d.errors import PrepareError, RequestError

UNITS = Path(__file__).resolve().parents[2] / "systemd"
CONFIG = "/etc/supervisor-d/supervisor-d.yaml"
LEVELS = {
    "supervisor-d.service": 3.0,
    "plain-user/supervisor-d.service": 2.0,
    "plain-user/supervisor-d-sweep.service": 2.0,
}
POOLS = "  web: {program: command, command: [sleep, '60'], cwd: /}\n"
LISTENING = "  web: {program: gunicorn, app: app, bind: ['127.0.0.1:8000', 'unix:/run/100%.sock']}\n"


def facts(user: str = "") -> units.UnitFacts:
    found = default_directories(units.PLAIN_ENVIRON, 1 if user else 0)
    directories = (str(found.runtime_dir), str(found.state_dir), str(found.log_dir))
    return units.UnitFacts("/opt/supervisor-d/bin/python", CONFIG, *directories, user=user)


def test_shipped_units_are_what_the_command_makes() -> None:
    assert (UNITS / "supervisor-d.service").read_text() == units.service(facts())
    assert (UNITS / "plain-user/supervisor-d.service").read_text() == units.service(facts("supervisor-d"))
    sweeper = units.sweeper(facts("supervisor-d"), "supervisor-d")
    assert (UNITS / "plain-user/supervisor-d-sweep.service").read_text() == sweeper
    assert (UNITS / "sysusers.d/supervisor-d.conf").read_text() == units.sysusers(facts("supervisor-d"))
    assert (UNITS / "supervisor-d.socket").read_text() == units.socket(["127.0.0.1:8000"])


@pytest.mark.parametrize("name", LEVELS)
@pytest.mark.skip_allowed("needs Debian's systemd")
def test_exposure(name: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "supervisor-d.service"
    shutil.copy(UNITS / name, unit)
    argv = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)]
    told = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False).stdout
    level = float(re.search(r"Overall exposure level for \S+: ([0-9.]+)", told)[1])  # type: ignore[index]
    assert level <= LEVELS[name], told
    said = (UNITS.parent / "docs" / "systemd.md").read_text()
    assert f"| {level} |" in said, f"docs/systemd.md does not say {level} of {name}"


def run(tmp_path: Path, *options: str, pools: str = POOLS, daemon: str = "allow_root: true") -> str:
    config = tmp_path / "shop.yaml"
    config.write_text(f"version: 1\ndaemon: {{{daemon}}}\npools:\n{pools}")
    done = CliRunner().invoke(cli, ["install-unit", "-c", str(config), *options], obj=Settings())
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.stdout


def test_a_unit_names_this_interpreter_and_config(tmp_path: Path) -> None:
    import sys

    text = run(tmp_path)
    assert f"ExecStart={sys.executable} -I -m supervisor_d run --config {tmp_path}/shop.yaml --no-logs\n" in text
    assert "RuntimeDirectory=supervisor-d\n" in text
    assert "StateDirectory=supervisor-d\n" in text
    assert "LogsDirectory=supervisor-d\n" in text


def test_directories_elsewhere_are_made_writable(tmp_path: Path) -> None:
    text = run(tmp_path, daemon="allow_root: true, state_dir: /srv/shop/state, runtime_dir: /run/shop/daemon")
    assert "RuntimeDirectory=shop/daemon\n" in text
    assert "ReadWritePaths=-/srv/shop/state\n" in text
    assert "StateDirectory" not in text


@pytest.mark.parametrize(("cwd", "homes"), [("/", "yes"), ("/home", "read-only"), ("/root", "read-only")])
def test_homes_are_hidden_unless_a_pool_lives_there(tmp_path: Path, cwd: str, homes: str) -> None:
    made = units.service(units.UnitFacts("/p", CONFIG, "/run/x", "/var/lib/x", "/var/log/x", read=(cwd,)))
    assert f"ProtectHome={homes}\n" in made


def test_words_are_quoted_and_specifiers_escaped() -> None:
    made = units.service(units.UnitFacts('/opt/a "b"/100%', "/c", "/run/x", "/var/lib/x", "/var/log/x"))
    assert r'ExecStart="/opt/a \"b\"/100%%" -I' in made


def test_files_are_written(tmp_path: Path) -> None:
    target = tmp_path / "units"
    target.mkdir()
    told = run(tmp_path, "--write", str(target), "--name", "shop", "--with-socket", pools=LISTENING)
    assert told.split() == [f"{target}/shop.service", f"{target}/shop.socket"]
    assert "ListenStream=127.0.0.1:8000\nListenStream=/run/100%%.sock\n" in (target / "shop.socket").read_text()
    assert (target / "shop.service").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        (["--name", "a/b"], RequestError, "cannot name a unit"),
        (["--group", "x"], RequestError, "without --user"),
        (["--user", "nobody-there"], PrepareError, "there is no such user"),
        (["--user", "root"], RequestError, "leave --user away"),
        (["--with-socket"], RequestError, "no pool in the config listens"),
        (["--write", "/no/such/directory"], PrepareError, "cannot write"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, options: list[str], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        run(tmp_path, *options)
