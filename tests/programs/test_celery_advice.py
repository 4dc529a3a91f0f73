"""What is said of an application's settings: the bad combinations, what each loses, and what to set instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from supervisor_d.core.spec import PoolSpec
from supervisor_d.programs.beat import BeatKeys
from supervisor_d.programs.celery import CeleryKeys
from supervisor_d.programs.celery_advice import (
    AppFacts,
    EntryFacts,
    TaskFacts,
    app_warnings,
    version_warnings,
)

WORKER = PoolSpec("worker", "celery", 2, CeleryKeys("shop"))
GREEDY = PoolSpec("worker", "celery", 2, CeleryKeys("shop", prefetch=4))
BEAT = PoolSpec("beat", "celery-beat", 1, BeatKeys("shop"))


def task(name: str = "a", *, late: bool = True, lost: bool = True, limit: float | None = None) -> TaskFacts:
    return TaskFacts(name, late, lost, limit)


def said(spec: PoolSpec, pools: Mapping[str, PoolSpec] | None = None, **facts: Any) -> list[tuple[str, str]]:
    return list(app_warnings(spec, AppFacts(transport="redis", **facts), pools or {spec.name: spec}))


def only(found: list[tuple[str, str]]) -> tuple[str, str]:
    assert len(found) == 1, found
    return found[0]


def test_good_settings_are_nothing_to_speak_of() -> None:
    assert said(WORKER, tasks=(task(limit=60.0), task("b", late=False))) == []
    assert said(GREEDY, tasks=(task("b", late=False),), disable_prefetch=True) == []
    assert said(BEAT, schedule=(EntryFacts("n", "a", known=True, queue="celery"),), queues=("celery",)) == []


@pytest.mark.parametrize("name", ["prefork", "processes"])
def test_the_prefork_pool_is_nothing_to_speak_of(name: str) -> None:
    assert said(WORKER, worker_pool=name) == []


def test_another_pool_is_overruled_and_that_is_told() -> None:
    key, why = only(said(WORKER, worker_pool="gev\x1bent"))
    assert key == "app"
    assert why.startswith("it sets worker_pool to 'gevent': workers here have the prefork pool all the same")
    assert said(BEAT, worker_pool="gevent") == [], "beat runs no tasks"


def test_late_without_reject_on_worker_lost() -> None:
    key, why = only(said(WORKER, tasks=tuple(task(name, lost=False) for name in "abcd")))
    assert key == "app"
    assert why.startswith("late acknowledgement of 4 tasks (a, b, c, ...): workers lose such a task")
    assert "set task_reject_on_worker_lost" in why


def test_early_with_prefetch() -> None:
    key, why = only(said(GREEDY, tasks=(task("mail", late=False),)))
    assert key == "prefetch"
    assert "1 task (mail)" in why
    assert "worker_disable_prefetch" in why


@pytest.mark.parametrize(
    ("timeout", "limits", "why"),
    [
        (None, [1700.0], ""),
        (None, [1900.0], "visibility_timeout (1h) is less than twice the longest time limit (31m40s)"),
        (60.0, [20.0, 40.0], "set it to 1m20s or more"),
        (80.0, [20.0, 40.0], ""),
        (60.0, [20.0, None], "longer than visibility_timeout (1m)"),
        (7200.0, [None], ""),
    ],
)
def test_visibility_timeout(timeout: float | None, limits: list[float | None], why: str) -> None:
    tasks = tuple(task(limit=limit) for limit in limits)
    found = said(WORKER, tasks=tasks, visibility_timeout=timeout)
    assert [key for key, _ in found] == (["app"] if why else [])
    assert why in "".join(text for _, text in found)
    elsewhere = AppFacts(transport="amqp", tasks=tasks, visibility_timeout=timeout)
    assert list(app_warnings(WORKER, elsewhere, {})) == []


@pytest.mark.parametrize(
    ("interval", "why"),
    [
        (None, ""),
        (0.2, ""),
        (5.0, ""),
        (30.0, "workers wait for 30s at each question for messages: a drain may end before it is sure"),
        (0.0, "workers wait until a message comes"),
    ],
)
def test_polling_interval(interval: float | None, why: str) -> None:
    found = said(WORKER, polling_interval=interval)
    assert [key for key, _ in found] == (["app"] if why else [])
    assert why in "".join(text for _, text in found)
    elsewhere = AppFacts(transport="sqs", polling_interval=interval)
    assert list(app_warnings(WORKER, elsewhere, {})) == []


def test_a_schedule_with_a_task_that_nobody_has() -> None:
    entry = EntryFacts("nightly", "shop.gone", known=False, queue="celery")
    assert "sends shop.gone (nightly), which shop does not have" in only(said(BEAT, schedule=(entry,)))[1]


def test_a_schedule_with_a_queue_that_nobody_takes_from() -> None:
    entry = EntryFacts("nightly", "a", known=True, queue="mail")
    pools = {"worker": WORKER, "beat": BEAT}
    facts: dict[str, Any] = {"schedule": (entry,), "queues": ("celery",)}
    assert "to the queue mail, which no pool here" in only(said(BEAT, pools, **facts))[1]
    assert said(BEAT, **facts) == [], "its workers may be on another host"
    mail = PoolSpec("mail", "celery", 1, CeleryKeys("shop", queues=("mail",)))
    assert said(BEAT, {**pools, "mail": mail}, **facts) == []


def test_what_cannot_be_looked_at() -> None:
    key, why = only(list(app_warnings(WORKER, AppFacts(error="No module \x1b[31m" + "x" * 4000), {})))
    assert (key, why[:44]) == ("app", "cannot look at shop's settings: No module [3")
    assert len(why) < 250


@pytest.mark.parametrize(
    ("versions", "why"),
    [
        ({"celery": "5.7.0", "kombu": "5.7.0", "packaging": "25.0"}, ""),
        ({"celery": "5.5.3"}, "Celery 5.5.3 is older than 5.6"),
        ({"celery": "5.7.0", "kombu": "5.7.0"}, "kombu 5.7.0 needs the package `packaging`"),
        ({"celery": "5.6.3", "kombu": "5.6.2"}, ""),
        ({}, ""),
    ],
)
def test_versions(versions: Mapping[str, str], why: str) -> None:
    found = list(version_warnings(WORKER, lambda name: versions.get(name, "")))
    assert [key for key, _ in found] == (["program"] if why else [])
    assert why in "".join(text for _, text in found)
