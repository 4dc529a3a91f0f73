from __future__ import annotations

from dataclasses import replace

import pytest

from supervisor_d.core.snapshot import (
    DaemonView,
    PoolView,
    ProcessView,
    RolloutView,
    SlotView,
    Snapshot,
    Traffic,
    Usage,
    Work,
)

DAEMON = DaemonView(
    version="1.2.3",
    pid=4242,
    state="running",
    started_at=1_700_000_000.5,
    config_path="/etc/shop.yaml",
    config_digest="abc",
    runtime_dir="/run/supervisor-d",
    loop_lag_seconds=0.002,
    plan_seconds_total=1.25,
    plans_total=300,
    events_total=1200,
    adopted_total=4,
    adoption_seconds=0.0625,
    log_dropped_bytes_total=77,
)

WEB_0 = ProcessView(
    id="web.0@g3.17",
    pool="web",
    slot=0,
    generation=3,
    state="ready",
    pid=31337,
    workers=2,
    workers_live=2,
    workers_ready=2,
    started_at=1_700_000_100.0,
    ready_at=1_700_000_101.0,
    reason="asked",
    stop_reason="",
    exit="",
    adopted=False,
    usage=Usage(cpu_seconds=12.5, rss_bytes=90_000_000, open_fds=31, threads=9, processes=3, pss_bytes=50_000_000),
)

WEB = PoolView(
    name="web",
    program="gunicorn",
    state="running",
    detail="1 of 1 ready",
    generation=3,
    workers_desired=2,
    workers_live=2,
    workers_ready=1,
    workers_from="config",
    after=("redis",),
    listeners=("127.0.0.1:8000",),
    processes=(WEB_0,),
    slots=(
        SlotView(slot=1, generation=3, attempt=2, backoff_seconds=1.5, failed="", last_exit="killed by SIGSEGV"),
        SlotView(slot=2, generation=3, attempt=4, backoff_seconds=6.0, failed="", last_exit="exited with code 3"),
        SlotView(slot=3, generation=3, attempt=11, backoff_seconds=0.0, failed="too many", last_exit=""),
    ),
    restarts_total={"signal": 2, "error": 1},
    exits_total={"ok": 1, "signal": 2},
    worker_exits_total={"oom": 5},
    rollout=RolloutView(2, 3, "in progress", "env changed", 1_700_000_090.0),
    rollouts_total={"succeeded": 2, "rolled-back": 1},
    traffic=Traffic(
        requests_total={"none": 1, "1xx": 0, "2xx": 5, "3xx": 0, "4xx": 0, "5xx": 1},
        duration_seconds_total=3.25,
        duration_bounds=(0.1, 1.0),
        duration_counts=(4, 2, 1),
        in_flight=3,
        oldest_request_seconds=0.5,
        workers={"booting": 0, "idle": 1, "busy": 1},
    ),
    work=Work(
        tasks_total={"succeeded": 7, "failed": 1, "retried": 0, "revoked": 0, "unknown": 2},
        started_total=11,
        redelivered_total=1,
        unprotected_total=0,
        wait_seconds_total=1.5,
        run_seconds_total=9.75,
        run_bounds=(0.5, 5.0),
        run_counts=(5, 2, 1),
        active=3,
        reserved=4,
        oldest_task_seconds=41.0,
    ),
    restored_messages_total=5,
    backlog=6,
)


@pytest.fixture
def snapshot() -> Snapshot:
    idle = replace(WEB, name="mail", program="command", processes=(), slots=(), rollout=None, rollouts_total={})
    idle = replace(idle, traffic=None, work=None, backlog=None)
    return Snapshot(
        1_700_000_200.0, DAEMON, (WEB, replace(idle, restarts_total={}, exits_total={}, worker_exits_total={}))
    )
