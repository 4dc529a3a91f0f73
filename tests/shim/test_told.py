"""What a program says over its notify and agent sockets reaches the daemon, and costs the program nothing."""

from __future__ import annotations

import os
import sys

import pytest

from supervisor_d.core.process import Exit
from supervisor_d.runtime.lent import unread
from supervisor_d.runtime.records import Records
from supervisor_d.shim import wire
from tests.shim.conftest import ID, ShimWorld
from tests.support.waiting import eventually

pytestmark = pytest.mark.real

NOTIFY = """
import os, socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect(os.environ["NOTIFY_SOCKET"])
s.send(b"READY=1\\nSTATUS=\\xff")
"""
AGENT = """
import os, socket
s = socket.socket(fileno=int(os.environ["SUPERVISOR_D_AGENT_FD"]))
for n in range({count}):
    s.send(b"%d " % n + b"x" * {size})
"""


def python(world: ShimWorld, script: str, **more: object) -> None:
    world.start(sys.executable, "-I", "-S", "-c", script, **more)  # type: ignore[arg-type]


async def test_a_notification(shims: ShimWorld) -> None:
    python(shims, NOTIFY, notify=True)
    assert await shims.over() == Exit(code=0), shims.log()
    assert shims.told == [(ID, "READY=1\nSTATUS=\ufffd")]


@pytest.mark.root
@pytest.mark.skip_allowed("only root may become another user")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
async def test_a_notification_of_a_dropped_user(shims: ShimWorld) -> None:
    (shims.directory / "run").chmod(0o711)
    shims.sh("exec /usr/bin/python3 -I -S -c '" + NOTIFY + "'", notify=True, user="www-data")
    assert await shims.over() == Exit(code=0), shims.log()
    assert shims.told == [(ID, "READY=1\nSTATUS=\ufffd")]


async def test_an_agent(shims: ShimWorld) -> None:
    python(shims, AGENT.format(count=3, size=0), agent=True)
    assert await shims.over() == Exit(code=0), shims.log()
    await eventually(lambda: len(shims.told) == 3)
    assert shims.told == [(ID, "0 "), (ID, "1 "), (ID, "2 ")]


async def test_a_datagram_is_cut(shims: ShimWorld) -> None:
    python(shims, AGENT.format(count=1, size=10_000), agent=True)
    assert await shims.over() == Exit(code=0), shims.log()
    await eventually(lambda: len(shims.told) == 1)
    assert len(shims.told[0][1]) == wire.TOLD_MAX_BYTES


async def test_a_talker_does_not_wait_for_a_daemon(shims: ShimWorld) -> None:
    python(shims, "import time; time.sleep(0.2)\n" + AGENT.format(count=5000, size=1000), agent=True)
    await shims.spawned()
    shims.lose_daemon()
    await eventually(lambda: "emptied" in (shims.record(ID) / wire.EVENTS).read_text(), what="its end")
    shims.events.clear()
    (adoption,) = shims.new_daemon()
    assert adoption.exit == Exit(code=0)


async def test_the_last_words_are_told_again(shims: ShimWorld) -> None:
    python(shims, AGENT.format(count=100, size=0) + "import time; time.sleep(1000)", agent=True)
    await shims.spawned()
    await eventually(lambda: len(shims.told) == 100)
    shims.lose_daemon()
    shims.told.clear()
    shims.new_daemon()
    await eventually(lambda: len(shims.told) == wire.TOLD_KEPT)
    assert shims.told == [(ID, f"{number} ") for number in range(100 - wire.TOLD_KEPT, 100)]


LENDER = """
import array, os, socket, time
s = socket.socket(fileno=int(os.environ["SUPERVISOR_D_AGENT_FD"]))
for word in (b"first", b"second"):
    ours, theirs = socket.socketpair()
    s.sendmsg([b"{}"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [ours.fileno()]))])
    theirs.send(word)
    ours.close(); theirs.close()
s.send(b"lent")
time.sleep(60)
"""


async def test_what_is_lent_outlives_the_program_and_takes_the_place_of_what_was_lent_before(shims: ShimWorld) -> None:
    python(shims, LENDER, agent=True)
    await eventually(lambda: shims.told == [(ID, "lent")])
    await shims.spawned()
    shims.host.kill(ID)
    await shims.over()
    found = unread(Records(shims.directory / "run").of(ID))
    assert [connection.recv(100) for connection in found] == [b"second"]
    for connection in found:
        connection.close()
