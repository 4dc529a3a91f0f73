"""Probes: asked until they answer well, bounded in time, and nothing of theirs is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from supervisor_d.core.spec import Launch, Probe
from supervisor_d.programs.addresses import Address, parse_address
from supervisor_d.runtime.probes import Prober, Where
from tests.support.waiting import eventually, throughout

PROCESS = "web.0@g1.1"


class Answers:
    """A server that gives one prepared answer after the other, the last for ever."""

    def __init__(self, *answers: bytes, hold_open: bool = False) -> None:
        self.answers = list(answers)
        self.asked: list[bytes] = []
        self.closed_by_client = 0
        self.address = ""
        self._hold_open = hold_open

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            self.asked.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])
            await writer.drain()
            if self._hold_open:
                await reader.read()
                self.closed_by_client += 1
        writer.close()


@contextlib.asynccontextmanager
async def serving(answers: Answers, path: Path | None = None) -> AsyncIterator[str]:
    if path is not None:
        server: asyncio.Server = await asyncio.start_unix_server(answers.serve, path)
        address = f"unix:{path}"
    else:
        server = await asyncio.start_server(answers.serve, "127.0.0.1", 0)
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield address


def at(*public: str, private: Address | None = None) -> Where:
    return Where(tuple(parse_address(text) for text in public), private)


@pytest.fixture
def ready() -> list[str]:
    return []


@pytest.fixture
def failures() -> list[str]:
    """What was told of probes that were not answered well."""
    return []


@pytest.fixture
async def prober(ready: list[str], failures: list[str]) -> AsyncIterator[Prober]:
    made = Prober(ready.append, lambda process_id, why: failures.append(f"{process_id}: {why}"))
    yield made
    made.close()


def launch(cwd: Path, **env: str) -> Launch:
    return Launch(argv=("/bin/true",), env={"PATH": os.environ["PATH"], **env}, cwd=str(cwd))


def http(target: str = "/healthz", **values: object) -> Probe:
    return Probe("http", target, interval_seconds=0.01, **values)  # type: ignore[arg-type]


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BUSY = b"HTTP/1.1 503 Busy\r\n\r\n"


async def test_http_is_asked_until_it_answers_well(
    prober: Prober, ready: list[str], failures: list[str], tmp_path: Path
) -> None:
    answers = Answers(BUSY, b"", b"SSH-2.0-x\r\n", b"x" * 20_000, b"HTTP/1.1 abc\r\n", OK)
    async with serving(answers) as address:
        prober.start(PROCESS, (http(),), at(address), launch(tmp_path))
        await eventually(lambda: ready, what="readiness")
    assert ready == [PROCESS]
    assert len(answers.asked) == 6
    assert answers.asked[0].startswith(b"GET /healthz HTTP/1.1\r\nHost: " + address.encode())
    assert failures[0] == f"{PROCESS}: http /healthz answered 503"


async def test_http_over_a_unix_socket(prober: Prober, ready: list[str], tmp_path: Path) -> None:
    answers = Answers(b"HTTP/1.0 302 Found\r\n\r\n")
    async with serving(answers, tmp_path / "web.sock") as address:
        prober.start(PROCESS, (http("/"),), at(address), launch(tmp_path))
        await eventually(lambda: ready, what="readiness")
    assert b"Host: localhost\r\n" in answers.asked[0]


async def test_http_expects_the_status_it_was_told(prober: Prober, ready: list[str], tmp_path: Path) -> None:
    answers = Answers(OK, OK, b"HTTP/1.1 401 No\r\n\r\n")
    async with serving(answers) as address:
        prober.start(PROCESS, (http(f"http://{address}/admin", expect_status=401),), at(), launch(tmp_path))
        await eventually(lambda: ready, what="readiness")
    assert len(answers.asked) == 3


async def test_the_probe_closes_at_once_whatever_the_server_does(
    prober: Prober, ready: list[str], tmp_path: Path
) -> None:
    answers = Answers(OK, hold_open=True)
    async with serving(answers) as address:
        prober.start(PROCESS, (http(),), at(address), launch(tmp_path))
        await eventually(lambda: answers.closed_by_client, 1.0, "the client to close")
        await eventually(lambda: ready, what="readiness")


async def test_a_server_that_never_answers_is_given_up_and_asked_again(
    prober: Prober, failures: list[str], tmp_path: Path
) -> None:
    answers = Answers(b"", hold_open=True)
    async with serving(answers) as address:
        prober.start(PROCESS, (http(timeout_seconds=0.05),), at(address), launch(tmp_path))
        await eventually(lambda: len(answers.asked) >= 3, what="three questions")
        prober.ended(PROCESS)
    assert failures == [f"{PROCESS}: http /healthz did not answer in 0.05s"], "the same is told once"


async def test_tcp(prober: Prober, ready: list[str], failures: list[str], tmp_path: Path) -> None:
    path = tmp_path / "late.sock"
    prober.start(PROCESS, (Probe("tcp", f"unix:{path}", interval_seconds=0.01),), at(), launch(tmp_path))
    await eventually(lambda: any("no such file" in told.lower() for told in failures), what="a failure to tell")
    async with serving(Answers(b""), path):
        await eventually(lambda: ready, what="readiness")


async def test_all_probes_must_answer(prober: Prober, ready: list[str], tmp_path: Path) -> None:
    async with serving(Answers(OK)) as address:
        prober.start(PROCESS, (Probe("tcp", address), http(), Probe("notify")), at(address), launch(tmp_path))
        await throughout(lambda: ready == [], 0.1)
        prober.told(PROCESS, "STATUS=loading")
        prober.told("other.0@g1.2", "READY=1")
        await throughout(lambda: ready == [], 0.05)
        prober.told(PROCESS, "STATUS=up\nREADY=1\n")
        await eventually(lambda: ready == [PROCESS], what="readiness")


async def test_ready_1_counts_before_the_probes_start(prober: Prober, ready: list[str], tmp_path: Path) -> None:
    prober.expect(PROCESS)
    prober.told(PROCESS, "READY=1")
    prober.start(PROCESS, (Probe("notify"),), at(), launch(tmp_path))
    await eventually(lambda: ready == [PROCESS], what="readiness")


async def test_nothing_is_told_of_what_has_ended(prober: Prober, ready: list[str], tmp_path: Path) -> None:
    prober.start(PROCESS, (Probe("notify"),), at(), launch(tmp_path))
    prober.ended(PROCESS)
    prober.told(PROCESS, "READY=1")
    await throughout(lambda: ready == [], 0.05)
    prober.ended("unknown.0@g1.1")


# ------------------------------------------------------------------------------------------------ exec


def sh(script: str, timeout_seconds: float = 2.0) -> Probe:
    return Probe("exec", argv=("/bin/sh", "-c", script), interval_seconds=0.01, timeout_seconds=timeout_seconds)


async def test_exec_runs_in_the_pools_place_until_it_exits_0(
    prober: Prober, ready: list[str], failures: list[str], tmp_path: Path
) -> None:
    (tmp_path / "flag").touch()
    probe = sh('test -e flag && test "$SHOP" = yes && exit 3; test ! -e flag')
    prober.start(PROCESS, (probe,), at(), launch(tmp_path, SHOP="yes"))
    await eventually(lambda: any("exited with code 3" in told for told in failures), what="a failure to tell")
    (tmp_path / "flag").unlink()
    await eventually(lambda: ready, what="readiness")


async def test_an_exec_out_of_time_is_killed_with_its_tree(prober: Prober, failures: list[str], tmp_path: Path) -> None:
    (tmp_path / "pids").touch()
    script = "echo $$ >>pids; setsid sh -c 'echo $$ >>pids; sleep 60' & sleep 60 & echo $! >>pids; wait"
    prober.start(PROCESS, (sh(script, timeout_seconds=0.3),), at(), launch(tmp_path))
    await eventually(lambda: any("did not answer" in told for told in failures), what="the time to be over")
    prober.ended(PROCESS)
    pids = [int(line) for line in (tmp_path / "pids").read_text().split()]
    assert len(pids) >= 3
    await eventually(lambda: not any(map(_runs, pids)), what="the tree to be gone")


async def test_an_exec_that_cannot_run_is_a_failure(prober: Prober, failures: list[str], tmp_path: Path) -> None:
    prober.start(PROCESS, (Probe("exec", argv=("/no/such/program",)),), at(), launch(tmp_path))
    await eventually(lambda: any("failed: No such file" in told for told in failures), what="a failure to tell")


@pytest.mark.skip_allowed("only root can become another user")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_an_exec_runs_as_the_pools_user(prober: Prober, ready: list[str], tmp_path: Path) -> None:
    as_nobody = Launch(argv=("/bin/true",), env={"PATH": "/usr/bin:/bin"}, cwd="/", user="nobody")
    prober.start(PROCESS, (sh('test "$(id -un)" = nobody && test "$(id -G)" = "$(id -G nobody)"'),), at(), as_nobody)
    await eventually(lambda: ready, what="readiness")


async def test_no_more_than_a_few_execs_run_at_a_time(prober: Prober, ready: list[str], tmp_path: Path) -> None:
    script = "echo + >>count; sleep 0.05; echo - >>count"
    for number in range(12):
        prober.start(f"web.{number}@g1.{number}", (sh(script),), at(), launch(tmp_path))
    await eventually(lambda: len(ready) == 12, 20, "all to be ready")
    running = most = 0
    for line in (tmp_path / "count").read_text().split():
        running += 1 if line == "+" else -1
        most = max(most, running)
    assert most <= 4


def _runs(pid: int) -> bool:
    try:
        with Path(f"/proc/{pid}/stat").open() as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(autouse=True)
def _no_descriptor_is_leaked() -> Iterator[None]:
    before = len(list(Path("/proc/self/fd").iterdir()))
    yield
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 3, f"more than the event loop's own ({sys.platform})"
