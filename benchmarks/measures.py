"""Each measure by itself: a number for the floor and one for supervisor-d, from outside, in the same run."""

from __future__ import annotations

import os
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.subjects import DEADLINE_SECONDS, Announcements, Daemon, Floor, wait_gone, workplace

CROWD = 100
PAUSE_SECONDS = 0.05
IDLE_SECONDS = 20.0
LOG_NUMBERS = 25_000_000
"""`seq` up to here writes about 217 MB."""
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.  `floor` is None where the measure has none."""

    what: str
    unit: str
    ours: float
    floor: float | None
    goal: str


def _command(argv: list[str], workers: int, **more: Any) -> dict[str, Any]:
    quick = {"when": "always", "backoff": "1ms", "backoff_max": "1ms", "stable": "1ms", "limit": 1000, "period": "1s"}
    return {
        "program": "command", "command": argv, "workers": workers, "restart": quick, "stop": "TERM 1s, KILL", **more,
    }  # fmt: skip


def _crashes(pids: list[int], announced: Announcements, times: int) -> list[float]:
    """Kill one worker after the other; seconds from each SIGKILL to its successor's word."""
    found = []
    for _ in range(times):
        time.sleep(PAUSE_SECONDS)
        began = time.perf_counter()
        os.kill(pids.pop(0), signal.SIGKILL)
        pids += announced.take(1)
        found.append(time.perf_counter() - began)
    return found


def crash_to_restart() -> Row:
    """From the SIGKILL of a worker to the first act of its successor."""
    with workplace() as place:
        announced = Announcements(place)
        floor = Floor(5, announced.argv())
        floor.start()
        low = _crashes(announced.take(5), announced, 30)
        floor.close()
        daemon = Daemon(place, {"tiny": _command(announced.argv(), 5)})
        ours = _crashes(announced.take(5), announced, 30)
        daemon.close()
    return Row(
        "crash to restart, median", "ms", statistics.median(ours) * 1e3, statistics.median(low) * 1e3, "5 x floor; 5 ms"
    )


def _lateness(announced: Announcements, order: Callable[[], object]) -> float:
    """Seconds from a worker's word that TERM came, and one more, to its death."""
    fd = os.pidfd_open(announced.take(1)[0])
    with ThreadPoolExecutor(1) as orders:
        ordered = orders.submit(order)
        announced.take(1)
        began = time.perf_counter()
        late = wait_gone([fd]) - began - 1.0
        ordered.result()
    os.close(fd)
    return late


def kill_lateness() -> Row:
    """How long after TERM and one second the KILL has worked, for a worker that does not end by TERM."""
    with workplace() as place:
        announced = Announcements(place)
        low, ours = [], []
        floor = Floor(1, announced.stubborn_argv())
        for _ in range(5):
            floor.start()
            low.append(_lateness(announced, floor.stop))
        floor.close()
        daemon = Daemon(place, {"stubborn": _command(announced.stubborn_argv(), 1)})
        for _ in range(5):
            daemon.operate("start", ["stubborn"])
            ours.append(_lateness(announced, lambda: daemon.operate("stop", ["stubborn"])))
        daemon.close()
    return Row(
        "lateness of the KILL, median", "ms", statistics.median(ours) * 1e3, statistics.median(low) * 1e3, "10 ms"
    )


def start_and_stop() -> list[Row]:
    """A hundred processes, one a pool slot: all started, all stopped."""
    with workplace() as place:
        announced = Announcements(place)
        floor = Floor(CROWD, announced.argv())
        low = [_up_and_down(announced, floor.start, floor.stop) for _ in range(3)]
        floor.close()
        daemon = Daemon(place, {"crowd": _command(announced.argv(), CROWD)})
        announced.take(CROWD)
        daemon.operate("stop", ["crowd"])
        ours = [
            _up_and_down(
                announced,
                lambda: daemon.operate("start", ["crowd"], wait_seconds=0),
                lambda: daemon.operate("stop", ["crowd"]),
            )
            for _ in range(3)
        ]
        daemon.close()
    up, down = (statistics.median(column) for column in zip(*ours, strict=True))
    floor_up, floor_down = (statistics.median(column) for column in zip(*low, strict=True))
    return [
        Row(f"{CROWD} processes started", "ms", up * 1e3, floor_up * 1e3, "1000 ms"),
        Row(f"{CROWD} processes stopped", "ms", down * 1e3, floor_down * 1e3, "500 ms"),
    ]


def _up_and_down(
    announced: Announcements, start: Callable[[], object], stop: Callable[[], object]
) -> tuple[float, float]:
    began = time.perf_counter()
    start()
    pids = announced.take(CROWD)
    up = time.perf_counter() - began
    fds = [os.pidfd_open(pid) for pid in pids]
    began = time.perf_counter()
    stop()
    down = wait_gone(fds) - began
    for fd in fds:
        os.close(fd)
    return up, down


def crowd() -> list[Row]:
    """What a daemon with a hundred pools of one process each costs: reload of one, status, idleness, memory."""
    with workplace() as place:
        announced = Announcements(place)
        pools = {f"p{n:03}": _command(announced.argv(), 1) for n in range(CROWD)}
        daemon = Daemon(place, pools)
        announced.take(CROWD)
        rows = [_reload_one(daemon, pools, announced), *_status(daemon), *_memory(daemon), *_idle(daemon)]
        daemon.close()
    return rows


def _pids(daemon: Daemon) -> dict[str, int]:
    return {p["id"]: p["pid"] for pool in daemon.call("GET", "/v1/status")["pools"] for p in pool["processes"]}


