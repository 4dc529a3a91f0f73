"""What the agent says, writes and answers: ready, heartbeat, drain and resume, canary, switches."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.agents.harness import Node, Truth
from tests.support.dose import FULL
from tests.support.waiting import wait_for

pytestmark = pytest.mark.real

Start = Callable[..., Node]


def test_ready_says_what_the_daemon_must_know(start: Start) -> None:
    node = start(prefetch=3, conf={"task_acks_late": True, "task_default_queue": "mail"})
    ready = node.ready()
    assert ready["pid"] == node.pid
    assert ready["missing"] == {}
    assert {"heartbeat", "drain"} <= set(ready["features"])
    assert ready["acks_late"] is True
    assert ready["reject_on_worker_lost"] is False
    assert ready["prefetch"] == 3
    assert ready["visibility_timeout"] == 3600
    assert ready["queues"] == ["mail"]
    assert ready["broker"] == "redis"
    assert ready["celery"].startswith("5.")
    assert node.ask("hello")["ok"] is True
    assert node.ready()["features"] == ready["features"]


def test_the_heartbeat_counts_and_shows_what_runs(start: Start, truth: Truth) -> None:
    node = start(conf={"task_acks_late": True}, prefetch=2)
    node.ready()
    first = node.beat()
    assert first["pid"] == node.pid
    assert (first["processes"], first["target"], first["active"]) == (2, 2, 0)
    truth.send(range(3), 0.0)
    truth.app.send_task("fail")
    truth.app.send_task("again")
    truth.app.send_task("unheard-of")
    wait_for(lambda: node.beat()["unknown_total"] == 1 and node.beat()["succeeded_total"] == 4, 20, "the totals")
    truth.send(range(10, 14), 3.0)
    busy = wait_for(lambda: node.beat()["reserved"] == 2 and node.beat(), 10, "two running, two waiting")
    assert (busy["active"], busy["busy"], busy["unsafe"]) == (2, 2, 0)
    assert [task["name"] for task in busy["tasks"]] == ["work", "work"]
    assert {task["pid"] for task in busy["tasks"]} == set(node.children())
    assert all(task["late"] for task in busy["tasks"])
    assert busy["oldest_started_at"] == busy["tasks"][0]["started_at"] <= busy["at"] <= time.monotonic()
    assert not busy["can_consume"]
    last = wait_for(lambda: node.beat()["succeeded_total"] == 8 and node.beat(), 20, "the last totals")
    assert (last["started_total"], last["failed_total"], last["retried_total"]) == (10, 1, 1)
    assert sum(last["runtime_buckets"]) == 10
    assert last["runtime_seconds_total"] > 12
    assert last["wait_seconds_total"] > 0, "the retry was sent by a process with the agent in it, and stamped"


def test_drained_it_takes_nothing_and_resumed_it_goes_on(start: Start, truth: Truth) -> None:
    node = start(conf={"task_acks_late": True}, prefetch=2)
    node.ready()
    truth.send(range(4), 1.5)
    wait_for(lambda: len(truth.started()) == 2, 10, "two running tasks")
    began = time.monotonic()
    data = node.done("drain")
    assert time.monotonic() - began < 3
    assert data == {"held": 4, "in_flight": False}
    truth.send(range(4, 8))
    beat = node.beat()
    assert (beat["draining"], beat["consuming"]) == (True, False)
    truth.wait_finished(4, 20)
    assert truth.queued() == 4, "what it had it did, and took nothing else"
    assert node.done("resume") == {}
    truth.wait_finished(8, 20)
    wait_for(lambda: truth.unacked() == 0, 5, "the acknowledgements")
    assert sorted(truth.started()) == list(range(8))


def test_drained_while_idle_nothing_is_held_back(start: Start, truth: Truth) -> None:
    node = start()
    node.ready()
    wait_for(lambda: node.beat()["take_at"], 5, "a BRPOP")
    assert node.done("drain") == {"held": 0, "in_flight": False}
    truth.send(range(3))
    before = node.beat()["at"]
    wait_for(lambda: node.beat()["at"] > before + 1.5, 10, "two more heartbeats")
    assert (truth.queued(), truth.unacked(), truth.started()) == (3, 0, [])


def test_a_drain_lasts_until_a_long_question_is_answered(start: Start, truth: Truth) -> None:
    node = start(conf={"broker_transport_options": {"polling_interval": 4}})
    node.ready()
    asked = wait_for(lambda: node.beat()["take_at"], 5, "a BRPOP")
    assert node.beat()["take_waits"] == 4
    assert node.done("drain") == {"held": 0, "in_flight": False}
    assert time.monotonic() - asked > 3
    truth.send(range(1))
    before = node.beat()["at"]
    wait_for(lambda: node.beat()["at"] > before + 1.5, 10, "two more heartbeats")
    assert (truth.queued(), truth.started()) == (1, [])


def test_resumed_in_the_meantime_it_says_so(start: Start, truth: Truth) -> None:
    node = start(conf={"broker_transport_options": {"polling_interval": 0}})
    node.ready()
    wait_for(lambda: node.beat()["take_at"], 5, "a BRPOP that waits for ever")
    assert node.beat()["take_waits"] == 0
    drain = node.send("drain")
    assert node.done("resume") == {}
    assert node.reply(drain)["data"] == {"held": 0, "in_flight": True}
    truth.send(range(2))
    truth.wait_finished(2, 20)


def test_a_canary_is_ready_and_never_takes_anything(start: Start, truth: Truth) -> None:
    truth.send(range(3))
    node = start(env={"SUPERVISOR_D_CANARY": "1"})
    assert node.ready()["canary"] is True
    before = node.beat()["at"]
    wait_for(lambda: node.beat()["at"] > before + 1.5, 10, "two more heartbeats")
    assert node.ask("resume")["ok"] is False
    assert truth.queued() == 3
    assert node.beat()["connected"]
    assert not node.beat()["consuming"]


def test_it_answers_what_it_does_not_understand(start: Start) -> None:
    node = start()
    node.ready()
    for noise in (b"x", b"[]", b"{}", b"[" * 4000, b'{"ask": true, "do": "drain"}', b'{"ask": 1, "do": 5}'):
        node.socket.send(noise)
    assert node.ask("fly")["error"] == "unknown request"
    assert node.ask("grow", n=-1)["ok"] is False
    assert node.ask("hello")["ok"] is True


def test_stacks_by_request_and_by_signal(start: Start) -> None:
    node = start()
    number = node.ready()["stacks_signal"]
    assert node.done("stacks") == {}
    assert "most recent call first" in node.text()
    seen = node.text().count("most recent call first")
    child = node.children()[0]
    os.kill(child, number)
    wait_for(lambda: node.text().count("most recent call first") > seen, 5, "the pool process's stacks")
    os.kill(node.pid, number)
    assert node.ask("hello")["ok"], "it lives on"
    assert child in node.children()


def test_the_daemons_end_may_go(start: Start, truth: Truth) -> None:
    node = start()
    node.ready()
    node.socket.close()
    truth.send(range(3))
    truth.wait_finished(3, 20)
    before = node.beat()["at"]
    wait_for(lambda: node.beat()["at"] > before, 5, "another heartbeat")
    assert node.stop() == 0


EACH = ("heartbeat", "drain", "ledger", "repair", "pool", "reap,settings,stamp,freeze,oom,stacks")


@pytest.mark.parametrize("off", [*(EACH if FULL else ()), ",".join(EACH)])
def test_every_feature_can_be_off(start: Start, truth: Truth, off: str) -> None:
    node = start(env={"SUPERVISOR_D_AGENT_OFF": off})
    ready = node.ready()
    assert set(ready["missing"]) == set(off.split(","))
    assert not set(ready["features"]) & set(off.split(","))
    truth.send(range(3))
    truth.wait_finished(3, 20)
    assert node.stop() == 0


def test_unset_broker_settings_are_filled_and_told(start: Start) -> None:
    options = {"socket_timeout": 7, "visibility_timeout": 99}
    ready = start(conf={"broker_transport_options": options, "broker_connection_max_retries": 3}).ready()
    assert ready["settings_filled"] == {
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "health_check_interval": 5,
        "unacked_restore_throttle": 1,
    }
    assert ready["visibility_timeout"] == 99


def test_what_is_set_under_a_namespace_is_set() -> None:
    from celery import Celery

    from supervisor_d.agents.supervisor_d_celery import settings

    app = Celery("shop", broker="memory://", set_as_current=False)
    app.config_from_object(SimpleNamespace(CELERY_BROKER_CONNECTION_MAX_RETRIES=5), namespace="CELERY")
    assert settings.fill(app) == {"broker_connection_retry_on_startup": True}
    assert app.conf.broker_connection_max_retries == 5


def test_pool_processes_are_likelier_oom_victims_than_main(start: Start, truth: Truth) -> None:
    node = start(concurrency=1)
    node.ready()
    main = int(Path(f"/proc/{node.pid}/oom_score_adj").read_text())
    (child,) = node.children()
    assert int(Path(f"/proc/{child}/oom_score_adj").read_text()) == max(300, main)
