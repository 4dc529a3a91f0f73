"""The log: whole, in order, rotated at line ends, indexed, and never a reason to block for long."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor_d.core.events import Spawned
from supervisor_d.core.process import Exit
from supervisor_d.core.spec import LogPolicy
from supervisor_d.shim import wire
from supervisor_d.shim.logfile import OVERRUN_BYTES, LogFile
from supervisor_d.shim.pump import Pump
from tests.shim.conftest import ID, ShimWorld
from tests.support.waiting import eventually, wait_for

OTHER = "pool.0@g2.2"


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe2(os.O_NONBLOCK)
    yield ends
    for end in ends:
        os.close(end)


def lines_of(directory: Path, keep: int) -> list[str]:
    """All lines of a log with what was rotated, oldest first."""
    names = [*(f"pool.0.log.{number}" for number in range(keep, 0, -1)), "pool.0.log"]
    return "".join((directory / name).read_text() for name in names if (directory / name).exists()).splitlines()


class TestWholeAndInOrder:
    pytestmark = pytest.mark.real

    async def test_a_line_is_there_at_once(self, shims: ShimWorld) -> None:
        shims.sh("echo here; sleep 1000")
        await shims.spawned()
        began = time.monotonic()
        await eventually(lambda: shims.log() == "here\n", 5, "the line")
        assert time.monotonic() - began < 1

    async def test_rotation_loses_no_line(self, shims: ShimWorld) -> None:
        log = LogPolicy(max_size_bytes=100_000, keep=50)
        shims.start("/usr/bin/seq", "1", "300000", log=log)
        assert await shims.over() == Exit(code=0)
        directory = shims.directory / "log"
        assert lines_of(directory, 50) == [str(number) for number in range(1, 300_001)]
        rotated = [file.read_text() for file in directory.glob("pool.0.log.*[0-9]")]
        assert len(rotated) >= 4
        assert all(text.endswith("\n") and len(text) < 100_000 + OVERRUN_BYTES for text in rotated)

    async def test_only_so_many_are_kept(self, shims: ShimWorld) -> None:
        shims.start("/usr/bin/seq", "1", "900000", log=LogPolicy(max_size_bytes=50_000, keep=2))
        await shims.over()
        names = {file.name for file in (shims.directory / "log").iterdir()}
        assert names <= {f"pool.0.log{suffix}{index}" for suffix in ("", ".1", ".2") for index in ("", ".idx")}
        assert "pool.0.log.2" in names
        assert lines_of(shims.directory / "log", 2)[-1] == "900000"

    async def test_the_daemon_may_be_gone(self, shims: ShimWorld) -> None:
        shims.sh("read line <>$0; for n in 1 2 3; do echo $n; done; exec sleep 1000", cwd=str(shims.directory))
        await shims.wait_for(Spawned, ID)
        shims.lose_daemon()
        os.kill(shims.tree(ID)[0], 9)
        wait_for(lambda: "emptied" in (shims.record(ID) / wire.EVENTS).read_text(), what="the end")

    async def test_two_processes_of_a_slot_write_two_lanes(self, shims: ShimWorld) -> None:
        shims.sh("echo old; sleep 1000")
        await shims.spawned()
        await eventually(lambda: shims.log() == "old\n")
        shims.sh("echo new; sleep 1000", process_id=OTHER)
        await shims.spawned(OTHER)
        await eventually(lambda: shims.log("pool.0~1.log") == "new\n")
        assert shims.log() == "old\n"

    async def test_a_lane_is_free_again_when_its_process_is_forgotten(self, shims: ShimWorld) -> None:
        shims.sh("echo one")
        await shims.over()
        shims.host.forget(ID)
        shims.sh("echo two", process_id=OTHER)
        await shims.over(OTHER)
        logs = [shims.log(), *(file.read_text() for file in (shims.directory / "log").glob("*~1.log"))]
        assert "".join(logs) == "one\ntwo\n"


class TestLogFile:
    def test_the_index_says_where_a_second_begins(self, tmp_path: Path, directory: int, pipe: tuple[int, int]) -> None:
        log = LogFile(directory, "a", 1 << 20, 3)
        before = int(time.time())
        os.write(pipe[1], b"one\n")
        assert log.take(pipe[0]) == 4
        seconds, offset = map(int, (tmp_path / "a.log.idx").read_text().split()[:2])
        assert before <= seconds <= time.time()
        assert offset == 0

    def test_what_is_there_is_kept(self, tmp_path: Path, directory: int, pipe: tuple[int, int]) -> None:
        (tmp_path / "a.log").write_text("before\n")
        log = LogFile(directory, "a", 1 << 20, 3)
        os.write(pipe[1], b"after\n")
        log.take(pipe[0])
        assert (tmp_path / "a.log").read_text() == "before\nafter\n"

    def test_no_line_is_cut_in_two(self, tmp_path: Path, directory: int, pipe: tuple[int, int]) -> None:
        log = LogFile(directory, "a", 10, 2)
        for words in (b"0123456789 no ", b"end yet\nbegun ", b"and ended\n", b"last\n"):
            os.write(pipe[1], words)
            log.take(pipe[0])
        assert (tmp_path / "a.log.2").read_text() == "0123456789 no end yet\n"
        assert (tmp_path / "a.log.1").read_text() == "begun and ended\n"
        assert (tmp_path / "a.log").read_text() == "last\n"
        assert (tmp_path / "a.log.1.idx").exists()

    def test_a_line_without_end_turns_it_over_at_last(
        self, tmp_path: Path, directory: int, pipe: tuple[int, int]
    ) -> None:
        log = LogFile(directory, "a", 10, 1)
        for _ in range(2 * OVERRUN_BYTES // 4096):
            os.write(pipe[1], b"x" * 4096)
            log.take(pipe[0])
        assert (tmp_path / "a.log.1").stat().st_size == 10 + OVERRUN_BYTES

    def test_without_any_kept_it_starts_anew(self, tmp_path: Path, directory: int, pipe: tuple[int, int]) -> None:
        log = LogFile(directory, "a", 4, 0)
        for words in (b"one\n", b"two\n"):
            os.write(pipe[1], words)
            log.take(pipe[0])
        assert (tmp_path / "a.log").read_text() == "two\n"
        assert not (tmp_path / "a.log.1").exists()

    @pytest.mark.parametrize("kind", ["symbolic link", "hard link", "fifo", "directory"])
    def test_what_somebody_planted_is_refused(self, tmp_path: Path, directory: int, kind: str) -> None:
        victim = tmp_path / "victim"
        victim.write_text("precious")
        planted = tmp_path / "a.log"
        match kind:
            case "symbolic link":
                planted.symlink_to(victim)
            case "hard link":
                planted.hardlink_to(victim)
            case "fifo":
                os.mkfifo(planted)
            case _:
                planted.mkdir()
        with pytest.raises(OSError):
            LogFile(directory, "a", 100, 1)
        assert victim.read_text() == "precious"

    def test_a_failed_turn_over_is_tried_again_and_shifts_nothing_twice(
        self, tmp_path: Path, directory: int, pipe: tuple[int, int]
    ) -> None:
        log = LogFile(directory, "a", 4, 3)
        os.write(pipe[1], b"one\n")
        log.take(pipe[0])
        for lane in ("a.log", *(f"a~{number}.log" for number in range(1, 64))):
            if lane != "a.log":
                (tmp_path / lane).mkdir()
        os.write(pipe[1], b"two\n")
        for _ in range(5):
            (tmp_path / "a.log").rename(tmp_path / "saved") if (tmp_path / "a.log").is_file() else None
            (tmp_path / "a.log").mkdir(exist_ok=True)
            with pytest.raises(OSError):
                log.take(pipe[0])
        (tmp_path / "a.log").rmdir()
        (tmp_path / "saved").rename(tmp_path / "a.log")
        log.take(pipe[0])
        assert (tmp_path / "a.log.1").read_text() == "one\n"
        assert (tmp_path / "a.log").read_text() == "two\n"
        assert not (tmp_path / "a.log.2").exists()


class TestPump:
    def test_a_trickle_is_looked_at_after_a_while(self, directory: int, pipe: tuple[int, int]) -> None:
        pump = Pump(pipe[0], 65536, LogFile(directory, "a", 1 << 20, 1), 1.0)
        os.write(pipe[1], b"line\n")
        assert pump.look() == pytest.approx(0.010)
        assert pump.look() is None

    def test_a_flood_is_looked_at_soon(self, directory: int, pipe: tuple[int, int]) -> None:
        pump = Pump(pipe[0], 65536, LogFile(directory, "a", 1 << 30, 1), 1.0)
        pauses = []
        for _ in range(6):
            os.write(pipe[1], b"x" * 65536)
            pauses.append(pump.look())
        assert pauses == pytest.approx([0.0025, 0.000625, 0.00015625, 0.0000390625, 0, 0])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[int]:
    """A disk of 64 KiB that is gone with its last descriptor."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], check=True)
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    subprocess.run(["umount", "-l", str(place)], check=True)
    yield fd
    os.close(fd)


