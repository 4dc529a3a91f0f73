"""Each program is a pure function from a spec to a launch: what it starts, with what, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Any

import pytest

from supervisor_d.core.spec import Fitness, Launch, LaunchContext, Listener, PoolSpec, Probe, RestartPolicy, StopStep
from supervisor_d.programs.beat import BeatKeys, LeaseKeys
from supervisor_d.programs.celery import CeleryKeys
from supervisor_d.programs.command import CommandKeys
from supervisor_d.programs.gunicorn import GunicornKeys
from supervisor_d.programs.oneshot import OneshotKeys
from supervisor_d.programs.registry import PROGRAMS

BIND = (Listener("127.0.0.1:8000"),)
ONCE = RestartPolicy(when="on-failure")


def spec_of(program: str, keys: Any, **common: Any) -> PoolSpec:
    values: dict[str, Any] = {"name": "web", "workers": 1, "stop": PROGRAMS[program].stop_for(keys), "cwd": "/srv/app"}
    return PoolSpec(program=program, keys=keys, **{**values, **common})


def context_of(**values: Any) -> LaunchContext:
    defaults: dict[str, Any] = {
        "process_id": "web.0@g3.17",
        "slot": 0,
        "generation": 3,
        "workers": 2,
        "private_dir": "/run/supervisor-d/private/web.0@g3.17",
        "agents_dir": "/opt/agents",
        "base_env": {"PATH": "/usr/bin", "HOME": "/home/www"},
    }
    return LaunchContext(**{**defaults, **values})


def after(argv: tuple[str, ...], option: str) -> str:
    return argv[argv.index(option) + 1]


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_a_program_is_complete(program: Any) -> None:
    assert PROGRAMS[program.name] is program
    assert program.default_stop[-1] == StopStep("KILL")
    assert program.default_restart_when in ("always", "on-failure", "never")
    assert dataclasses.is_dataclass(program.keys_type)
    for key in dataclasses.fields(program.keys_type):
        assert key.metadata["doc"].endswith("."), f"{program.name}: {key.name} needs a doc"


# ------------------------------------------------------------------------------------------------ gunicorn


def test_gunicorn_argv() -> None:
    keys = GunicornKeys(app="shop.wsgi", worker_class="gthread", threads=12, timeout=29.5, args=("--max-requests", "9"))
    launch = PROGRAMS["gunicorn"].launch(
        spec_of("gunicorn", keys, listeners=BIND, python="/venv/bin/python"), context_of()
    )
    assert launch.argv[:3] == ("/venv/bin/python", "-m", "supervisor_d_gunicorn_agent")
    assert launch.env["PYTHONPATH"] == "/opt/agents"
    assert launch.env["SUPERVISOR_D_AGENT_DIR"] == "/run/supervisor-d/private/web.0@g3.17"
    assert launch.argv[-3:] == ("--max-requests", "9", "shop.wsgi")
    assert after(launch.argv, "-w") == "2"
    assert after(launch.argv, "--threads") == "12"
    assert after(launch.argv, "--worker-connections") == "16"
    assert after(launch.argv, "--timeout") == "30"
    assert after(launch.argv, "--keep-alive") == "75"
    assert after(launch.argv, "--name") == "web-g3"
    assert after(launch.argv, "--control-socket") == "/run/supervisor-d/private/web.0@g3.17/gunicorn.ctl"
    assert launch.listeners == (0,)
    assert launch.log_name == "web.0"
    assert launch.orphan_grace_seconds == 30.0


def test_gunicorn_without_our_agent_is_gunicorn() -> None:
    keys = GunicornKeys(app="shop.wsgi", agent=False)
    launch = PROGRAMS["gunicorn"].launch(spec_of("gunicorn", keys, python="/venv/bin/python"), context_of())
    assert launch.argv[:3] == ("/venv/bin/python", "-m", "gunicorn")
    assert not {"PYTHONPATH", "SUPERVISOR_D_AGENT_DIR"} & set(launch.env)


@pytest.mark.parametrize(("version", "has"), [("25.0.3", False), ("25.1.0", True), ("", True)])
def test_what_a_version_of_gunicorn_lacks_is_not_asked_for(version: str, has: bool) -> None:
    context = context_of(installed={"gunicorn": version}.__getitem__)
    argv = PROGRAMS["gunicorn"].launch(spec_of("gunicorn", GunicornKeys("shop.wsgi")), context).argv
    assert ("--control-socket" in argv) is has


def test_the_fitness_of_gunicorns_workers() -> None:
    keys = GunicornKeys(
        "a", request_timeout=60.0, max_worker_memory=2**29, max_worker_age=86400.0, graceful_timeout=9.5
    )
    spec = spec_of("gunicorn", keys)
    assert PROGRAMS["gunicorn"].launch(spec, context_of()).fitness == Fitness(60.0, 2**29, 86400.0, 10.0)
    assert not PROGRAMS["gunicorn"].launch(spec, context_of(role="canary")).fitness.limits_something
    without = spec_of("gunicorn", dataclasses.replace(keys, agent=False), listeners=BIND)
    assert PROGRAMS["gunicorn"].launch(without, context_of()).fitness.request_seconds is None
    assert "needs `agent: true`" in PROGRAMS["gunicorn"].problems(without)["request_timeout"]


def test_gunicorn_says_what_was_asked_for() -> None:
    keys = GunicornKeys("a", "gthread", keep_alive=0.5, worker_connections=99, preload=True)
    argv = PROGRAMS["gunicorn"].launch(spec_of("gunicorn", keys), context_of()).argv
    assert after(argv, "--keep-alive") == "1"
    assert after(argv, "--worker-connections") == "99"
    assert "--preload" in argv
    assert "--threads" not in argv


@pytest.mark.parametrize(("worker_class", "seconds"), [("sync", "75"), ("gevent", "5"), ("asgi", "5")])
def test_gunicorn_keep_alive_follows_the_worker_class(worker_class: str, seconds: str) -> None:
    launch = PROGRAMS["gunicorn"].launch(spec_of("gunicorn", GunicornKeys("a", worker_class)), context_of())
    assert after(launch.argv, "--keep-alive") == seconds
    assert "--worker-connections" not in launch.argv
    assert "--preload" not in launch.argv


def test_gunicorn_stop_outlasts_its_own_grace() -> None:
    program = PROGRAMS["gunicorn"]
    assert program.stop_for(GunicornKeys("a")) == program.default_stop
    assert program.stop_for(GunicornKeys("a", graceful_timeout=59.2))[0] == StopStep("TERM", 61.0)


def test_gunicorn_is_one_process_or_none() -> None:
    spec = spec_of("gunicorn", GunicornKeys("a"))
    assert [PROGRAMS["gunicorn"].sizes(spec, n) for n in (0, 1, 7)] == [(), (1,), (7,)]


def test_the_environment_is_clean_and_the_pools_own_wins() -> None:
    env = {"HOME": "/srv", "GUNICORN_CMD_ARGS": "-D", "LISTEN_FDS": "9", "WEB_CONCURRENCY": "4", "PORT": "1"}
    spec = spec_of("gunicorn", GunicornKeys("a", agent=False), env=env, python="/venv/bin/python")
    launch = PROGRAMS["gunicorn"].launch(spec, context_of(base_env={"PATH": "/usr/bin", "NOTIFY_SOCKET": "/run/n"}))
    assert launch.env == {"HOME": "/srv", "PATH": "/venv/bin:/usr/bin", "PYTHONUNBUFFERED": "1", "PORT": "1"}


def test_a_path_of_the_pools_own_is_left_alone() -> None:
    spec = spec_of("command", CommandKeys(("x",)), env={"PATH": "/mine"}, python="/venv/bin/python")
    assert PROGRAMS["command"].launch(spec, context_of()).env["PATH"] == "/mine"


@pytest.mark.parametrize(
    ("keys", "common", "key"),
    [
        (GunicornKeys("a"), {"listeners": ()}, "bind"),
        (GunicornKeys("a"), {"workers": 0}, "workers"),
        (GunicornKeys("a", threads=4), {}, "threads"),
        (GunicornKeys("a", graceful_timeout=60.0), {"stop": (StopStep("TERM", 30.0), StopStep("KILL"))}, "stop"),
        *[
            (GunicornKeys("a", args=(arg,)), {}, "args")
            for arg in ("-b:80", "--bind=:80", "--bin", "-w3", "--workers=3", "--control-socket", "-D", "--reload")
        ],
    ],
)
def test_gunicorn_refuses(keys: GunicornKeys, common: dict[str, Any], key: str) -> None:
    spec = spec_of("gunicorn", keys, **{"listeners": BIND, **common})
    assert list(PROGRAMS["gunicorn"].problems(spec)) == [key]


def test_gunicorn_passes_what_it_does_not_own() -> None:
    args = (
        "--max-requests",
        "1000",
        "--access-logfile",
        "-",
        "--reload-engine",
        "poll",
        "--log-level",
        "debug",
        "-c",
        "x",
    )
    spec = spec_of("gunicorn", GunicornKeys("a", args=args), listeners=BIND)
    assert PROGRAMS["gunicorn"].problems(spec) == {}


# ------------------------------------------------------------------------------------------------ celery


def test_celery_argv() -> None:
    keys = CeleryKeys(app="shop", queues=("mail", "slow"), prefetch=2, args=("--max-tasks-per-child", "100"))
    spec = spec_of("celery", keys, name="worker", env={"PYTHONPATH": "/srv/lib"})
    launch = PROGRAMS["celery"].launch(spec, context_of(process_id="worker.1@g3.17", slot=1))
    assert launch.argv[:6] == (sys.executable, "-m", "celery", "-A", "shop", "worker")
    assert after(launch.argv, "-n") == "worker-1-g3-17@%h"
    assert after(launch.argv, "-c") == "2"
    assert after(launch.argv, "-P") == "processes", "what `-P prefork` leaves to the application's settings"
    assert after(launch.argv, "-Q") == "mail,slow"
    assert after(launch.argv, "--prefetch-multiplier") == "2"
    assert after(launch.argv, "-I") == "supervisor_d_celery_agent"
    assert launch.argv[-2:] == ("--max-tasks-per-child", "100")
    assert launch.env["PYTHONPATH"] == "/srv/lib:/opt/agents"
    assert launch.agent


def test_celery_without_its_agent_loads_nothing_of_ours() -> None:
    launch = PROGRAMS["celery"].launch(spec_of("celery", CeleryKeys("shop", agent=False)), context_of())
    assert "-I" not in launch.argv
    assert "PYTHONPATH" not in launch.env
    assert not launch.agent


@pytest.mark.parametrize(
    ("configured", "concurrency", "workers", "sizes"),
    [
        (2, None, 2, (2,)),
        (2, None, 5, (2, 2, 1)),
        (20, None, 20, (8, 8, 4)),
        (10, 4, 10, (4, 4, 2)),
        (10, 4, 11, (4, 4, 3)),
        (3, 8, 3, (3,)),
        (0, None, 2, (1, 1)),
        (4, 2, 0, ()),
    ],
)
def test_celery_sizes(configured: int, concurrency: int | None, workers: int, sizes: tuple[int, ...]) -> None:
    spec = spec_of("celery", CeleryKeys("shop", concurrency=concurrency), workers=configured)
    assert PROGRAMS["celery"].sizes(spec, workers) == sizes


@pytest.mark.parametrize("arg", ["-B", "-D", "--autoscale=8,1", "-E", "-n", "-c4", "--concurrency=4", "-Psolo"])
def test_celery_refuses_arguments_it_owns(arg: str) -> None:
    assert list(PROGRAMS["celery"].problems(spec_of("celery", CeleryKeys("shop", args=(arg,))))) == ["args"]


def test_celery_refuses_two_queues_in_one_name_and_a_socket() -> None:
    spec = spec_of("celery", CeleryKeys("shop", queues=("a,b",)), listeners=BIND)
    assert set(PROGRAMS["celery"].problems(spec)) == {"queues", "bind"}


# ------------------------------------------------------------------------------------------------ beat


def test_beat_argv() -> None:
    keys = BeatKeys(app="shop", schedule="/var/lib/shop/schedule", scheduler="x:Y")
    launch = PROGRAMS["celery-beat"].launch(spec_of("celery-beat", keys), context_of())
    assert launch.argv[1:6] == ("-m", "supervisor_d_celery_beat", "-A", "shop", "beat")
    assert after(launch.argv, "-s") == "/var/lib/shop/schedule"
    assert after(launch.argv, "-S") == "x:Y"
    assert "--pidfile=" in launch.argv
    plain = PROGRAMS["celery-beat"].launch(spec_of("celery-beat", BeatKeys("shop", agent=False)), context_of())
    assert plain.argv[1:3] == ("-m", "celery")
    assert "-s" not in plain.argv


def test_a_lease_is_told_in_the_environment_and_nowhere_else() -> None:
    def launch(lease: LeaseKeys, **env: str) -> Launch:
        spec = spec_of("celery-beat", BeatKeys("shop", lease=lease), env=env)
        assert PROGRAMS["celery-beat"].problems(spec) == {}
        return PROGRAMS["celery-beat"].launch(spec, context_of())

    plain = launch(LeaseKeys("redis://:secret@host/0"))
    told = {"url": "redis://:secret@host/0", "key": "supervisor-d:beat:shop", "ttl": 15.0}
    assert json.loads(plain.env["SUPERVISOR_D_LEASE"]) == told
    assert "secret" not in " ".join(plain.argv)
    other = launch(LeaseKeys(variable="URL", key="nightly", ttl=2.0), URL="unix:///run/redis.sock")
    told = {"url": "unix:///run/redis.sock", "key": "nightly", "ttl": 2.0}
    assert json.loads(other.env["SUPERVISOR_D_LEASE"]) == told


@pytest.mark.parametrize(
    ("lease", "why"),
    [
        (LeaseKeys(), "needs either `url` or `variable`"),
        (LeaseKeys("redis://x", variable="URL"), "needs either `url` or `variable`"),
        (LeaseKeys(variable="NONE"), "has no variable NONE"),
        (LeaseKeys("amqp://:secret@x"), "url must start with redis://, rediss://, unix://"),
        (LeaseKeys(variable="URL"), "URL must start with redis://"),
    ],
)
def test_what_is_wrong_with_a_lease_is_said_without_its_url(lease: LeaseKeys, why: str) -> None:
    spec = spec_of("celery-beat", BeatKeys("shop", lease=lease), env={"URL": "secret"})
    found = PROGRAMS["celery-beat"].problems(spec)["lease"]
    assert why in found
    assert "secret" not in found


def test_a_lease_needs_the_agent() -> None:
    spec = spec_of("celery-beat", BeatKeys("shop", agent=False, lease=LeaseKeys("redis://x")))
    assert "agent" in PROGRAMS["celery-beat"].problems(spec)["lease"]


def test_beat_is_single() -> None:
    program = PROGRAMS["celery-beat"]
    assert program.traits.exclusive
    assert program.default_rollout.max_surge == 0
    assert program.sizes(spec_of("celery-beat", BeatKeys("shop")), 5) == (1,)
    spec = spec_of("celery-beat", BeatKeys("shop", args=("--detach",)), workers=2, listeners=BIND)
    assert set(program.problems(spec)) == {"workers", "args", "bind"}


# ------------------------------------------------------------------------------------------------ command, oneshot


def test_command_argv_and_sizes() -> None:
    spec = spec_of("command", CommandKeys("redis-server --dir '/var/lib/my redis'"), ready=(Probe("notify"),))
    launch = PROGRAMS["command"].launch(spec, context_of())
    assert launch.argv == ("redis-server", "--dir", "/var/lib/my redis")
    assert launch.notify
    assert launch.cwd == "/srv/app"
    assert PROGRAMS["command"].sizes(spec, 3) == (1, 1, 1)
    assert PROGRAMS["command"].problems(spec) == {}


@pytest.mark.parametrize("command", ["", (), ("",), "sh -c 'echo", ("a", "b\0c")])
@pytest.mark.parametrize(("program", "keys_type"), [("command", CommandKeys), ("oneshot", OneshotKeys)])
def test_a_command_that_names_nothing(program: str, keys_type: type, command: Any) -> None:
    spec = spec_of(program, keys_type(command), restart=ONCE)
    assert list(PROGRAMS[program].problems(spec)) == ["command"]


def test_oneshot_runs_once() -> None:
    program = PROGRAMS["oneshot"]
    keys = OneshotKeys(("python", "manage.py", "migrate"))
    assert program.traits.oneshot
    assert program.launch(spec_of("oneshot", keys), context_of()).argv == keys.command
    assert program.sizes(spec_of("oneshot", keys), 1) == (1,)
    assert program.problems(spec_of("oneshot", keys, restart=ONCE)) == {}
    wrong = spec_of("oneshot", keys, workers=2, ready=(Probe("tcp", "127.0.0.1:1"),))
    assert set(program.problems(wrong)) == {"workers", "restart", "ready"}
