"""A daemon that is killed by SIGKILL, and the next one; records that lie."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from supervisor_d.core.events import MainExited, ShimLost, ShimReplaced, Spawned, SpawnFailed, TreeEmptied
from supervisor_d.core.process import Exit
from supervisor_d.runtime import pidfd
from supervisor_d.shim import wire
from tests.shim.conftest import ID, ShimWorld
from tests.support import procs
from tests.support.waiting import wait_for

pytestmark = pytest.mark.real

DAEMON = textwrap.dedent("""
    import asyncio, sys
    from pathlib import Path
    from supervisor_d.core.spec import Launch
    from supervisor_d.runtime.linux import LinuxHost

    async def main(directory):
        loop = asyncio.get_running_loop()
        def emit(event):
            print(event, flush=True)
        host = LinuxHost(emit, lambda *_: None, directory / "run", directory / "log", loop)
        for number in range(6):
            script = f"read x <{directory}/go; exit 4{number}"
            launch = Launch(("/bin/sh", "-c", script), {}, "/", log_name=f"p.{number}")
            host.spawn(f"p.{number}@g1.{number}", launch, (), f"facts {number}")
        await asyncio.sleep(1000)

    asyncio.run(main(Path(sys.argv[1])))
""")


@pytest.fixture
def killed_daemon(open_path: Path) -> dict[str, int]:
    """A daemon that started six processes and was killed: their pids."""
    os.mkfifo(open_path / "go")
    daemon = subprocess.Popen([sys.executable, "-c", DAEMON, str(open_path)], stdout=subprocess.PIPE, text=True)
    assert daemon.stdout
    pids = {}
    for _ in range(6):
        spawned = eval(daemon.stdout.readline(), {"Spawned": Spawned})
        pids[spawned.id] = spawned.pid
    daemon.kill()
    daemon.wait()
    daemon.stdout.close()
    return pids


async def test_after_kill_9_the_same_processes_are_adopted(
    killed_daemon: dict[str, int], open_path: Path, shims: ShimWorld
) -> None:
    adopted = shims.host.adopt()
    assert {adoption.process_id: adoption.pid for adoption in adopted} == killed_daemon
    assert [adoption.facts for adoption in adopted] == [f"facts {number}" for number in range(6)]
    for number in (0, 1):
        os.kill(killed_daemon[f"p.{number}@g1.{number}"], signal.SIGKILL)
    assert await shims.over("p.0@g1.0") == Exit(signal=9)
    go = os.open(open_path / "go", os.O_RDWR)
    os.write(go, b"go\n" * 4)
    for number in range(2, 6):
        assert await shims.over(f"p.{number}@g1.{number}") == Exit(code=40 + number)
    os.close(go)


async def test_exits_that_no_daemon_saw(killed_daemon: dict[str, int], shims: ShimWorld) -> None:
    for number, pid in enumerate(killed_daemon.values()):
        os.kill(pid, signal.SIGTERM if number % 2 else signal.SIGSEGV)
    records = [shims.record(process_id) / wire.EVENTS for process_id in killed_daemon]
    wait_for(lambda: all('"emptied"' in record.read_text() for record in records), what="the end")
    adopted = shims.host.adopt()
    assert {adoption.exit for adoption in adopted} == {Exit(signal=11), Exit(signal=15)}
    assert all(adoption.empty for adoption in adopted)
    for adoption in adopted:
        shims.host.forget(adoption.process_id)
    assert list((shims.directory / "run" / "processes").iterdir()) == []


async def test_adoption_again_and_again(shims: ShimWorld) -> None:
    shims.sh("sleep 1000")
    pid = await shims.spawned()
    for _ in range(10):
        shims.lose_daemon()
        (adoption,) = shims.new_daemon()
        assert adoption.pid == pid
    await shims.settle()
    shims.host.signal(ID, "TERM")
    assert await shims.over() == Exit(signal=15)
    assert [type(event) for event in shims.events] == [Spawned, MainExited, TreeEmptied]


async def test_a_shim_that_died_while_no_daemon_ran(shims: ShimWorld) -> None:
    shims.sh("sleep 1000")
    pid = await shims.spawned()
    shims.lose_daemon()
    shims.lose_shim(ID)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not procs.alive(pid))
    (adoption,) = shims.new_daemon()
    assert (adoption.pid, adoption.exit) == (pid, None)
    await shims.over()
    spawned, without, *rest = (type(event) for event in shims.events)
    assert (spawned, rest) == (Spawned, [MainExited, TreeEmptied])
    assert without in (ShimLost, ShimReplaced), "replaced for as long as its end is not reaped"


@pytest.mark.skip_allowed("the kernel tells the exit of others' children since Linux 6.15")
async def test_the_exit_is_known_even_with_the_shim_dead(shims: ShimWorld) -> None:
    shims.sh("sleep 1000")
    pid = await shims.spawned()
    probe = os.pidfd_open(pid)
    try:
        pidfd.exit_status(probe)
    except pidfd.ExitUnknownError:
        pytest.skip("this kernel does not tell the exit of others' children (it takes Linux 6.15)")
    finally:
        os.close(probe)
    shims.lose_shim(ID)
    await shims.wait_for(ShimReplaced, ID)
    os.kill(pid, signal.SIGSEGV)
    assert await shims.over() == Exit(signal=11)


@pytest.fixture
def bystander() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["/bin/sleep", "1000"])


async def test_a_record_that_names_somebody_else_harms_nobody(
    shims: ShimWorld, bystander: subprocess.Popen[bytes]
) -> None:
    """A pid that was reused, as a record would show it: everything right but the start time."""
    shims.start("/bin/sleep", "1000")
    await shims.spawned()
    shims.lose_daemon()
    record = shims.record(ID)
    shim = int(shims.fact(ID, "began")["process"][0])
    facts = [json.loads(line) for line in (record / wire.EVENTS).read_text().splitlines()]
    os.kill(shim, signal.SIGKILL)
    for tree in shims.tree(ID):
        os.kill(tree, signal.SIGKILL)
    for fact in facts:
        if "process" in fact:
            fact["process"][0] = bystander.pid
    (record / wire.EVENTS).write_text("".join(json.dumps(fact) + "\n" for fact in facts if fact["event"] != "exited"))
    shims.new_daemon()
    shims.host.signal(ID, "KILL")
    shims.host.kill(ID)
    await shims.over()
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


def _end_shim(shims: ShimWorld) -> None:
    """The shim waits for the daemon that knows it; once its record is spoilt, none would ever let it go."""
    os.kill(int(shims.fact(ID, "began")["process"][0]), signal.SIGKILL)


@pytest.mark.parametrize("pid", [1, 0, -1, "1", None, 2.5])
async def test_a_record_that_is_nonsense_harms_nobody(shims: ShimWorld, pid: object) -> None:
    shims.sh("exit 0")
    await shims.over()
    _end_shim(shims)
    shims.lose_daemon()
    line = json.dumps({"event": "began", "process": [pid, 1, 1, "x"]})
    (shims.record(ID) / wire.EVENTS).write_text(f'{line}\nnot json\n["a list"]\n{{"event":"forked","process":7}}\n')
    shims.events.clear()
    shims.new_daemon()
    shims.host.kill(ID)
    await shims.failure()


async def test_a_spec_cut_short_is_debris(shims: ShimWorld) -> None:
    record = shims.record(ID)
    record.mkdir()
    (record / wire.SPEC).write_text('{"version": 1, "id": "poo')
    assert shims.new_daemon() == []
    assert not record.exists()


async def test_a_spec_that_nobody_began(shims: ShimWorld) -> None:
    shims.sh("exit 0")
    await shims.over()
    _end_shim(shims)
    shims.lose_daemon()
    (shims.record(ID) / wire.EVENTS).unlink()
    shims.events.clear()
    (adoption,) = shims.new_daemon()
    assert adoption.pid is None
    await shims.failure()
    assert [type(event) for event in shims.events] == [SpawnFailed]


async def test_a_killed_zygotes_rehearsal_goes(shims: ShimWorld) -> None:
    scratch = shims.directory / "run" / "rehearsal.12345"
    scratch.mkdir()
    (scratch / "output").touch()
    shims.new_daemon()
    assert not scratch.exists()


async def test_private_directories_without_a_record_go(shims: ShimWorld) -> None:
    stray = shims.directory / "run" / "private" / "gone.0@g1.1"
    stray.mkdir()
    (stray / "socket").touch()
    shims.new_daemon()
    assert not stray.exists()


async def test_a_link_that_breaks_is_made_anew(shims: ShimWorld) -> None:
    shims.sh("sleep 1000")
    pid = await shims.spawned()
    tracked = shims.host._tracked[ID]
    assert tracked._link
    tracked._link._end()
    os.kill(pid, signal.SIGKILL)
    assert await shims.over() == Exit(signal=9)
    assert [type(event) for event in shims.events] == [Spawned, MainExited, TreeEmptied]


async def test_strangers_links_are_bounded(shims: ShimWorld) -> None:
    shims.sh("sleep 1000")
    await shims.spawned()
    directory = os.open(shims.record(ID), os.O_RDONLY)
    links = [await asyncio.open_unix_connection(f"/proc/self/fd/{directory}/{wire.SOCKET}") for _ in range(6)]
    first = [await reader.read(1) for reader, _ in links]
    assert first == [b"{"] * 3 + [b""] * 3
    for _, writer in links:
        writer.close()
    os.close(directory)
