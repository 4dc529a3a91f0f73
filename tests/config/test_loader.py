from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from supervisor_d.config import loader
from supervisor_d.config.loader import load, load_copy
from supervisor_d.config.machine import CLEAN_PATH, Machine
from supervisor_d.core.spec import Limits, Listener, LogPolicy, Probe, RestartPolicy, RolloutPolicy, StopStep
from supervisor_d.errors import ConfigError
from supervisor_d.programs.beat import LeaseKeys
from supervisor_d.programs.registry import PROGRAMS
from supervisor_d.runtime import contexts
from tests.config.support import HOME, PLAIN_USER, load_file, load_pool, load_text, problems_of

COMMAND = "program: command\ncommand: sleep 60\n"
GUNICORN = "program: gunicorn\napp: shop.wsgi\nbind: 127.0.0.1:8000\n"
ONE_POOL = "version: 1\npools:\n  web: {program: command, command: sleep 60}\n"


def test_a_small_pool_gets_every_default(tmp_path: Path) -> None:
    spec = load_pool(tmp_path, COMMAND)
    assert spec.name == "web"
    assert spec.program == "command"
    assert spec.workers == 1
    assert spec.keys.command[1:] == ("60",)
    assert os.path.isabs(spec.keys.command[0])
    assert spec.stop == PROGRAMS["command"].default_stop
    assert spec.restart == RestartPolicy()
    assert spec.rollout == PROGRAMS["command"].default_rollout
    assert spec.log == LogPolicy()
    assert spec.limits == Limits()
    assert (spec.user, spec.group, spec.python, spec.env, spec.after, spec.ready) == ("", "", "", {}, (), ())
    assert spec.cwd == str(tmp_path)


def test_all_that_can_be_said(tmp_path: Path) -> None:
    spec = load_pool(
        tmp_path,
        GUNICORN
        + """\
workers: 3
stop: [SIGTERM 35s, QUIT 10s, KILL]
restart: {when: on-failure, backoff: 1s, backoff_max: 30s, stable: 5s, limit: 3, period: 1m}
rollout: {max_surge: 2, max_unavailable: 1, min_ready: 2s}
ready:
  - {http: /healthz, status: 204, interval: 100ms, timeout: 1s}
  - {tcp: "unix:x.sock"}
  - {notify: true}
  - {exec: sleep 0}
start_timeout: 2m
log: {directory: log, max_size: 1MB, keep: 2, block: 1s}
limits: {open_files: 100, processes: 50, core_size: 1KiB, memory: 1GiB, nice: 5, oom_score_adj: 7, umask: "027"}
args: [--max-requests, 1000, --statsd-prefix, 0x1F]
""",
    )
    assert spec.workers == 3
    assert spec.stop == (StopStep("TERM", 35.0), StopStep("QUIT", 10.0), StopStep("KILL"))
    assert spec.restart == RestartPolicy("on-failure", 1.0, 30.0, 0.1, 5.0, 3, 60.0)
    assert spec.rollout == RolloutPolicy(2, 1, 2.0)
    assert spec.ready[:3] == (
        Probe("http", "/healthz", interval_seconds=0.1, timeout_seconds=1.0, expect_status=204),
        Probe("tcp", f"unix:{tmp_path}/x.sock"),
        Probe("notify"),
    )
    assert os.path.isabs(spec.ready[3].argv[0])
    assert spec.start_timeout_seconds == 120.0
    assert spec.log == LogPolicy(str(tmp_path / "log"), 10**6, 2, 1.0)
    assert spec.limits == Limits(100, 50, 1024, 2**30, 5, 7, 0o027)
    assert spec.keys.args == ("--max-requests", "1000", "--statsd-prefix", "0x1F")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("stop: TERM 1s, KILL", "stop: [TERM 1s, KILL]"),
        ("restart: never", "restart: {when: never}"),
        ("ready: {tcp: 127.0.0.1:1}", "ready: [{tcp: 127.0.0.1:1}]"),
        ("ready: {exec: sleep 1}", "ready: {exec: [sleep, 1]}"),
        ("bind: 127.0.0.1:1", "bind: [{address: 127.0.0.1:1}]"),
        ("bind: /x.sock", "bind: {address: unix:/x.sock}"),
        ("env_files: a.env", "env_files: [a.env]"),
    ],
)
def test_short_forms_mean_the_long_ones(tmp_path: Path, written: str, meant: str) -> None:
    (tmp_path / "a.env").write_text("A=1\n")
    short, long = (load_pool(tmp_path, COMMAND + keys) for keys in (written, meant))
    names = ("stop", "restart", "ready", "listeners", "env_files", "env")
    assert [getattr(short, name) for name in names] == [getattr(long, name) for name in names]


