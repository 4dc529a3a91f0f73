from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from supervisor_d.core.snapshot import PoolView, ProcessView, Snapshot
from supervisor_d.metrics.exposition import render
from supervisor_d.metrics.families import FAMILIES, STATES
from tests.support.tools import promtool

Key = tuple[str, frozenset[tuple[str, str]]]


def key(name: str, **labels: str) -> Key:
    return name, frozenset(labels.items())


def samples(snapshot: Snapshot) -> dict[Key, float]:
    """Every sample by name and labels; an exposition may not hold one twice."""
    found: dict[Key, float] = {}
    for family in parse_text(render(snapshot).body.decode()):
        for sample in family.samples:
            assert key(sample.name, **sample.labels) not in found
            found[key(sample.name, **sample.labels)] = sample.value
    return found


def with_processes(snapshot: Snapshot, *processes: ProcessView) -> Snapshot:
    return replace(snapshot, pools=(replace(snapshot.pools[0], processes=processes),))


def test_the_daemons_figures(snapshot: Snapshot) -> None:
    found = samples(snapshot)
    assert {name: value for (name, labels), value in found.items() if not labels} == {
        "supervisor_daemon_start_time_seconds": 1_700_000_000.5,
        "supervisor_daemon_stopping": 0,
        "supervisor_daemon_loop_lag_seconds": 0.002,
        "supervisor_daemon_plan_seconds_total": 1.25,
        "supervisor_daemon_plans_total": 300,
        "supervisor_daemon_events_total": 1200,
        "supervisor_daemon_adopted_processes_total": 4,
        "supervisor_daemon_adoption_seconds": 0.0625,
        "supervisor_daemon_log_dropped_bytes_total": 77,
    }
    assert found[key("supervisor_daemon_build_info", version="1.2.3")] == 1
    stopping = replace(snapshot, daemon=replace(snapshot.daemon, state="stopping"))
    assert samples(stopping)[key("supervisor_daemon_stopping")] == 1


def test_a_pools_requests(snapshot: Snapshot) -> None:
    found = samples(snapshot)
    name = "supervisor_daemon_pool_request"
    assert found[key(f"{name}s_total", pool="web", **{"class": "2xx"})] == 5
    assert found[key(f"{name}s_total", pool="web", **{"class": "none"})] == 1
    assert found[key(f"{name}s_in_flight", pool="web")] == 3
    assert found[key(f"{name}_duration_seconds_sum", pool="web")] == 3.25
    assert found[key(f"{name}_duration_seconds_count", pool="web")] == 7
    assert [found[key(f"{name}_duration_seconds_bucket", pool="web", le=le)] for le in ("0.1", "1.0", "+Inf")] == [
        4,
        6,
        7,
    ]
    assert found[key("supervisor_daemon_pool_oldest_request_seconds", pool="web")] == 0.5
    assert found[key("supervisor_daemon_pool_serving_workers", pool="web", doing="busy")] == 1
    assert found[key("supervisor_daemon_pool_backlog_connections", pool="web")] == 6
    assert not [key for key in found if "request" in key[0] and ("pool", "mail") in key[1]]


def test_a_pools_tasks(snapshot: Snapshot) -> None:
    found = samples(snapshot)
    name = "supervisor_daemon_pool"
    assert found[key(f"{name}_tasks_total", pool="web", outcome="unknown")] == 2
    expected = {
        "tasks_started_total": 11, "tasks_redelivered_total": 1, "task_wait_seconds_total": 1.5, "tasks_active": 3,
        "tasks_reserved": 4, "oldest_task_seconds": 41, "restored_messages_total": 5, "unprotected_messages_total": 0,
        "task_duration_seconds_sum": 9.75, "task_duration_seconds_count": 8,
    }  # fmt: skip
    assert {figure: found[key(f"{name}_{figure}", pool="web")] for figure in expected} == expected
    buckets = [found[key(f"{name}_task_duration_seconds_bucket", pool="web", le=le)] for le in ("0.5", "5.0", "+Inf")]
    assert buckets == [5, 7, 8]
    assert not [key for key in found if "task" in key[0] and ("pool", "mail") in key[1]]


def test_a_pools_figures(snapshot: Snapshot) -> None:
    found = samples(snapshot)
    assert found[key("supervisor_daemon_pool_info", pool="web", program="gunicorn")] == 1
    expected = {
        "workers_desired": 2, "workers_live": 2, "workers_ready": 1, "generation": 3, "backoff_seconds": 6.0,
        "failed_slots": 1, "rollout_in_progress": 1,
    }  # fmt: skip
    assert {name: found[key(f"supervisor_daemon_pool_{name}", pool="web")] for name in expected} == expected
    assert found[key("supervisor_daemon_pool_backoff_seconds", pool="mail")] == 0
    assert found[key("supervisor_daemon_pool_rollout_in_progress", pool="mail")] == 0


def test_processes_by_state_name_every_state(snapshot: Snapshot) -> None:
    found = samples(snapshot)
    counted = {state: found[key("supervisor_daemon_pool_processes", pool="web", state=state)] for state in STATES}
    assert counted == {"starting": 0, "ready": 1, "stopping": 0, "killing": 0, "exited": 0}


