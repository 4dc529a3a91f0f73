"""After any death of a worker its messages are back in their queues at once; what was done is not done again."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import run
from typing import Any

import pytest

from supervisor_d.agents.supervisor_d_celery.ledger import Ledger
from tests.agents.harness import AGENTS_DIR, Node, Server, Truth, full_dose
from tests.support.dose import FULL
from tests.support.waiting import wait_for

pytestmark = pytest.mark.real

Start = Callable[..., Node]
LATE = {"task_acks_late": True}


@pytest.mark.parametrize("prefetch", [1, 4] if FULL else [4])
def test_killed_everything_is_back_and_nothing_is_lost(start: Start, truth: Truth, prefetch: int) -> None:
    node = start(prefetch=prefetch, conf=LATE)
    node.ready()
    truth.send(range(20), 5.0)
    wait_for(lambda: truth.unacked() == 2 * prefetch, 20, "a full worker")
    node.kill()
    assert truth.queued() == 20 - 2 * prefetch
    code, counts, seconds = node.restore()
    assert code == 0
    assert counts == {"held": 2 * prefetch, "restored": 2 * prefetch, "acked": 0, "skipped": 0, "gone": 0}
    assert (truth.queued(), truth.unacked()) == (20, 0)
    print(f"restored {counts['held']} in {seconds:.2f} s")
    assert node.restore()[:2] == (0, dict.fromkeys(counts, 0)), "once more changes nothing"
    assert truth.queued() == 20


def test_the_restored_are_the_next_to_run_in_their_order(start: Start, truth: Truth, broker: Server) -> None:
    node = start(concurrency=1, prefetch=4, conf=LATE)
    node.ready()
    truth.send(range(8), 5.0)
    wait_for(lambda: truth.unacked() == 4, 20, "a full worker")
    before = broker.client().lrange("celery", 0, -1)
    node.kill()
    node.restore()
    after = broker.client().lrange("celery", 0, -1)
    assert after[:4] == before
    second = start(concurrency=1, conf=LATE)
    second.ready()
    wait_for(lambda: truth.started()[1:] == [0], 20, "the oldest to be the first")


def test_under_a_flood_of_short_tasks_nothing_is_lost(start: Start, truth: Truth) -> None:
    truth.send(range(600))
    node = start(prefetch=4, conf=LATE)
    wait_for(lambda: len(truth.finished()) > 100, 60, "some work")
    node.kill()
    code, counts, _ = node.restore()
    assert code == 0
    assert counts["held"] == sum(count for name, count in counts.items() if name != "held")
    assert truth.unacked() == 0
    second = start(prefetch=4, conf=LATE)
    second.ready()
    wait_for(lambda: truth.queued() == truth.unacked() == 0 and second.beat()["active"] == 0, 60, "the rest")
    assert len(set(truth.finished())) >= 599, "one at most: popped by the broker, and not yet read by the worker"
    assert len(truth.started()) <= 600 + 8, "only what was in its hands may run again"


def test_priorities_prefixes_and_topics_are_kept(start: Start, truth: Truth, broker: Server) -> None:
    from kombu import entity

    exchange: Any = entity.Exchange
    options = {"broker_transport_options": {"global_keyprefix": "shop:"}, "task_default_queue": "mail"}
    node = start(concurrency=2, conf={**LATE, **options}, env={"TOPICS": "1"})
    node.ready()
    truth.app.conf.update(options)
    truth.app.send_task("work", args=(1, 30.0), queue="mail", priority=6)
    news = exchange("news", type="topic")
    truth.app.send_task("work", args=(2, 30.0), exchange=news, routing_key="news.today", declare=[news])
    wait_for(lambda: broker.client().hlen("shop:unacked") == 2, 20, "both messages to be held")
    node.kill()
    code, counts, _ = node.restore()
    assert (code, counts["restored"]) == (0, 2)
    keys = {key for key in broker.client().keys("*") if broker.client().type(key) == "list"}
    assert keys == {"shop:mail\x06\x166", "shop:press"}


def test_what_came_for_the_dead_goes_back_under_its_prefixed_key(truth: Truth, broker: Server) -> None:
    from kombu import connection as kombu_connection

    from supervisor_d.agents.supervisor_d_celery import restore

    make: Any = kombu_connection.Connection
    ours, theirs = socket.socketpair()
    theirs.sendall(b"*2\r\n$11\r\nshop:celery\r\n$5\r\nhello\r\n")
    counts = {"held": 0, "restored": 0}
    with ours, theirs, make(broker.url, transport_options={"global_keyprefix": "shop:"}) as connection:
        restore._put_back(connection.channel(), ours, counts)
    assert broker.client().lrange("shop:celery", 0, -1) == ["hello"]
    assert broker.client().keys("*b'*") == []
    assert counts == {"held": 1, "restored": 1}


def test_what_leads_nowhere_is_left_where_it_is(truth: Truth, broker: Server, tmp_path: Path) -> None:
    book, client = written(tmp_path, broker), broker.client()
    book.coming("a", None)
    entry = json.dumps([MESSAGE, "unbound", "nowhere"])
    client.hset("unacked", "a", entry)
    client.zadd("unacked_index", {"a": time.time()})
    book.held("a")
    assert restored(tmp_path) == {"held": 1, "skipped": 1}
    assert client.hgetall("unacked") == {"a": entry}


def test_what_never_reached_unacked_is_restored_once(truth: Truth, broker: Server, tmp_path: Path) -> None:
    written(tmp_path, broker).coming("a", json.dumps([MESSAGE, "", "celery"]).encode())
    assert restored(tmp_path) == {"held": 1, "restored": 1}
    assert (truth.queued(), truth.unacked()) == (1, 0)
    assert restored(tmp_path) == {}
    assert (truth.queued(), truth.unacked()) == (1, 0)


def test_what_is_done_is_acknowledged(truth: Truth, broker: Server, tmp_path: Path) -> None:
    book, client = written(tmp_path, broker), broker.client()
    for tag in "ab":
        book.coming(tag, None)
        client.hset("unacked", tag, json.dumps([MESSAGE, "", "celery"]))
        client.zadd("unacked_index", {tag: time.time()})
        book.held(tag)
    book.done("b")
    assert restored(tmp_path) == {"held": 2, "restored": 1, "acked": 1}
    assert (truth.queued(), truth.unacked(), client.zcard("unacked_index")) == (1, 0, 0)


MESSAGE = {"body": "", "headers": {}, "properties": {"delivery_tag": "a", "delivery_info": {}}}


def written(directory: Path, broker: Server, **options: Any) -> Ledger:
    """A ledger as a worker of that broker, with those transport options, keeps it."""
    from celery import Celery

    book = Ledger(str(directory))
    connection = Celery(broker=broker.url, set_as_current=False).connection_for_read()
    info = {key: connection.info()[key] for key in ("hostname", "port", "virtual_host", "transport")}
    book.describe({"connection": info, "options": options, "exchanges": {}})
    return book


def restored(directory: Path) -> dict[str, int]:
    """Run the helper; the counts that are not 0."""
    done = run(
        [sys.executable, "-m", "supervisor_d_celery_agent", "--restore", str(directory)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": AGENTS_DIR},
        capture_output=True,
        timeout=60,
        check=True,
    )
    return {name: count for name, count in json.loads(done.stdout).items() if count}


@pytest.mark.parametrize("prefix", ["", "shop:"])
def test_a_later_holder_keeps_what_he_has(truth: Truth, broker: Server, tmp_path: Path, prefix: str) -> None:
    book, client = written(tmp_path, broker, global_keyprefix=prefix), broker.client()
    book.coming("a", None)
    book.held("a")
    client.hset(f"{prefix}unacked", "a", json.dumps([MESSAGE, "", "celery"]))
    client.zadd(f"{prefix}unacked_index", {"a": time.time() + 60})
    assert restored(tmp_path) == {"held": 1, "skipped": 1}
    assert client.hlen(f"{prefix}unacked") == 1


def test_what_others_took_over_is_left_to_them(start: Start, truth: Truth, broker: Server) -> None:
    node = start(concurrency=3, conf=LATE)
    node.ready()
    truth.send(range(3), 1.0)
    wait_for(lambda: len(truth.started()) == 3, 20, "three running")
    os.kill(node.pid, signal.SIGSTOP)
    truth.wait_finished(3, 20)  # the pool processes did, and main cannot say so
    tags = broker.client().zrange("unacked_index", 0, -1)
    broker.client().zadd("unacked_index", {tags[0]: time.time() + 60})
    node.kill()
    code, counts, _ = node.restore()
    assert code == 0
    assert (counts["held"], counts["skipped"], counts["restored"]) == (3, 1, 2)
    assert truth.unacked() == 1


@full_dose
def test_a_broker_that_is_away_loses_nothing(start: Start, truth: Truth, store: Server, tmp_path: Path) -> None:
    own = Server(tmp_path / "own", append_only=True)
    here = Truth(own, store)
    try:
        node = start(own.url, conf=LATE)
        node.ready()
        here.send(range(4), 20.0)
        wait_for(lambda: here.unacked() == 2, 20, "a full worker")
        own.kill()
        node.kill()
        code, counts, _ = node.restore()
        assert (code, counts["held"], counts["restored"]) == (75, 2, 0)
        own.start()
        assert node.restore()[:2] == (0, {"held": 2, "restored": 2, "acked": 0, "skipped": 0, "gone": 0})
        assert (here.queued(), here.unacked()) == (4, 0)
    finally:
        here.close()
        own.kill()


def test_nothing_to_restore_takes_no_time(start: Start, truth: Truth) -> None:
    node = start(conf=LATE)
    node.ready()
    truth.send(range(3))
    truth.wait_finished(3, 20)
    wait_for(lambda: truth.unacked() == 0, 10, "the acknowledgements")
    assert node.stop() == 0
    assert node.restore()[:2] == (0, {"held": 0, "restored": 0, "acked": 0, "skipped": 0, "gone": 0})
    (node.private / "ledger").unlink()
    assert node.restore()[:2] == (0, {"held": 0, "restored": 0, "acked": 0, "skipped": 0, "gone": 0})
