"""Messages, identities, and what is folded from them."""

from __future__ import annotations

import os
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor_d.core.events import MainExited, Spawned, SpawnFailed, TreeEmptied
from supervisor_d.core.process import Exit
from supervisor_d.runtime import pidfd
from supervisor_d.runtime.known import Known
from supervisor_d.shim import wire

PROCESS = [700, 1, 2, "boot"]
LIFE: list[wire.Message] = [
    {"event": "began", "version": 1, "process": PROCESS},
    {"event": "forked", "process": [701, 1, 3, "boot"], "cgroup": True},
    {"event": "opened"},
    {"event": "started"},
    {"event": "exited", "status": 9, "at": 1.0},
    {"event": "emptied", "killed": 2, "at": 1.0},
]
EVENTS = [Spawned("a", 701), MainExited("a", Exit(signal=9)), TreeEmptied("a", proven=True, killed=2)]


@given(st.lists(st.dictionaries(st.text(), st.integers() | st.text()), max_size=5), st.integers(1, 20))
def test_messages_survive_any_cutting(messages: list[wire.Message], step: int) -> None:
    stream = b"".join(map(wire.encode, messages))
    lines = wire.Lines()
    pieces = [stream[start : start + step] for start in range(0, len(stream), step)]
    assert [message for piece in pieces for message in lines.feed(piece)] == messages


@pytest.mark.parametrize("line", [b"", b"[1]", b"7", b"{", b"\xff\xfe", b'{"a":1'])
def test_what_is_no_message(line: bytes) -> None:
    with pytest.raises(ValueError):
        wire.decode(line)


def test_a_message_without_end() -> None:
    lines = wire.Lines()
    with pytest.raises(ValueError, match="too long"):
        lines.feed(b"x" * (wire.MESSAGE_MAX_BYTES + 1))


def test_a_life_is_told_once_however_often_it_is_replayed() -> None:
    known = Known("a", "/bin/a")
    told = [event for fact in LIFE * 3 for event in [known.fold(fact)] if event]
    assert told == EVENTS
    assert known.over


@given(st.integers(0, len(LIFE)))
def test_a_record_and_a_link_complete_each_other(recorded: int) -> None:
    known = Known("a", "/bin/a")
    for fact in LIFE[:recorded]:
        known.fold(fact)
    told = [event for fact in LIFE for event in [known.fold(fact)] if event]
    assert told == EVENTS[len(EVENTS) - len(told) :]
    assert known.over


def test_a_failure_is_told_once() -> None:
    known = Known("a", "/bin/a")
    failed = {"event": "failed", "step": "exec /bin/a", "errno": 2}
    assert known.fold(failed) == SpawnFailed("a", "cannot start /bin/a: exec /bin/a: No such file or directory")
    assert known.fold(failed) is None
    assert known.over


@pytest.mark.parametrize(
    "fact",
    [{}, {"event": "news"}, {"event": 7}, {"event": "exited"}, {"event": "exited", "status": "9"}, {"event": "failed"}],
)
def test_facts_from_the_future_are_skipped(fact: wire.Message) -> None:
    assert Known("a", "/bin/a").fold(fact) is None


@pytest.mark.parametrize("process", [None, [], [1, 1, 1, "x"], [700, 1, 1], ["700", 1, 1, "x"], [700, 1, 1, 1]])
def test_an_identity_that_is_none(process: object) -> None:
    with pytest.raises(ValueError):
        Known("a", "/bin/a").fold({"event": "began", "process": process})


def test_started_before_it_was_forked_makes_no_sense() -> None:
    with pytest.raises(ValueError):
        Known("a", "/bin/a").fold({"event": "started"})


class TestIdentity:
    def test_a_process_is_itself_and_nobody_else(self) -> None:
        with subprocess.Popen(["/bin/sleep", "1000"]) as process:
            fd = os.pidfd_open(process.pid)
            identity = wire.identify(process.pid, fd)
            os.close(fd)
            again = pidfd.open_pidfd(identity)
            assert again is not None
            os.close(again)
            for other in (
                identity._replace(starttime=identity.starttime + 1),
                identity._replace(boot_id="another"),
                identity._replace(inode=identity.inode + 1),
                identity._replace(pid=os.getpid()),
            ):
                assert pidfd.open_pidfd(other) is None
            process.kill()
            process.wait()
            assert pidfd.open_pidfd(identity) is None
