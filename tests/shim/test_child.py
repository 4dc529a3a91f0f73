"""What a program finds when it starts, read from /proc."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

from supervisor_d.core.process import Exit
from supervisor_d.core.spec import Limits
from tests.shim.conftest import ENV, ID, ShimWorld
from tests.support import procs

pytestmark = pytest.mark.real

ROOT_ONLY = "only root may become another user"


def needs_root(test: Callable[..., Coroutine[None, None, None]]) -> Callable[..., Coroutine[None, None, None]]:
    """Skipped for a plain user, also in CI, where root's own run has it."""
    for mark in (
        pytest.mark.root,
        pytest.mark.skip_allowed(ROOT_ONLY),
        pytest.mark.skipif(os.geteuid() != 0, reason=ROOT_ONLY),
    ):
        test = mark(test)
    return test


SLEEP = ("/bin/sleep", "1000")


def signals(pid: int, kind: str) -> set[int]:
    bits = int(procs.status(pid)[kind], 16)
    return {number + 1 for number in range(64) if bits >> number & 1}


async def test_only_the_listed_descriptors_are_there(shims: ShimWorld) -> None:
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        shims.start(*SLEEP, listeners=(second.fileno(), first.fileno()))
        pid = await shims.spawned()
        found = procs.descriptors(pid)
        inodes = [f"socket:[{os.fstat(server.fileno()).st_ino}]" for server in (second, first)]
    fifo = str(shims.record(ID) / "output")
    assert found == {0: "/dev/null", 1: fifo, 2: fifo, 3: inodes[0], 4: inodes[1]}


async def test_the_environment_is_what_was_given(shims: ShimWorld) -> None:
    shims.start(*SLEEP)
    assert procs.environment(await shims.spawned()) == ENV


async def test_listeners_are_named_in_the_environment(shims: ShimWorld) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        shims.start(*SLEEP, listeners=(server.fileno(),))
        pid = await shims.spawned()
    assert procs.environment(pid) == {**ENV, "LISTEN_FDS": "1", "LISTEN_PID": str(pid)}


async def test_signals_are_as_a_program_expects_them(shims: ShimWorld) -> None:
    shims.start(*SLEEP)
    pid = await shims.spawned()
    assert {kind: signals(pid, kind) for kind in ("SigIgn", "SigBlk", "SigCgt")} == {
        "SigIgn": set(),
        "SigBlk": set(),
        "SigCgt": set(),
    }


async def test_a_session_of_its_own(shims: ShimWorld) -> None:
    shims.start(*SLEEP)
    pid = await shims.spawned()
    found = procs.stat(pid)
    assert found
    assert (found.session, found.group) == (pid, pid)


async def test_the_directory(shims: ShimWorld, tmp_path: Path) -> None:
    shims.start(*SLEEP, cwd=str(tmp_path))
    assert Path(f"/proc/{await shims.spawned()}/cwd").readlink() == tmp_path


async def test_limits(shims: ShimWorld) -> None:
    wanted = Limits(open_files=77, processes=1000, core_size_bytes=0, memory_bytes=1 << 30, nice=7, umask=0o027)
    shims.start(*SLEEP, limits=wanted)
    pid = await shims.spawned()
    limits = procs.limits(pid)
    assert limits["Max open files"] == ("77", "77")
    assert limits["Max processes"] == ("1000", "1000")
    assert limits["Max core file size"] == ("0", "0")
    assert limits["Max data size"] == (str(1 << 30), str(1 << 30))
    assert os.getpriority(os.PRIO_PROCESS, pid) == 7
    assert procs.status(pid)["Umask"] == "0027"


async def test_the_shim_itself_is_not_limited(shims: ShimWorld) -> None:
    shims.start(*SLEEP, limits=Limits(open_files=77, nice=7))
    await shims.spawned()
    shim = int(shims.fact(ID, "began")["process"][0])
    assert procs.limits(shim)["Max open files"] != ("77", "77")
    assert os.getpriority(os.PRIO_PROCESS, shim) == os.getpriority(os.PRIO_PROCESS, 0)


async def test_the_oom_score(shims: ShimWorld) -> None:
    shims.start(*SLEEP, limits=Limits(oom_score_adj=321))
    assert Path(f"/proc/{await shims.spawned()}/oom_score_adj").read_text() == "321\n"


@needs_root
async def test_privileges_are_dropped_for_good(shims: ShimWorld) -> None:
    shims.start(*SLEEP, user="www-data")
    status = procs.status(await shims.spawned())
    uid, gid = "33", "33"
    assert status["Uid"].split() == [uid] * 4
    assert status["Gid"].split() == [gid] * 4
    assert status["Groups"].split() == [gid]
    assert {status[kind] for kind in ("CapPrm", "CapEff", "CapInh", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"


@needs_root
async def test_a_group_of_its_own_choice(shims: ShimWorld) -> None:
    shims.start(*SLEEP, user="www-data", group="nogroup")
    status = procs.status(await shims.spawned())
    assert status["Gid"].split() == ["65534"] * 4


@needs_root
async def test_the_shim_keeps_the_daemons_user(shims: ShimWorld) -> None:
    shims.start(*SLEEP, user="www-data")
    await shims.spawned()
    assert procs.status(int(shims.fact(ID, "began")["process"][0]))["Uid"].split() == ["0"] * 4


@needs_root
async def test_a_dropped_user_can_open_its_standard_output(shims: ShimWorld) -> None:
    shims.sh(
        "echo first; echo second >/dev/stdout; echo third >/dev/stderr; echo fourth >>/proc/self/fd/1", user="www-data"
    )
    assert await shims.over() == Exit(code=0)
    assert shims.log() == "first\nsecond\nthird\nfourth\n"


@needs_root
async def test_a_dropped_user_has_a_private_directory(shims: ShimWorld) -> None:
    private = shims.directory / "run" / "private" / ID
    (shims.directory / "run").chmod(0o711)
    shims.sh(f"echo kept >{private}/file && ls -ld {private}", user="www-data")
    assert await shims.over() == Exit(code=0)
    assert shims.log().startswith("drwx------")
    shims.host.forget(ID)
    assert not private.exists()


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"cwd": "/no/such/directory"}, "enter the directory /no/such/directory: No such file or directory"),
        ({"limits": Limits(oom_score_adj=5000)}, "set oom_score_adj to 5000: Invalid argument"),
        ({"user": "nobody-has-this-name"}, "cannot run as user nobody-has-this-name: this host has no such user"),
        ({"group": "nobody-has-this-name"}, "cannot run as group nobody-has-this-name: this host has no such group"),
    ],
)
async def test_what_cannot_be_done_is_said(shims: ShimWorld, more: dict[str, object], reason: str) -> None:
    shims.start(*SLEEP, **more)  # type: ignore[arg-type]
    assert await shims.failure() == f"cannot start /bin/sleep: {reason}"


async def test_a_file_that_is_not_executable(shims: ShimWorld, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    shims.start(str(program))
    assert await shims.failure() == f"cannot start {program}: exec {program}: Permission denied"


async def test_a_failed_start_leaves_nothing_when_forgotten(shims: ShimWorld) -> None:
    shims.start("/no/such/program")
    await shims.failure()
    shims.host.forget(ID)
    assert not shims.record(ID).exists()