@pytest.mark.parametrize(
    ("name", "label", "word", "value"),
    [
        ("restarts_total", "reason", "signal", 2),
        ("restarts_total", "reason", "error", 1),
        ("exits_total", "kind", "ok", 1),
        ("worker_exits_total", "kind", "oom", 5),
        ("rollouts_total", "verdict", "rolled-back", 1),
        ("rollouts_total", "verdict", "succeeded", 2),
    ],
)
def test_totals_by_word_begin_at_zero(snapshot: Snapshot, name: str, label: str, word: str, value: float) -> None:
    found = samples(snapshot)
    assert found[key(f"supervisor_daemon_pool_{name}", pool="web", **{label: word})] == value
    assert found[key(f"supervisor_daemon_pool_{name}", pool="mail", **{label: word})] == 0


def test_a_word_that_is_not_in_the_list_is_shown_too(snapshot: Snapshot) -> None:
    pool = replace(snapshot.pools[0], exits_total={"frozen": 3})
    found = samples(replace(snapshot, pools=(pool,)))
    assert found[key("supervisor_daemon_pool_exits_total", pool="web", kind="frozen")] == 3


def test_a_processs_figures(snapshot: Snapshot) -> None:
    found = samples(snapshot)
    shown = {
        name.removeprefix("supervisor_daemon_process_"): value
        for (name, labels), value in found.items()
        if labels == frozenset({"pool": "web", "slot": "0", "generation": "3"}.items())
    }
    assert shown == {
        "start_time_seconds": 1_700_000_100.0,
        "workers": 2,
        "cpu_seconds_total": 12.5,
        "resident_memory_bytes": 90_000_000,
        "proportional_memory_bytes": 50_000_000,
        "open_fds": 31,
        "threads": 9,
        "tree_processes": 3,
    }


def test_what_was_not_sampled_is_absent_not_zero(snapshot: Snapshot) -> None:
    process = snapshot.pools[0].processes[0]
    assert process.usage is not None
    names = {name for name, _ in samples(with_processes(snapshot, replace(process, usage=None)))}
    assert "supervisor_daemon_process_start_time_seconds" in names
    assert "supervisor_daemon_process_open_fds" not in names
    no_pss = replace(process, usage=replace(process.usage, pss_bytes=None))
    names = {name for name, _ in samples(with_processes(snapshot, no_pss))}
    assert "supervisor_daemon_process_resident_memory_bytes" in names
    assert "supervisor_daemon_process_proportional_memory_bytes" not in names


def test_the_youngest_process_of_a_slot_and_generation_speaks_for_it(snapshot: Snapshot) -> None:
    young = snapshot.pools[0].processes[0]
    old = replace(young, id="web.0@g3.11", state="stopping", started_at=5.0, workers_live=1)
    ended = replace(young, id="web.0@g3.30", state="exited", started_at=young.started_at + 9, workers_live=0)
    former = replace(young, id="web.0@g2.3", generation=2)
    for processes in ((old, young, ended, former), (former, ended, young, old)):
        found = samples(with_processes(snapshot, *processes))
        assert found[key("supervisor_daemon_process_workers", pool="web", slot="0", generation="3")] == 2
        assert key("supervisor_daemon_process_workers", pool="web", slot="0", generation="2") in found
        assert found[key("supervisor_daemon_pool_processes", pool="web", state="exited")] == 1


def test_no_pid_path_or_text_of_a_process_is_a_label(snapshot: Snapshot) -> None:
    text = render(snapshot).body.decode()
    for secret in ("31337", "4242", "/etc", "/run", "SIGSEGV", "too many", "web.0@g3"):
        assert secret not in text


HOSTILE = 'a"b\\c\n# HELP x\n<script>'


def test_a_hostile_name_is_escaped(snapshot: Snapshot) -> None:
    pools: tuple[PoolView, ...] = (replace(snapshot.pools[0], name=HOSTILE, processes=()),)
    found = samples(replace(snapshot, pools=pools))
    assert found[key("supervisor_daemon_pool_generation", pool=HOSTILE)] == 3


def test_prometheuss_own_checker_finds_nothing_to_say(snapshot: Snapshot, tmp_path: Path) -> None:
    hostile = replace(snapshot.pools[0], name=HOSTILE, processes=())
    body = render(replace(snapshot, pools=(*snapshot.pools, hostile))).body
    done = subprocess.run([promtool(), "check", "metrics"], input=body, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")
    spoilt = body.replace(b"supervisor_daemon_plans_total", b"supervisor_daemon_plans")
    done = subprocess.run([promtool(), "check", "metrics"], input=spoilt, capture_output=True, timeout=60, check=False)
    assert done.returncode != 0, "the checker checks nothing"


def test_a_daemon_without_pools_has_metrics_too(snapshot: Snapshot) -> None:
    body = render(replace(snapshot, pools=())).body
    done = subprocess.run([promtool(), "check", "metrics"], input=body, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_openmetrics_for_a_scraper_that_asks_for_it(snapshot: Snapshot) -> None:
    plain, modern = render(snapshot), render(snapshot, "application/openmetrics-text; version=1.0.0")
    assert plain.content_type.startswith("text/plain; version=0.0.4")
    assert modern.content_type.startswith("application/openmetrics-text")
    assert modern.body.endswith(b"# EOF\n")
    values = {
        key(sample.name, **sample.labels): sample.value
        for family in parse_openmetrics(modern.body.decode())  # type: ignore[no-untyped-call]
        for sample in family.samples
    }
    assert values == samples(snapshot)


def test_every_family_is_shown_and_none_besides(snapshot: Snapshot) -> None:
    ends = {"histogram": ("_sum", "_count", "_bucket")}
    expected = {family.name + end for family in FAMILIES for end in ends.get(family.kind, ("",))}
    assert {name for name, _ in samples(snapshot)} == expected