def test_half_a_rollout_takes_the_other_half_from_the_program(tmp_path: Path) -> None:
    spec = load_pool(tmp_path, GUNICORN + "rollout: {max_unavailable: 1}")
    assert spec.rollout == RolloutPolicy(max_surge=1, max_unavailable=1)
    assert "both 0" in str(problems_of(tmp_path, _pool(COMMAND + "rollout: {max_unavailable: 0}"))[0])


def _pool(keys: str, top: str = "") -> str:
    return f"version: 1\n{top}pools:\n  web:\n" + "".join(f"    {line}\n" for line in keys.splitlines())


# ---------------------------------------------------------------------------------------------------- defaults


def test_defaults_reach_every_pool_and_give_way(tmp_path: Path) -> None:
    text = """\
    version: 1
    defaults:
      start_timeout: 5s
      limits: {nice: 3}
      env: {A: default, B: default}
    pools:
      one: {program: command, command: sleep 60, env: {B: own, C: own}}
      two: {program: command, command: sleep 60, start_timeout: 9s, limits: {open_files: 100}}
    """
    pools = load_text(tmp_path, text).pools
    assert pools["one"].env == {"A": "default", "B": "own", "C": "own"}
    assert pools["two"].env == {"A": "default", "B": "default"}
    assert [pools[name].start_timeout_seconds for name in ("one", "two")] == [5.0, 9.0]
    assert pools["two"].limits.nice is None, "a mapping is replaced as a whole"


def test_a_wrong_default_is_told_once(tmp_path: Path) -> None:
    pools = "".join(f"  p{number}: {{program: command, command: sleep 60}}\n" for number in range(20))
    found = problems_of(tmp_path, f"version: 1\ndefaults: {{cwd: /no/such, restart: alwys}}\npools:\n{pools}")
    assert [(problem.line, problem.column) for problem in found] == [(2, 17), (2, 36)]


# ------------------------------------------------------------------------------------------------ environment


def test_env_files_are_read_in_order_and_env_wins(tmp_path: Path) -> None:
    (tmp_path / "a.env").write_text("A=a\nB=a\nC=a\n")
    (tmp_path / "b.env").write_text("B=b\nC=b\n")
    spec = load_pool(tmp_path, COMMAND + "env_files: [a.env, b.env]\nenv: {C: own, N: 8000, F: 1.10, H: 0x1F}")
    assert spec.env == {"A": "a", "B": "b", "C": "own", "N": "8000", "F": "1.10", "H": "0x1F"}
    assert spec.env_files == (str(tmp_path / "a.env"), str(tmp_path / "b.env"))


def test_values_can_come_from_the_daemons_environment(tmp_path: Path) -> None:
    spec = load_pool(tmp_path, COMMAND + "env: {KEY: {from_env: SHOP_KEY}}", environ={"SHOP_KEY": "s3"})
    assert spec.env == {"KEY": "s3"}


# ------------------------------------------------------------------------------------------ paths and programs


