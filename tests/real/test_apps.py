"""Applications as `check` looks at them: imported by a process of their own, for a bounded time."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from supervisor_d.apps import _in_place, inspected, look
from supervisor_d.core.spec import PoolSpec
from supervisor_d.programs.beat import BeatKeys
from supervisor_d.programs.celery import CeleryKeys
from supervisor_d.programs.celery_advice import EntryFacts, TaskFacts
from supervisor_d.programs.gunicorn import GunicornKeys
from tests.support import plain_user, procs
from tests.support.daemon import ROOT
from tests.support.waiting import wait_for

pytestmark = pytest.mark.real

SHOP = """
import os
from celery import Celery
print("noise on stdout")
app = Celery("shop", broker="redis://:secret@127.0.0.1:1/0")
app.conf.task_acks_late = True
app.conf.task_time_limit = 40
app.conf.broker_transport_options = {"visibility_timeout": 60, "polling_interval": 2}
app.conf.task_routes = {"shop.mail": {"queue": "mail"}}
app.conf.beat_schedule = {
    "nightly": {"task": "shop.mail", "schedule": 60.0},
    "gone": {"task": "shop.gone", "schedule": 60.0},
}

@app.task(name="shop.mail", acks_late=False)
def mail(): ...

@app.task(name="shop.report", time_limit=50, reject_on_worker_lost=True)
def report(): ...
"""


def pool(directory: Path, text: str = SHOP) -> PoolSpec:
    (directory / "shop.py").write_text(text)
    return PoolSpec("worker", "celery", 2, CeleryKeys("shop"), cwd=str(directory))


def test_what_decides_what_can_be_lost_is_seen(tmp_path: Path) -> None:
    app = inspected(pool(tmp_path), 60)
    assert app.error == ""
    assert (app.transport, app.visibility_timeout, app.disable_prefetch) == ("redis", 60.0, False)
    assert app.polling_interval == 2.0
    assert app.worker_pool == "prefork"
    assert app.tasks == (
        TaskFacts("shop.mail", acks_late=False, reject_on_worker_lost=False, time_limit=40.0),
        TaskFacts("shop.report", acks_late=True, reject_on_worker_lost=True, time_limit=50.0),
    )
    assert app.queues == ("celery",)
    assert app.schedule == (
        EntryFacts("nightly", "shop.mail", known=True, queue="mail"),
        EntryFacts("gone", "shop.gone", known=False, queue="celery"),
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shop.py"], "nothing is written, no bytecode either"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("import nosuch", "ModuleNotFoundError: No module named 'nosuch'"),
        ("raise RuntimeError('SECRET_KEY\\nis not set')", "RuntimeError: SECRET_KEY is not set"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("def broken(:", "SyntaxError: invalid syntax"),
        ("import os; os._exit(3)", "ended its process (exit 3)"),
        ("import os; os.write(1, b'x' * 10)", "shop"),
        ("import os; os.kill(os.getpid(), 11)", "ended its process (exit -11)"),
    ],
)
def test_an_application_that_cannot_be_imported_says_why(tmp_path: Path, text: str, why: str) -> None:
    assert why in inspected(pool(tmp_path, text), 60).error


def test_an_import_that_hangs_is_killed_with_all_it_started(tmp_path: Path) -> None:
    text = """
import subprocess, time
child = subprocess.Popen(["sleep", "600"], start_new_session=True)
open("pid", "w").write(str(child.pid))
time.sleep(600)
"""
    began = time.monotonic()
    assert inspected(pool(tmp_path, text), 5.0).error == "it was not imported within 5 s"
    assert time.monotonic() - began < 30
    child = int((tmp_path / "pid").read_text())
    wait_for(lambda: not procs.alive(child), 5, "the child to be gone")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can look as another user")
def test_it_is_the_pools_user_who_imports(open_path: Path) -> None:
    python = open_path / "python"  # root's own may be in a home that nobody else can enter
    python.write_text('#!/bin/sh\nprintf \'{"error": "%s"}\\n\' "$(id -u) $(id -G) $HOME $*"\n')
    python.chmod(0o755)
    entry = pwd.getpwuid(plain_user.uid())
    spec = replace(pool(open_path), python=str(python), user=entry.pw_name)
    groups = {int(group) for group in os.getgrouplist(entry.pw_name, entry.pw_gid)}
    uid, *seen, home, _, module, app = inspected(spec, 60).error.split()
    assert (uid, home, module, app) == (str(entry.pw_uid), entry.pw_dir, "supervisor_d_inspect", "shop")
    assert {int(group) for group in seen} == groups
    assert "cannot run as user nosuch" in inspected(replace(spec, user="nosuch"), 60).error


def test_an_application_is_imported_once_for_all_its_pools(tmp_path: Path) -> None:
    worker = pool(tmp_path, SHOP + "\nopen('imports', 'a').write('x')\n")
    beat = replace(worker, name="beat", program="celery-beat", keys=BeatKeys("shop"))
    found = list(look({"worker": worker, "beat": beat, "again": worker}))
    assert (tmp_path / "imports").read_text() == "x"
    assert {name for name, _, _ in found} == {"worker", "beat", "again"}
    assert list(look({"worker": worker}, run_apps=False)) == []


def test_code_in_place(tmp_path: Path) -> None:
    shop, release, link = tmp_path / "shop", tmp_path / "releases" / "x", tmp_path / "current"
    shop.mkdir()
    release.mkdir(parents=True)
    link.symlink_to(shop)
    assert [_in_place(str(path)) for path in (shop, release, link)] == [True, False, False]
    assert not _in_place("/srv/shop-20260127T1030/1.4.2")
    web = PoolSpec("web", "gunicorn", 1, GunicornKeys("shop:app"), cwd=str(shop))
    assert [(name, key) for name, key, _ in look({"web": web})] == [("web", "cwd")]
    assert list(look({"web": replace(web, keys=GunicornKeys("shop:app", preload=True))})) == []


def test_check_tells_it_with_its_place_and_ends_with_0(tmp_path: Path) -> None:
    pool(tmp_path)
    config = tmp_path / "shop.yaml"
    config.write_text(
        "version: 1\ndaemon: {allow_root: true}\npools:\n"
        "  worker:\n    program: celery\n    app: shop\n    prefetch: 4\n"
    )

    def check(*options: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "supervisor_d", "check", str(config), *options]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, env=env)

    told = check()
    assert told.returncode == 0
    assert f"{config}:7:15: warning: pools.worker.prefetch: early acknowledgement of 1 task (shop.mail)" in told.stderr
    assert f"{config}:6:10: warning: pools.worker.app: visibility_timeout (1m) is less than twice" in told.stderr
    assert "secret" not in told.stderr
    as_data = json.loads(check("--json").stdout)
    assert [each["key"] for each in as_data["warnings"]] == ["pools.worker.app", "pools.worker.prefetch"]
    assert check("--no-apps").stderr == ""