@pytest.mark.root
@pytest.mark.skip_allowed("only root may mount a small disk")
class TestFullDisk:
    def fill(self, pipe: tuple[int, int]) -> int:
        """Write until the pipe is full.  How much it took."""
        written = 0
        try:
            while True:
                written += os.write(pipe[1], b"x" * 4095 + b"\n")
        except BlockingIOError:
            return written

    def test_nothing_is_lost_while_the_program_can_wait(self, small_disk: int, pipe: tuple[int, int]) -> None:
        pump = Pump(pipe[0], 65536, LogFile(small_disk, "a", 1 << 20, 1), block_seconds=60.0)
        written = self.fill(pipe)
        pump.look()
        written += self.fill(pipe)
        for _ in range(5):
            pump.look()
        in_file = os.stat("a.log", dir_fd=small_disk).st_size
        assert pump.dropped_bytes == 0
        assert 0 < in_file < written
        os.unlink("a.log.idx", dir_fd=small_disk)
        assert in_file + len(os.read(pipe[0], 1 << 20)) == written

    def test_a_program_is_not_blocked_for_ever(self, small_disk: int, pipe: tuple[int, int]) -> None:
        pump = Pump(pipe[0], 65536, LogFile(small_disk, "a", 1 << 20, 1), block_seconds=0.05)
        written = self.fill(pipe)
        pump.look()
        written += self.fill(pipe)

        def dropped() -> bool:
            pump.look()
            return pump.dropped_bytes > 0

        wait_for(dropped, 5, "the output to be dropped")
        assert pump.dropped_bytes + os.stat("a.log", dir_fd=small_disk).st_size == written
        assert self.fill(pipe) > 0

    def test_last_words_that_do_not_fit_are_counted(self, small_disk: int, pipe: tuple[int, int]) -> None:
        pump = Pump(pipe[0], 65536, LogFile(small_disk, "a", 1 << 20, 1), block_seconds=60.0)
        written = 0
        for _ in range(2):
            written += self.fill(pipe)
            pump.look()
        pump.drain()
        assert pump.dropped_bytes > 0
        assert pump.dropped_bytes + os.stat("a.log", dir_fd=small_disk).st_size == written

    def test_it_goes_on_by_itself(self, small_disk: int, pipe: tuple[int, int]) -> None:
        pump = Pump(pipe[0], 65536, LogFile(small_disk, "a", 1 << 20, 1), block_seconds=60.0)
        ballast = os.open("ballast", os.O_RDWR | os.O_CREAT, dir_fd=small_disk)
        os.posix_fallocate(ballast, 0, 60 * 1024 - 8192)
        written = self.fill(pipe)
        wait_for(lambda: pump.look() == pytest.approx(0.1), 5, "the disk to be full")
        os.ftruncate(ballast, 0)
        os.close(ballast)
        while pump.look() is not None:
            pass
        assert os.stat("a.log", dir_fd=small_disk).st_size >= min(written, 32768)