def test_relative_paths_start_at_the_file(tmp_path: Path) -> None:
    (tmp_path / "app" / "bin").mkdir(parents=True)
    (tmp_path / "app/bin/serve").symlink_to("/bin/sh")
    (tmp_path / "python").symlink_to(sys.executable)
    spec = load_pool(
        tmp_path,
        "program: command\ncommand: [bin/serve, x]\ncwd: ./app\npython: python\nbind: unix:app/../web.sock\n",
    )
    assert spec.cwd == str(tmp_path / "app")
    assert spec.keys.command == (str(tmp_path / "app/bin/serve"), "x"), "with a slash: from cwd; links are kept"
    assert spec.python == str(tmp_path / "python")
    assert spec.listeners == (Listener(f"unix:{tmp_path}/web.sock"),)


def test_beats_schedule_is_a_path(tmp_path: Path) -> None:
    spec = load_pool(tmp_path, "program: celery-beat\napp: shop\nschedule: run/schedule")
    assert spec.keys.schedule == str(tmp_path / "run/schedule")


def test_a_bare_command_is_looked_up_where_the_process_would(tmp_path: Path) -> None:
    for name in ("venv", "own"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "sleep").symlink_to("/bin/sh")
        (tmp_path / name / "python").symlink_to(sys.executable)
    with_python = load_pool(tmp_path, COMMAND + "python: venv/python")
    with_path = load_pool(tmp_path, COMMAND + f"python: venv/python\nenv: {{PATH: '{tmp_path}/own'}}")
    assert with_python.keys.command[0] == str(tmp_path / "venv/sleep")
    assert with_path.keys.command[0] == str(tmp_path / "own/sleep")


def test_the_path_of_processes_is_the_runtimes() -> None:
    assert CLEAN_PATH == contexts.CLEAN_PATH


# ---------------------------------------------------------------------------------------------------- the daemon


def test_directories_of_a_plain_user_and_of_root(tmp_path: Path) -> None:
    own = load_text(tmp_path, ONE_POOL, environ={"HOME": "/home/x", "XDG_RUNTIME_DIR": "/run/user/7"}).daemon
    assert (own.runtime_dir, own.state_dir, own.log_dir) == (
        "/run/user/7/supervisor-d",
        "/home/x/.local/state/supervisor-d",
        "/home/x/.local/state/supervisor-d/log",
    )
    bare = load_text(tmp_path, ONE_POOL, environ={"XDG_RUNTIME_DIR": "relative", "XDG_STATE_HOME": "/s"}).daemon
    assert (bare.runtime_dir, bare.state_dir) == (f"/tmp/supervisor-d-{PLAIN_USER}", "/s/supervisor-d")
    text = ONE_POOL.replace("sleep 60", "sleep 60, user: root")
    root = load_text(tmp_path, text, euid=0).daemon
    assert (root.runtime_dir, root.state_dir, root.log_dir) == (
        "/run/supervisor-d",
        "/var/lib/supervisor-d",
        "/var/log/supervisor-d",
    )


def test_the_daemons_section(tmp_path: Path) -> None:
    text = "daemon: {runtime_dir: run, state_dir: /s, log_dir: log, starts_at_once: 3, metrics: {listen: '[::1]:9180'},"
    text += " control: {group: root, operators: root, readers: [root]}}\n"
    daemon = load_text(tmp_path, ONE_POOL + text).daemon
    assert (daemon.runtime_dir, daemon.state_dir, daemon.log_dir) == (f"{tmp_path}/run", "/s", f"{tmp_path}/log")
    assert daemon.starts_at_once == 3
    assert daemon.metrics_listen == "[::1]:9180"
    assert (daemon.control.group, daemon.control.operators, daemon.control.readers) == ("root", ("root",), ("root",))


def test_logs_lie_in_the_state_directory_that_was_given(tmp_path: Path) -> None:
    daemon = load_text(tmp_path, ONE_POOL + "daemon: {state_dir: state}\n").daemon
    assert daemon.log_dir == str(tmp_path / "state/log")


def test_metrics_and_a_pool_cannot_share_an_address(tmp_path: Path) -> None:
    found = problems_of(tmp_path, _pool(GUNICORN, "daemon: {metrics: {listen: localhost:8000}}\n"))
    assert [problem.key for problem in found] == ["pools.web.bind"]
    assert "metrics" in found[0].message


