"""The sample shop under the daemon: it serves, it works, and whatever is killed comes back."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress

import msgspec
import pytest

from supervisor_d.core.snapshot import Entry
from tests.support import net, plain_user, procs
from tests.support.ending import Watched
from tests.support.shop import POOLS, Shop
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.real, pytest.mark.slow]


@pytest.fixture(scope="module")
def running() -> Iterator[Shop]:
    with Shop() as shop:
        shop.wait_open()
        yield shop


@pytest.fixture
def shop(running: Shop) -> Shop:
    """The one shop, whole again whatever the test before did to it, and nothing of that still on its way out."""
    running.wait_open()
    for name in POOLS:
        running.wait_pids(name, 1)
    return running


def _kill(pid: int) -> None:
    with Watched(pid) as watched:
        os.kill(pid, signal.SIGKILL)
        watched.end_time(5)


# what it does


def test_pages_are_served_with_the_seed_data(shop: Shop) -> None:
    status, page = net.get(shop.port, "/authors")
    assert status == 200
    authors = shop.get("/api/authors?size=5")["authors"]
    assert len(authors) == 5
    assert authors[0]["name"] in page
    assert any(author["books"] for author in authors)
    served = shop.get("/healthz")
    assert served["master_pid"] == shop.pid_of("web")
    assert served["pid"] in shop.gunicorn_workers()


def test_a_task_is_done_by_a_pool_process(shop: Shop) -> None:
    assert shop.run_task() in shop.celery_children()


def test_a_change_is_recorded_by_a_task_after_the_commit(shop: Shop) -> None:
    before = {change["id"] for change in shop.get("/api/status")["changes"]}
    status, _ = net.request(shop.port, "DELETE", "/api/books/1/authors", '{"author_ids": [1, 2, 3, 4, 5]}')
    assert status == 200
    status, _ = net.request(shop.port, "POST", "/api/books/1/authors", '{"author_ids": [1]}')
    assert status == 200
    children = {f"pid {pid}" for pid in shop.celery_children()}

    def recorded() -> bool:
        return any(c["id"] not in before and c["worker"] in children for c in shop.get("/api/status")["changes"])

    wait_for(recorded, 20, "the change to be recorded by a worker")


def test_beat_sends_its_task_and_a_worker_does_it(shop: Shop) -> None:
    heartbeat = wait_for(lambda: shop.get("/api/status")["heartbeat"], 30, "the first heartbeat")
    assert heartbeat["beats"] >= 1
    assert heartbeat["authors"] > 0


def test_metrics_count_the_shops_workers(shop: Shop) -> None:
    status, text = net.get(shop.metrics_port, "/metrics")
    assert status == 200
    assert 'supervisor_daemon_pool_workers_ready{pool="web"} 2.0' in text
    assert 'supervisor_daemon_pool_workers_ready{pool="worker"} 2.0' in text
    assert 'supervisor_daemon_pool_workers_ready{pool="beat"} 1.0' in text


# what is killed


def test_a_killed_gunicorn_worker_is_replaced_by_its_master(shop: Shop) -> None:
    master, before, serial = shop.pid_of("web"), shop.gunicorn_workers(), shop.last_serial()
    _kill(before[0])
    wait_for(lambda: len(shop.gunicorn_workers()) == 2, 10, "the second worker")
    told = shop.wait_event("worker-exited", after=serial, pool="web")
    assert f"its worker {before[0]} " in told.reason
    shop.wait_running("web")
    assert shop.pid_of("web") == master
    assert before[0] not in shop.gunicorn_workers()
    assert shop.get("/healthz")["status"] == "ok"


def test_a_killed_gunicorn_master_comes_back_on_the_same_socket(shop: Shop) -> None:
    master, orphans, port = shop.pid_of("web"), shop.gunicorn_workers(), shop.port
    serial = shop.last_serial()
    _kill(master)
    shop.wait_event("main-exited", after=serial, pool="web", text="killed by SIGKILL, by itself")
    shop.wait_event("spawn", after=serial, pool="web", text="restart 1: killed by SIGKILL")
    shop.wait_event("became-ready", after=serial, pool="web")
    shop.wait_running("web")
    assert shop.pid_of("web") != master
    assert shop.port == port
    # The orphans go on answering until they have noticed, and finished what they had.
    wait_for(lambda: not any(procs.alive(pid) for pid in orphans), 45, "the orphaned workers to be gone")
    assert shop.get("/healthz")["master_pid"] == shop.pid_of("web")
    shop.wait_event("tree-emptied", after=serial, pool="web", text="nothing is left of its tree")


def test_a_killed_celery_main_comes_back_with_its_children_gone(shop: Shop) -> None:
    main, children, serial = shop.pid_of("worker"), shop.celery_children(), shop.last_serial()
    assert len(children) == 2
    _kill(main)
    shop.wait_event("main-exited", after=serial, pool="worker", text="killed by SIGKILL, by itself")
    shop.wait_event("spawn", after=serial, pool="worker", text="killed by SIGKILL")
    shop.wait_running("worker")
    assert not any(procs.alive(pid) for pid in children)
    assert shop.pid_of("worker") != main
    assert shop.run_task() in shop.celery_children()


def test_a_killed_pool_process_is_replaced_by_its_main(shop: Shop) -> None:
    main, before, serial = shop.pid_of("worker"), shop.celery_children(), shop.last_serial()
    _kill(before[0])
    told = shop.wait_event("worker-exited", after=serial, pool="worker")
    assert f"its worker {before[0]} " in told.reason
    wait_for(lambda: len(shop.celery_children()) == 2, 20, "the second pool process")
    shop.wait_running("worker")
    assert shop.pid_of("worker") == main
    assert shop.run_task() in shop.celery_children()


def test_a_killed_redis_comes_back_and_its_clients_with_it(shop: Shop) -> None:
    redis, others, serial = shop.pid_of("redis"), {n: shop.pids(n) for n in POOLS if n != "redis"}, shop.last_serial()
    _kill(redis)
    shop.wait_event("main-exited", after=serial, pool="redis", text="killed by SIGKILL, by itself")
    shop.wait_event("became-ready", after=serial, pool="redis")
    shop.wait_running("redis")
    assert shop.pid_of("redis") != redis
    wait_for(lambda: _task_done(shop), 60, "a task to be done again")
    assert {n: shop.pids(n) for n in POOLS if n != "redis"} == others


def _task_done(shop: Shop) -> bool:
    try:
        return shop.run_task() > 0
    except AssertionError:
        return False


@pytest.mark.parametrize("pool", ["web", "worker"])
def test_a_killed_shim_is_told_and_its_process_lives_on(shop: Shop, pool: str) -> None:
    main, serial = shop.pid_of(pool), shop.last_serial()
    tree = [main, *procs.below(main)]
    _kill(shop.shim_of(main))
    shop.wait_event("shim-replaced", after=serial, pool=pool)
    shop.wait_running(pool)
    assert shop.pid_of(pool) == main
    assert all(procs.alive(pid) for pid in tree)
    assert shop.get("/healthz")["master_pid"] == shop.pid_of("web")
    assert shop.run_task() > 0


def test_a_killed_zygote_harms_nobody(shop: Shop) -> None:
    before = shop.all_pids()
    zygotes = [pid for pid in procs.children(shop.pid) if "zygote" in procs.command_line(pid)]
    assert len(zygotes) == 1
    _kill(zygotes[0])
    shop.must("restart", "beat")
    after = shop.all_pids()
    assert {name: pid for name, pid in after.items() if not name.startswith("beat")} == {
        name: pid for name, pid in before.items() if not name.startswith("beat")
    }


def test_a_killed_daemon_is_noticed_by_nobody(shop: Shop) -> None:
    before, port = shop.all_pids(), shop.port
    workers = [*shop.gunicorn_workers(), *shop.celery_children()]
    shop.kill()
    assert net.get(port, "/healthz")[0] == 200
    shop.start()
    assert shop.all_pids() == before
    assert [*shop.gunicorn_workers(), *shop.celery_children()] == workers
    shop.wait_open()
    assert shop.run_task() > 0


# what operators do


def test_a_restart_of_the_workers_interrupts_no_task(shop: Shop) -> None:
    url = shop.submit("long", steps=15, step_seconds=0.2)
    shop.task_state(url, "PROGRESS")
    before = shop.pid_of("worker")
    shop.must("restart", "worker")
    answer = shop.task_state(url, "SUCCESS")
    assert answer["result"]["runs"] == 1
    assert before not in shop.wait_pids("worker", 1).values()


def test_there_is_never_more_than_one_beat(shop: Shop) -> None:
    before, serial = shop.pid_of("beat"), shop.last_serial()
    shop.must("restart", "beat")
    assert shop.pid_of("beat") != before
    story = [(entry.name, entry.subject) for entry in shop.events(after=serial, pool="beat")]
    emptied = next(n for n, (name, _) in enumerate(story) if name == "tree-emptied")
    spawned = next(n for n, (name, _) in enumerate(story) if name == "spawn")
    assert emptied < spawned


def test_workers_and_web_are_scaled_in_place_and_further_workers_get_a_node_of_their_own(shop: Shop) -> None:
    master, main = shop.pid_of("web"), shop.wait_pids("worker", 1)
    shop.must("scale", "web=3")
    assert len(shop.gunicorn_workers()) == 3
    shop.must("scale", "worker=4")
    wait_for(lambda: len(shop.celery_children()) == 4, 20, "four pool processes")
    assert shop.pids("worker") == main
    shop.must("scale", "worker=6")
    assert len(shop.wait_pids("worker", 2)) == 2
    assert main.items() < shop.pids("worker").items()
    shop.must("scale", "worker=config")
    shop.must("scale", "web=config")
    assert len(shop.gunicorn_workers()) == 2
    assert shop.pid_of("web") == master
    assert shop.wait_pids("worker", 1) == main


# its end


def test_a_plain_users_shop_in_a_directory_with_a_blank_ends_in_reverse_order_at_ctrl_c() -> None:
    shop = Shop("a shop")
    if os.geteuid() == 0:
        (shop.directory / "home").mkdir(mode=0o755)
        shop.prefix = plain_user.becoming(shop.directory / "home")
        os.chown(shop.directory, plain_user.uid() if shop.prefix else -1, -1)
    with shop:
        shop.wait_open()
        uids = _uids(shop.marker.members())
        assert uids == {str(plain_user.uid() if shop.prefix else os.geteuid())}
        assert shop.run_task() > 0
        shop.signal(signal.SIGINT)
        assert shop.wait_end() == 0
        shop.assert_nothing_left()
        lines = (shop.data / "state" / "history.jsonl").read_bytes().splitlines()
        entries = [msgspec.json.decode(line, type=Entry) for line in lines]
        told = {entry.pool: entry.serial for entry in entries if entry.name in ("signal", "kill")}
        gone = {entry.pool: entry.serial for entry in entries if entry.name == "tree-emptied"}
        assert gone["web"] < told["worker"]
        assert gone["beat"] < told["worker"]
        assert gone["worker"] < told["redis"]


def _uids(pids: set[int]) -> set[str]:
    """Of those that have not ended meanwhile: some are short-lived."""
    found: set[str] = set()
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):
            found.add(procs.status(pid)["Uid"].split()[0])
    return found
