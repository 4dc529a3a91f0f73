"""Nothing is left behind: the proof is the EOF of a FIFO that every process of the tree holds open."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from supervisor_d.core.events import ShimReplaced, TreeEmptied
from supervisor_d.core.process import Exit
from tests.shim.conftest import ID, ShimWorld
from tests.support.waiting import eventually, wait_for

pytestmark = pytest.mark.real

EVIL = str(Path(__file__).with_name("evil.py"))


class Truth:
    """The read end of the FIFO that the tree holds."""

    def __init__(self, directory: Path) -> None:
        self.path = str(directory / "truth")
        os.mkfifo(self.path)
        self._end = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)

    def nobody_is_left(self) -> bool:
        try:
            return os.read(self._end, 1) == b""
        except BlockingIOError:
            return False


@pytest.fixture
def truth(tmp_path: Path) -> Truth:
    return Truth(tmp_path)


async def grow(world: ShimWorld, kind: str, truth: Truth, **more: object) -> int:
    world.start(sys.executable, "-I", "-S", EVIL, kind, truth.path, **more)  # type: ignore[arg-type]
    pid = await world.spawned()
    await eventually(lambda: "grown" in world.log(), what="the tree to grow")
    assert not truth.nobody_is_left()
    return pid


@pytest.mark.parametrize("kind", ["child", "leader", "daemon", "static", "reforking", "bomb"])
async def test_kill_leaves_nothing(both: ShimWorld, truth: Truth, kind: str) -> None:
    await grow(both, kind, truth)
    both.host.kill(ID)
    assert await both.over() == Exit(signal=9)
    assert truth.nobody_is_left()
    assert (await both.wait_for(TreeEmptied, ID)).proven


@pytest.mark.parametrize("kind", ["static", "reforking", "bomb"])
async def test_what_outlives_the_main_process_is_ended(both: ShimWorld, truth: Truth, kind: str) -> None:
    pid = await grow(both, kind, truth)
    os.kill(pid, 9)
    assert await both.over() == Exit(signal=9)
    assert truth.nobody_is_left()
    assert (await both.wait_for(TreeEmptied, ID)).killed >= 1


async def test_the_grace_of_orphans_ends(both: ShimWorld, truth: Truth) -> None:
    began = both.host.now()
    both.start(sys.executable, "-I", "-S", EVIL, "dies", truth.path, orphan_grace_seconds=0.4)
    assert await both.over() == Exit(code=7)
    assert both.host.now() - began >= 0.4
    assert truth.nobody_is_left()


@pytest.mark.skip_allowed("needs a cgroup v2 that this user may write to")
@pytest.mark.parametrize("kind", ["static", "reforking", "bomb"])
async def test_with_the_shim_dead_a_cgroup_still_knows_all(shims: ShimWorld, truth: Truth, kind: str) -> None:
    await grow(shims, kind, truth)
    if not shims.spec(ID)["cgroup"]:
        pytest.skip("no cgroup v2 can be had here")
    shims.lose_shim(ID)
    await shims.wait_for(ShimReplaced, ID)
    shims.host.kill(ID)
    await shims.over()
    assert truth.nobody_is_left()
    assert (await shims.wait_for(TreeEmptied, ID)).proven


async def test_with_neither_shim_nor_cgroup_what_can_be_seen_is_ended(
    shims: ShimWorld, truth: Truth, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shims.host._cgroups, "_parent", None)
    await grow(shims, "leader", truth)
    shims.lose_shim(ID)
    await shims.wait_for(ShimReplaced, ID)
    shims.host.kill(ID)
    await shims.over()
    wait_for(truth.nobody_is_left, what="the end of all that was killed")
    assert not (await shims.wait_for(TreeEmptied, ID)).proven