# ------------------------------------------------------------------------------------------------ users and trust


def test_root_needs_a_user_for_each_pool(tmp_path: Path) -> None:
    assert "say which user" in problems_of(tmp_path, ONE_POOL, euid=0)[0].message
    assert load_text(tmp_path, "daemon: {allow_root: true}\n" + ONE_POOL, euid=0).pools["web"].user == ""
    assert load_text(tmp_path, "defaults: {user: root}\n" + ONE_POOL, euid=0).pools["web"].user == ""
    assert load_text(tmp_path, "defaults: {user: nobody}\n" + ONE_POOL, euid=0).pools["web"].user == "nobody"
    assert load_text(tmp_path, "defaults: {user: '65534'}\n" + ONE_POOL, euid=0).pools["web"].user == "65534"


def test_roots_group_goes_with_a_user(tmp_path: Path) -> None:
    found = problems_of(tmp_path, "defaults: {user: root, group: daemon}\n" + ONE_POOL, euid=0)
    assert [problem.key for problem in found] == ["pools.web.group"]
    spec = load_text(tmp_path, "defaults: {user: nobody, group: daemon}\n" + ONE_POOL, euid=0).pools["web"]
    assert (spec.user, spec.group) == ("nobody", "daemon")


def test_a_plain_user_may_name_itself_only(tmp_path: Path) -> None:
    assert load_pool(tmp_path, COMMAND + "user: nobody").user == ""
    assert "become nobody else" in problems_of(tmp_path, _pool(COMMAND + "user: root"))[0].message
    own = os.getegid()
    assert load_pool(tmp_path, COMMAND + f'group: "{own}"').group == ""
    other = "daemon" if own != 1 else "bin"
    assert "only a daemon of root" in problems_of(tmp_path, _pool(COMMAND + f"group: {other}"))[0].message


def test_a_user_without_a_name_is_shown_by_number() -> None:
    assert Machine({}, 54321).own_name() == "54321"


only_as_root = pytest.mark.skip_allowed("a plain user cannot own files as root does; the CI job of root runs it")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can own files as root does")


@pytest.mark.root
@needs_root
@only_as_root
@pytest.mark.parametrize(
    ("spoiled", "uid", "gid", "mode", "words"),
    [
        ("etc/shop.yaml", 0, 0, 0o666, "others may write"),
        ("etc/shop.yaml", 0, 65534, 0o664, "others may write"),
        ("etc/shop.yaml", 65534, 0, 0o644, "belongs to uid 65534"),
        ("etc", 0, 0, 0o777, "others may write"),
        ("etc", 65534, 0, 0o755, "belongs to uid 65534"),
    ],
)
def test_root_trusts_only_what_root_can_write(
    tmp_path: Path, spoiled: str, uid: int, gid: int, mode: int, words: str
) -> None:
    directory = tmp_path / "etc"
    directory.mkdir(mode=0o755)
    file = directory / "shop.yaml"
    file.write_text("daemon: {allow_root: true}\n" + ONE_POOL)
    assert load_file(file, euid=0).pools
    os.chown(tmp_path / spoiled, uid, gid)
    (tmp_path / spoiled).chmod(mode)
    with pytest.raises(ConfigError, match=words):
        load_file(file, euid=0)
    assert load_file(file).pools, "a plain user's daemon can harm nobody but that user"


@pytest.mark.root
@needs_root
@only_as_root
def test_root_looks_through_links(tmp_path: Path) -> None:
    elsewhere = tmp_path / "open"
    elsewhere.mkdir()
    (elsewhere / "shop.yaml").write_text("daemon: {allow_root: true}\n" + ONE_POOL)
    elsewhere.chmod(0o777)
    (tmp_path / "link.yaml").symlink_to(elsewhere / "shop.yaml")
    with pytest.raises(ConfigError, match=r"others may write .*open"):
        load_file(tmp_path / "link.yaml", euid=0)