def _reload_one(daemon: Daemon, pools: dict[str, Any], announced: Announcements) -> Row:
    found = []
    for turn in range(5):
        before = set(_pids(daemon).values())
        pools["p050"] = {**pools["p050"], "env": {"TURN": str(turn)}}
        daemon.write(pools)
        began = time.perf_counter()
        daemon.operate("reload", [], wait_seconds=0)
        announced.take(1)
        found.append(time.perf_counter() - began)
        daemon.operate("reload", [])
        touched = before - set(_pids(daemon).values())
        if len(touched) != 1:
            raise RuntimeError(f"a reload that changes one pool touched {len(touched)} processes")
    return Row("reload that changes 1 of 100: the new one up", "ms", statistics.median(found) * 1e3, None, "100 ms")


def _status(daemon: Daemon) -> list[Row]:
    calls, commands = [], []
    for _ in range(50):
        began = time.perf_counter()
        daemon.call("GET", "/v1/status")
        calls.append(time.perf_counter() - began)
    for _ in range(10):
        began = time.perf_counter()
        daemon.command("status")
        commands.append(time.perf_counter() - began)
    bare = []
    for _ in range(10):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        bare.append(time.perf_counter() - began)
    return [
        Row("status of 100, as an API call", "ms", statistics.median(calls) * 1e3, None, "2 ms"),
        Row(
            "status of 100, as a command (floor: `python -c pass`)",
            "ms", statistics.median(commands) * 1e3, statistics.median(bare) * 1e3, "100 ms",
        ),
    ]  # fmt: skip


def _pss_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0


def _ppid(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])


def _memory(daemon: Daemon) -> list[Row]:
    daemon.command("diff")  # loads all that the daemon ever imports
    shims = {_ppid(pid) for pid in _pids(daemon).values()}
    each = [_pss_kib(pid) for pid in shims]
    return [
        Row("daemon with 100 processes, PSS, all loaded", "MiB", _pss_kib(daemon.process.pid) / 1024, None, "64 MiB"),
        Row("a shim, PSS, mean of 100", "KiB", statistics.mean(each), None, "1024 KiB"),
    ]


def _switches(pids: list[int]) -> int:
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                total += int(line.split()[1])
    return total


def _idle(daemon: Daemon) -> list[Row]:
    shims = sorted({_ppid(pid) for pid in _pids(daemon).values()})
    time.sleep(3.0)
    before = _switches([daemon.process.pid]), _switches(shims)
    time.sleep(IDLE_SECONDS)
    after = _switches([daemon.process.pid]), _switches(shims)
    return [
        Row("wake-ups of the idle daemon, per second", "", (after[0] - before[0]) / IDLE_SECONDS, None, "0"),
        Row("wake-ups of 100 idle shims, per second", "", (after[1] - before[1]) / IDLE_SECONDS, None, "0"),
    ]


def log_rate() -> list[Row]:
    """One writer of numbered lines, into `cat >file` and into a pool's log."""
    with workplace() as place:
        cat_rate, cat_cpu, size = _through_cat(place)
        rates, cpus = [], []
        for turn in range(3):
            rate, cpu = _through_shim(place, turn, size)
            rates.append(rate)
            cpus.append(cpu)
    return [
        Row("log of 217 MB, MB/s (floor: `cat >file`)", "MB/s", statistics.median(rates), cat_rate, "0.8 x floor"),
        Row("log of 217 MB, CPU of the pump (floor: cat's)", "s", statistics.median(cpus), cat_cpu, "1 x floor"),
    ]


def _through_cat(place: Path) -> tuple[float, float, int]:
    rates, cpus = [], []
    target = place / "cat.log"
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.perf_counter()
        with target.open("wb") as file:
            writer = subprocess.Popen(["/usr/bin/seq", str(LOG_NUMBERS)], stdout=subprocess.PIPE)
            pump = subprocess.Popen(["/bin/cat"], stdin=writer.stdout, stdout=file)
            _, _, usage = os.wait4(pump.pid, 0)
            pump.returncode = 0
            writer.wait()
        took = time.perf_counter() - began
        rates.append(target.stat().st_size / took / 1e6)
        cpus.append(usage.ru_utime + usage.ru_stime)
        assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime >= before.ru_utime
    size = target.stat().st_size
    target.unlink()
    return statistics.median(rates), statistics.median(cpus), size


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _through_shim(place: Path, turn: int, size: int) -> tuple[float, float]:
    """The rate from the writer's start to the last byte in the file, and the shim's CPU seconds for it."""
    directory = place / f"log{turn}"
    directory.mkdir()
    announced = Announcements(directory)
    start = directory / "start"
    os.mkfifo(start)
    script = f"echo $$ > {announced.path}; read go < {start}; seq {LOG_NUMBERS}; exec sleep 86400"
    pool = _command(["/bin/sh", "-c", script], 1, log={"max_size": "1GiB", "keep": 1})
    daemon = Daemon(directory, {"writer": pool})
    shim = _ppid(announced.take(1)[0])
    log = Path(daemon.places["log_dir"]) / "writer.0.log"
    before = _cpu_seconds(shim)
    began = time.perf_counter()
    start.write_text("go\n", encoding="ascii")
    while log.stat().st_size < size:
        if time.perf_counter() - began > DEADLINE_SECONDS:
            raise TimeoutError(f"{size - log.stat().st_size} bytes of the log are missing")
        time.sleep(0.002)
    took = time.perf_counter() - began
    cpu = _cpu_seconds(shim) - before
    _check_numbers(log)
    daemon.close()
    log.unlink()
    return size / took / 1e6, cpu


def _check_numbers(log: Path) -> None:
    """Every line is there, once and in order."""
    with log.open("rb") as file:
        for expected, line in enumerate(file, start=1):
            if int(line) != expected:
                raise RuntimeError(f"line {expected} of the log is {line!r}")
        if expected != LOG_NUMBERS:
            raise RuntimeError(f"the log ends with line {expected}")
