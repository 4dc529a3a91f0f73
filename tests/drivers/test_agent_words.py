from __future__ import annotations

import json
from typing import Any

import pytest

from supervisor_d.runtime.drivers.agent import ASKS_MAX, Conversation, Hello, Reply, understood

PID = 4711
HELLO = {
    "ready": True, "pid": PID, "agent": 1, "celery": "5.7.0", "kombu": "5.7.0", "features": ["heartbeat", "drain"],
    "missing": {"pool": "not found"}, "acks_late": True, "broker": "redis", "stacks_signal": 40, "new": [1],
}  # fmt: skip


def test_its_words() -> None:
    hello = understood(json.dumps(HELLO), PID)
    assert isinstance(hello, Hello)
    assert (hello.can("drain"), hello.can("pool"), hello.stacks_signal) == (True, False, 40)
    assert understood(json.dumps({"ready": True, "pid": PID}), PID) == Hello(ready=True, pid=PID)
    reply = {"reply": 7, "pid": PID, "ok": False, "error": "no", "data": {"processes": 3}}
    assert understood(json.dumps(reply), PID) == Reply(7, ok=False, error="no", data={"processes": 3}, pid=PID)


def test_what_it_does_without_is_told_to_people() -> None:
    missing = {"pool": "not found: x\ny", "ledger": "switched off by SUPERVISOR_D_AGENT_OFF"}
    assert Hello(ready=True, pid=PID, missing=missing).remark() == "its agent does without pool (not found: x?y)"
    assert Hello(ready=True, pid=PID).remark() == ""


@pytest.mark.parametrize(
    "said",
    [
        "", "READY=1", "{}", "[]", "[" * 4000, "\ud800", '{"ready": true}',
        json.dumps({"ready": True, "pid": PID + 1}),
        json.dumps({"ready": False, "pid": PID}),
        json.dumps({"ready": True, "pid": PID, "features": "drain"}),
        json.dumps({"ready": True, "pid": PID, "stacks_signal": 99}),
        json.dumps({"ready": True, "pid": PID, "stacks_signal": 9}),
        json.dumps({"reply": "7", "ok": True}),
        json.dumps({"reply": 7, "ok": 1}),
        json.dumps({"reply": 7, "ok": True, "pid": PID + 1}),
    ],
    ids=repr,
)  # fmt: skip
def test_anything_else_is_nothing(said: str) -> None:
    assert understood(said, PID) is None


def test_an_answer_reaches_who_asked_and_nobody_else() -> None:
    sent: list[dict[str, Any]] = []
    heard: list[tuple[str, bool]] = []
    talk = Conversation(lambda text: sent.append(json.loads(text)), first=100)
    talk.ask("drain", lambda reply: heard.append(("drain", reply.ok)))
    talk.ask("grow", lambda reply: heard.append(("grow", reply.ok)), number=2)
    talk.ask("hello")
    assert sent == [{"ask": 101, "do": "drain"}, {"ask": 102, "do": "grow", "n": 2}, {"ask": 103, "do": "hello"}]
    for number in (1, 102, 102, 103):
        talk.answered(Reply(number, ok=True))
    assert heard == [("grow", True)]
    talk.forget()
    talk.answered(Reply(101, ok=True))
    assert heard == [("grow", True)]


def test_what_is_never_answered_is_bounded() -> None:
    heard: list[int] = []
    talk = Conversation(lambda _: None, first=0)
    for _ in range(ASKS_MAX + 1):
        talk.ask("drain", lambda reply: heard.append(reply.reply))
    for number in (1, 2):
        talk.answered(Reply(number, ok=True))
    assert heard == [2]