@pytest.mark.root
@needs_root
@only_as_root
def test_root_trusts_env_files_like_the_config(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=1\n")
    (tmp_path / ".env").chmod(0o666)
    text = _pool(COMMAND + "env_files: [.env]\nuser: root")
    assert "others may write" in problems_of(tmp_path, text, euid=0)[0].message


# --------------------------------------------------------------------------------------------------------- files


def test_a_directory_is_one_config(tmp_path: Path) -> None:
    (tmp_path / "10-daemon.yaml").write_text("version: 1\ndaemon: {starts_at_once: 3}\n")
    (tmp_path / "20-web.yml").write_text(ONE_POOL)
    (tmp_path / "30-redis.yaml").write_text(ONE_POOL.replace("web", "redis"))
    (tmp_path / ".hidden.yaml").write_text("no")
    (tmp_path / "notes.txt").write_text("no")
    config = load_file(tmp_path)
    assert list(config.pools) == ["web", "redis"]
    assert config.daemon.starts_at_once == 3
    assert list(config.texts) == [str(tmp_path / name) for name in ("10-daemon.yaml", "20-web.yml", "30-redis.yaml")]


def test_defaults_of_one_file_reach_pools_of_another(tmp_path: Path) -> None:
    (tmp_path / "z.yaml").write_text("version: 1\ndefaults: {start_timeout: 5s}\n")
    (tmp_path / "a.yaml").write_text(ONE_POOL)
    assert load_file(tmp_path).pools["web"].start_timeout_seconds == 5.0


def test_sections_and_pools_stand_once_in_a_directory(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text("daemon: {}\ndefaults: {}\n" + ONE_POOL)
    with pytest.raises(ConfigError) as raised:
        load_file(tmp_path)
    found = raised.value.problems
    assert [(problem.key, problem.line) for problem in found] == [("daemon", 1), ("defaults", 2), ("pools.web", 5)]
    assert all(problem.path.endswith("b.yaml") and "a.yaml, line" in problem.message for problem in found)


def test_an_empty_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no file named \*.yaml"):
        load_file(tmp_path)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"version: 1\n# \xff\n", ":2:3: file: is not UTF-8"),
        (b"#" * (2**20 + 1), ":1:1: file: is larger than 1024 KiB"),
    ],
)
def test_files_that_cannot_be_understood(tmp_path: Path, data: bytes, expected: str) -> None:
    (tmp_path / "shop.yaml").write_bytes(data)
    with pytest.raises(ConfigError, match=expected):
        load_file(tmp_path / "shop.yaml")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r":1:1: file: .* cannot be read: no such file"):
        load_file(tmp_path / "shop.yaml")
    os.mkfifo(tmp_path / "shop.yaml")
    with pytest.raises(ConfigError, match=r":1:1: file: .* is not a regular file"):
        load_file(tmp_path / "shop.yaml")


def test_a_byte_order_mark_is_no_problem(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(ONE_POOL, encoding="utf-8-sig")
    assert load_file(tmp_path / "shop.yaml").pools


def test_problems_carry_the_path_as_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("shop.yaml").write_text("version: 2\npools: {}\n")
    with pytest.raises(ConfigError, match=r"^shop\.yaml:1:10: version: must be 1"):
        load("shop.yaml", environ=HOME, euid=PLAIN_USER)


def test_a_copy_loads_as_the_file_did(tmp_path: Path) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(_pool(COMMAND + "cwd: ."))
    config = load_file(file)
    file.write_text("broken: [")
    copy = load_copy(config.path, config.texts, environ=HOME, euid=PLAIN_USER)
    assert (copy.pools, copy.daemon, copy.digest) == (config.pools, config.daemon, config.digest)


def test_problems_have_a_bound_and_say_so(tmp_path: Path) -> None:
    pools = "".join(f"  p{number}: {{program: command, command: sleep 60, x: 1}}\n" for number in range(300))
    found = problems_of(tmp_path, f"version: 1\npools:\n{pools}")
    assert len(found) == 201
    assert "100 more problems" in found[-1].message


def test_too_many_pools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "MAX_POOLS", 3)
    pools = "".join(f"  p{number}: {{program: command, command: sleep 60}}\n" for number in range(4))
    found = problems_of(tmp_path, f"version: 1\npools:\n{pools}")
    assert [(problem.key, problem.message) for problem in found] == [("pools.p3", "there are more than 3 pools")]


