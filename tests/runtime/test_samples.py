from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor_d.runtime.samples import Sampler, _children, _tree, read_stats
from tests.support.waiting import eventually

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


class FakeProc:
    """A directory that looks like /proc, and a clock that stands still."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now = 1000.0

    def put(
        self,
        pid: int,
        parent: int = 1,
        *,
        cpu: tuple[float, float, float, float] = (0, 0, 0, 0),
        name: str = "python",
        started: int = 77,
        pss_kib: int | None = None,
        fds: int = 0,
    ) -> None:
        times = [str(round(seconds * TICKS)) for seconds in cpu]
        fields = ["S", str(parent), *["0"] * 9, *times, "20", "0", "2", "0", str(started), "0", "10"]
        directory = self.root / str(pid)
        (directory / "fd").mkdir(parents=True, exist_ok=True)
        (directory / "stat").write_text(f"{pid} ({name}) {' '.join(fields)} 0 0\n")
        for number in range(fds):
            (directory / "fd" / str(number)).touch()
        if pss_kib is not None:
            (directory / "smaps_rollup").write_text(f"00-ff ---p 00:00 0 [rollup]\nRss: 9 kB\nPss:    {pss_kib} kB\n")

    def drop(self, pid: int) -> None:
        for path in sorted((self.root / str(pid)).rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        (self.root / str(pid)).rmdir()


@pytest.fixture
def proc(tmp_path: Path) -> FakeProc:
    return FakeProc(tmp_path)


@pytest.fixture
def sampler(proc: FakeProc) -> Iterator[Sampler]:
    made = Sampler(proc=str(proc.root), clock=lambda: proc.now)
    with contextlib.closing(made):
        yield made


async def test_a_tree_is_summed_over_all_that_descends_from_its_main(proc: FakeProc, sampler: Sampler) -> None:
    proc.put(10, 1, cpu=(1, 0.5, 2, 0.5), pss_kib=100)
    proc.put(11, 10, cpu=(3, 0, 0, 0), pss_kib=20)
    proc.put(12, 11, cpu=(0, 1, 0, 0), pss_kib=3)
    proc.put(20, 1, cpu=(50, 0, 0, 0), pss_kib=1)
    usage = (await sampler.sample({"web.0@g1.1": 10}))["web.0@g1.1"]
    assert usage.cpu_seconds == pytest.approx(8.0)
    assert (usage.processes, usage.threads, usage.rss_bytes) == (3, 6, 30 * PAGE)
    assert usage.pss_bytes == 123 * 1024


async def test_a_name_may_hold_blanks_and_parentheses(proc: FakeProc, sampler: Sampler) -> None:
    proc.put(10, name="gunicorn: maste) S 1 (x", cpu=(1, 0, 0, 0))
    assert (await sampler.sample({"a": 10}))["a"].cpu_seconds == pytest.approx(1.0)


async def test_a_child_that_was_waited_for_is_counted_once(proc: FakeProc, sampler: Sampler) -> None:
    proc.put(10, cpu=(2, 0, 0, 0))
    proc.put(11, 10, cpu=(4, 0, 0, 0))
    before = (await sampler.sample({"a": 10}))["a"].cpu_seconds
    proc.drop(11)
    proc.put(10, cpu=(2, 0, 4, 0))
    proc.now += 2
    assert (await sampler.sample({"a": 10}))["a"].cpu_seconds == before == pytest.approx(6.0)


async def test_cpu_seconds_never_shrink_though_nobody_waited_for_a_child(proc: FakeProc, sampler: Sampler) -> None:
    proc.put(10, cpu=(2, 0, 0, 0))
    proc.put(11, 10, cpu=(4, 0, 0, 0))
    seen = [(await sampler.sample({"a": 10}))["a"].cpu_seconds]
    proc.drop(11)
    for own in (2, 5, 7):
        proc.put(10, cpu=(own, 0, 0, 0))
        proc.now += 2
        seen.append((await sampler.sample({"a": 10}))["a"].cpu_seconds)
    assert seen == pytest.approx([6.0, 6.0, 6.0, 7.0])


async def test_a_process_that_is_gone_has_no_entry(proc: FakeProc, sampler: Sampler) -> None:
    proc.put(10)
    proc.put(20)
    assert set(await sampler.sample({"a": 10, "b": 20, "c": 30})) == {"a", "b"}
    proc.drop(20)
    proc.now += 2
    assert set(await sampler.sample({"a": 10, "b": 20})) == {"a"}


async def test_a_pid_that_was_given_to_somebody_else_is_not_ours(proc: FakeProc, sampler: Sampler) -> None:
    proc.put(10, started=77)
    assert "a" in await sampler.sample({"a": 10})
    proc.put(10, started=99)
    proc.now += 2
    assert await sampler.sample({"a": 10}) == {}


async def test_a_sample_is_kept_for_a_second(proc: FakeProc, sampler: Sampler) -> None:
    proc.put(10, cpu=(1, 0, 0, 0))
    proc.put(20, cpu=(1, 0, 0, 0))
    await sampler.sample({"a": 10, "b": 20})
    proc.put(10, cpu=(2, 0, 0, 0))
    proc.now += 0.9
    assert (await sampler.sample({"a": 10}))["a"].cpu_seconds == pytest.approx(1.0)
    assert set(await sampler.sample({"a": 10})) == {"a"}
    proc.now += 0.2
    assert (await sampler.sample({"a": 10}))["a"].cpu_seconds == pytest.approx(2.0)


async def test_a_process_not_yet_sampled_is_not_made_to_wait(proc: FakeProc, sampler: Sampler) -> None:
    proc.put(10)
    proc.put(20)
    await sampler.sample({"a": 10})
    assert set(await sampler.sample({"a": 10, "b": 20})) == {"a", "b"}


async def test_pss_is_measured_every_ten_seconds_only(proc: FakeProc, sampler: Sampler) -> None:
    seen = []
    for kib in (1, 2, 3):
        proc.put(10, pss_kib=kib)
        seen.append((await sampler.sample({"a": 10}))["a"].pss_bytes)
        proc.now += 6
    assert seen == [1024, 1024, 3 * 1024]


async def test_pss_is_unknown_when_one_member_may_not_be_looked_into(
    proc: FakeProc, sampler: Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_sampler: Sampler, pid: int) -> int:
        if pid == 11:
            raise PermissionError
        return 5

    monkeypatch.setattr(Sampler, "_pss_of", refuse)
    proc.put(10)
    proc.put(11, 10)
    assert (await sampler.sample({"a": 10}))["a"].pss_bytes is None


async def test_the_loop_runs_while_proc_is_slow(proc: FakeProc, sampler: Sampler) -> None:
    proc.put(10)
    (proc.root / "10" / "stat").rename(proc.root / "line")
    os.mkfifo(proc.root / "10" / "stat")  # reading it blocks until somebody writes
    sampling = asyncio.create_task(sampler.sample({"a": 10}))
    turns = 0
    while turns < 100:
        await asyncio.sleep(0)
        turns += 1
    assert not sampling.done()
    gate = await asyncio.to_thread(os.open, proc.root / "10" / "stat", os.O_WRONLY)
    os.write(gate, (proc.root / "line").read_bytes())
    os.close(gate)
    assert set(await asyncio.wait_for(sampling, 10)) == {"a"}


async def test_callers_at_the_same_time_share_one_sample(
    proc: FakeProc, sampler: Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = []
    plain = Sampler._sample

    def counted(self: Sampler, pids: dict[str, int]) -> object:
        passes.append(pids)
        return plain(self, pids)

    monkeypatch.setattr(Sampler, "_sample", counted)
    proc.put(10)
    await asyncio.gather(*(sampler.sample({"a": 10}) for _ in range(50)))
    assert len(passes) == 1


async def test_what_is_kept_is_bounded_by_what_is_asked_for(proc: FakeProc, sampler: Sampler) -> None:
    proc.put(10)
    for serial in range(20):
        await sampler.sample({f"a.0@g1.{serial}": 10})
        proc.now += 2
    assert len(sampler._memories) == 1


@given(st.dictionaries(st.integers(2, 30), st.integers(1, 30), min_size=1))
def test_a_torn_map_of_parents_still_gives_a_tree(parents: dict[int, int]) -> None:
    children: dict[int, list[int]] = {}
    for pid, parent in parents.items():
        children.setdefault(parent, []).append(pid)
    for main in parents:
        tree = _tree(main, children)
        assert tree[0] == main
        assert len(tree) == len(set(tree)) <= len(parents) + 1


BURNER = """
import subprocess, sys, threading, time
child = subprocess.Popen([sys.executable, "-c", "import time\\nwhile time.process_time() < 0.2: pass\\ntime.sleep(60)"])
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
print("up", flush=True)
child.wait()
"""


@pytest.mark.real
async def test_a_real_tree_is_measured() -> None:
    main = subprocess.Popen([sys.executable, "-c", BURNER], stdout=subprocess.PIPE)
    sampler = Sampler(fresh_seconds=0.0)
    try:
        assert main.stdout is not None
        main.stdout.readline()

        async def burnt() -> bool:
            return (await sampler.sample({"a": main.pid}))["a"].cpu_seconds >= 0.2

        await eventually(burnt, 20, "the child to use 0.2 s of CPU")
        usage = (await sampler.sample({"a": main.pid}))["a"]
        assert (usage.processes, usage.threads) == (2, 3)
        assert usage.open_fds == sum(
            len(os.listdir(f"/proc/{pid}/fd")) for pid in _tree(main.pid, _children(read_stats()))
        )
        assert usage.pss_bytes is not None
        assert 1 << 20 < usage.pss_bytes < usage.rss_bytes
    finally:
        sampler.close()
        for pid in reversed(_tree(main.pid, _children(read_stats()))):
            os.kill(pid, 9)
        main.wait()
        assert main.stdout is not None
        main.stdout.close()


def test_reading_all_of_proc_is_quick() -> None:
    began = time.perf_counter()
    stats = read_stats()
    spent = time.perf_counter() - began
    assert stats[os.getpid()].parent == os.getppid()
    assert spent / len(stats) < 0.002  # 20 us when idle
