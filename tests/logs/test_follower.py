from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import aclosing
from itertools import islice
from pathlib import Path

import pytest

from supervisor_d.logs import follower as follower_module
from supervisor_d.logs.files import Selection
from supervisor_d.logs.follower import Follower, selection_of
from supervisor_d.logs.inotify import Inotify, tells_of_splice
from supervisor_d.logs.line import LogLine
from tests.logs.writer import Writer

Done = Callable[[list[LogLine]], bool]


async def collect(follower: Follower, done: Done, after: Callable[[], None] = lambda: None) -> list[LogLine]:
    """What is added, until it is `done`; `after` runs once the follower waits."""
    lines: list[LogLine] = []
    asyncio.get_running_loop().call_later(0.05, after)
    async with asyncio.timeout(10), aclosing(follower.added()) as added:  # type: ignore[type-var]
        async for batch in added:
            lines += batch
            if done(lines):
                return lines
    raise AssertionError("the follower ended")


def follower_of(directory: Path, *names: str) -> Follower:
    return Follower(selection_of(lambda: {"web": str(directory), "worker": str(directory)}, names))


def ends_with(text: str) -> Done:
    return lambda lines: bool(lines) and lines[-1].text == text


def test_history_and_what_follows_are_one_stream(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "web.0")
    writer.write("one\ntwo\nthr")

    async def scenario() -> None:
        with follower_of(tmp_path) as follower:
            assert [line.text for line in follower.history(10, None)] == ["one", "two"]
            lines = await collect(follower, ends_with("four"), lambda: writer.write("ee\nfour\n"))
            assert [line.text for line in lines] == ["three", "four"]

    asyncio.run(scenario())
    writer.close()


def test_nothing_is_lost_or_repeated_through_rotations(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "web.0", max_size=2000, keep=50)
    writer.write("0\n")

    async def scenario() -> None:
        with follower_of(tmp_path) as follower:
            follower.history(0, None)
            lines = await collect(follower, ends_with("4999"), write_on)
            assert [line.text for line in lines] == [str(n) for n in range(1, 5000)]

    numbers = iter(range(1, 5000))

    def write_on() -> None:
        """A burst that turns the file over several times, then lets the reader in."""
        burst = list(islice(numbers, 700))
        for number in burst:
            writer.write(f"{number}\n")
        if burst[-1] < 4999:
            asyncio.get_running_loop().call_later(0.01, write_on)

    asyncio.run(scenario())
    assert len(list(tmp_path.glob("web.0.log.*"))) > 10
    writer.close()


def test_rotation_between_history_and_following(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "web.0", max_size=30, keep=9)
    writer.write("first\n")

    async def scenario() -> None:
        with follower_of(tmp_path) as follower:
            selected = follower._selection
            assert [line.text for line in follower.history(10, None)] == ["first"]
            for number in range(20):
                writer.write(f"line {number}\n")
            lines = await collect(follower, ends_with("line 19"))
            assert [line.text for line in lines] == [f"line {number}" for number in range(20)]
            assert follower._selection is selected

    asyncio.run(scenario())
    writer.close()


def test_a_new_lane_and_a_new_slot_are_followed_from_their_beginning(tmp_path: Path) -> None:
    writers = [Writer(tmp_path, "web.0")]
    writers[0].write("old\n")

    def appear() -> None:
        writers.append(Writer(tmp_path, "web.0"))
        writers.append(Writer(tmp_path, "worker.3"))
        writers[1].write("new lane\n")
        writers[2].write("new slot\n")

    async def scenario() -> None:
        with follower_of(tmp_path) as follower:
            follower.history(10, None)
            lines = await collect(follower, lambda lines: len(lines) == 2, appear)
            assert {(line.source, line.text) for line in lines} == {("web.0", "new lane"), ("worker.3", "new slot")}

    asyncio.run(scenario())
    for writer in writers:
        writer.close()


def test_only_what_is_named_is_followed(tmp_path: Path) -> None:
    web, worker = Writer(tmp_path, "web.0"), Writer(tmp_path, "worker.0")

    def write() -> None:
        worker.write("not this\n")
        web.write("this\n")

    async def scenario() -> None:
        with follower_of(tmp_path, "web") as follower:
            follower.history(10, None)
            assert [line.text for line in await collect(follower, ends_with("this"), write)] == ["this"]

    asyncio.run(scenario())
    web.close()
    worker.close()


def test_a_pool_that_a_reload_added_is_followed_after_refresh(tmp_path: Path) -> None:
    pools = {"web": tmp_path}
    extra = tmp_path / "extra"
    extra.mkdir()
    writer = Writer(extra, "shop.0")

    async def scenario() -> None:
        with Follower(lambda: Selection(dict(pools))) as follower:
            follower.history(10, None)
            pools["shop"] = extra
            follower.refresh()
            lines = await collect(follower, ends_with("hello"), lambda: writer.write("hello\n"))
            assert [line.source for line in lines] == ["shop.0"]

    asyncio.run(scenario())
    writer.close()


def test_a_truncated_file_is_followed_from_its_new_end(tmp_path: Path) -> None:
    path = tmp_path / "web.0.log"
    path.write_text("a long line that goes\n")

    def truncate_and_write() -> None:
        os.truncate(path, 0)
        asyncio.get_running_loop().call_later(0.2, lambda: path.write_text("fresh\n"))

    async def scenario() -> None:
        with follower_of(tmp_path) as follower:
            follower.history(10, None)
            lines = await collect(follower, ends_with("fresh"), truncate_and_write)
            assert [line.text for line in lines] == ["fresh"]

    asyncio.run(scenario())


def test_following_works_where_the_kernel_does_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Linux 6.4 splice(2) makes no inotify event: a look is taken every TICK_SECONDS."""
    monkeypatch.setattr(follower_module, "tells_of_splice", lambda: False)
    monkeypatch.setattr(Inotify, "watch", lambda *_: False)
    writer = Writer(tmp_path, "web.0")

    async def scenario() -> None:
        with follower_of(tmp_path) as follower:
            follower.history(10, None)
            lines = await collect(follower, ends_with("seen"), lambda: writer.write("seen\n"))
            assert [line.text for line in lines] == ["seen"]

    asyncio.run(scenario())
    writer.close()


def test_nothing_is_looked_at_while_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower_module, "tells_of_splice", lambda: True)
    writer = Writer(tmp_path, "web.0")
    reads: list[int] = []

    async def scenario() -> None:
        with follower_of(tmp_path) as follower:
            follower.history(10, None)
            read_once = follower._read_once

            def counted() -> list[LogLine]:
                reads.append(1)
                return read_once()

            monkeypatch.setattr(follower, "_read_once", counted)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.6):
                    await anext(follower.added())
            assert len(reads) <= 2

    asyncio.run(scenario())
    writer.close()


def test_every_descriptor_is_given_back(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "web.0", max_size=30, keep=9)
    before = len(os.listdir("/proc/self/fd"))

    async def scenario() -> None:
        with follower_of(tmp_path) as follower:
            follower.history(10, None)
            for number in range(20):
                writer.write(f"line {number}\n")
            await collect(follower, ends_with("line 19"))

    asyncio.run(scenario())
    assert len(os.listdir("/proc/self/fd")) == before
    writer.close()


def test_the_kernel_is_asked_whether_it_tells_of_splice() -> None:
    release = tuple(int(part) for part in os.uname().release.split(".")[:2])
    if release >= (6, 4):
        assert tells_of_splice()
    else:
        assert not tells_of_splice()