def test_a_chain_of_a_thousand_pools_is_no_circle(tmp_path: Path) -> None:
    pools = "".join(f"  p{n}: {{program: command, command: sleep 60, after: p{n + 1}}}\n" for n in range(499))
    text = f"version: 1\npools:\n{pools}  p499: {{program: command, command: sleep 60}}\n"
    assert len(load_text(tmp_path, text).pools) == 500


def test_each_circle_is_told(tmp_path: Path) -> None:
    text = """\
    version: 1
    pools:
      a: {program: command, command: sleep 60, after: [x, b]}
      b: {program: command, command: sleep 60, after: a}
      x: {program: command, command: sleep 60, after: y}
      y: {program: command, command: sleep 60, after: x}
    """
    messages = [problem.message for problem in problems_of(tmp_path, text)]
    assert [message.rpartition(": ")[2] for message in messages] == ["a -> b -> a", "x -> y -> x"]


# ------------------------------------------------------------------------------------------------------- oddities


@pytest.mark.parametrize(
    ("keys", "key", "words"),
    [
        ('command: ["a\\0b"]', "command[0]", "NUL"),
        ('command: [sleep, "a\\0b"]', "command[1]", "NUL"),
        ('command: sleep 60\nuser: "a\\0b"', "user", "NUL"),
        ('command: sleep 60\ncwd: "a\\0b"', "cwd", "NUL"),
        ('command: sleep 60\nenv: {A: "a\\0b"}', "env.A", "NUL"),
        ('command: sleep 60\ncwd: ""', "cwd", "must be a path"),
        ("command: sleep 60\npython: ~/venv/bin/python", "python", "not expanded"),
        ("command: sleep 60\nstart_timeout: [1s]", "start_timeout", "must be a duration, like 30s"),
        ("command: sleep 60\nstart_timeout: 365d12h", "", ""),
        ("command: sleep 60\nlog: {max_size: true}", "log.max_size", "must be a size, like 64MiB"),
        ("command: sleep 60\nlog: {max_size: 0B}", "log.max_size", "must be at least 1B"),
        ("command: sleep 60\nstop: [TERM 1s, TERM 1s" + ", TERM 1s" * 15 + ", KILL]", "stop", "more than 16 steps"),
        ("command: sleep 60\nstop: []", "stop", "must end with KILL"),
        ("command: sleep 60\nrestart: {backoff: 5m}", "restart.backoff", "is more than `backoff_max`, 1m"),
        ("command: sleep 60\nrestart: {when: [never]}", "restart.when", "must be always"),
        ("command: sleep 60\nenv: {from_env: X}\nenv_files: {a: b}", "env_files", "must be text"),
        ("command: sleep 60\nready: {exec: []}", "ready.exec", "names no program"),
    ],
)
def test_oddities(tmp_path: Path, keys: str, key: str, words: str) -> None:
    found = problems_of(tmp_path, _pool("program: command\n" + keys))
    assert [problem.key for problem in found] == ([f"pools.web.{key}"] if key else [])
    assert all(words in problem.message for problem in found)


def test_a_variable_may_be_called_from_env(tmp_path: Path) -> None:
    assert load_pool(tmp_path, COMMAND + "env: {from_env: x}").env == {"from_env": "x"}


def test_a_lease_may_be_its_url_alone(tmp_path: Path) -> None:
    beat = "program: celery-beat\napp: shop\n"
    short = load_pool(tmp_path, beat + "lease: redis://host/0")
    assert short.keys.lease == LeaseKeys("redis://host/0")
    whole = load_pool(tmp_path, beat + "lease: {variable: URL, ttl: 2s}\nenv: {URL: redis://host/1}")
    assert whole.keys.lease == LeaseKeys(variable="URL", ttl=2.0)
    assert short.digest != whole.digest
