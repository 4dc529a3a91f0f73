"""What can still be had: the host's word, or a cgroup's where that is less."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor_d.runtime.memory import available_bytes

KIB = 1024


@pytest.fixture
def meminfo(tmp_path: Path) -> Path:
    path = tmp_path / "meminfo"
    path.write_text("MemTotal:  9000 kB\nMemFree: 10 kB\nMemAvailable:   4000 kB\nHugePages_Total:  0\n")
    return path


def cgroup(path: Path, limit: str, current: int, inactive: int = 0) -> Path:
    path.mkdir()
    (path / "cgroup.procs").touch()
    (path / "memory.max").write_text(f"{limit}\n")
    (path / "memory.current").write_text(f"{current}\n")
    (path / "memory.stat").write_text(f"anon 5\ninactive_file {inactive}\n")
    return path


def test_of_this_machine() -> None:
    assert available_bytes() > 0


def test_the_hosts_word_without_a_limit(meminfo: Path, tmp_path: Path) -> None:
    assert available_bytes(None, meminfo) == 4000 * KIB
    assert available_bytes(cgroup(tmp_path / "free", "max", 10), meminfo) == 4000 * KIB
    assert available_bytes(tmp_path / "gone", meminfo) == 4000 * KIB


def test_the_tightest_limit_on_the_way_up_with_what_its_cache_gives_back(meminfo: Path, tmp_path: Path) -> None:
    outer = cgroup(tmp_path / "outer", str(3000 * KIB), 2500 * KIB, inactive=100 * KIB)
    inner = cgroup(outer / "inner", str(1000 * KIB), 100 * KIB)
    assert available_bytes(inner, meminfo) == 600 * KIB


def test_nothing_is_never_less_than_nothing(meminfo: Path, tmp_path: Path) -> None:
    assert available_bytes(cgroup(tmp_path / "full", "100", 200), meminfo) == 0
    assert available_bytes(None, tmp_path / "no-meminfo") == 0
