"""What a Celery agent says over its socket, as the daemon understands it, and what it is asked.

Both are datagrams of JSON.  What comes is data: of the right types, or nothing; and only the main process's own word
counts, since pool processes inherit the socket.

    agent -> daemon   {"ready": true, "pid": N, "features": [...], ...}                     Hello
                      {"reply": ID, "pid": N, "ok": bool, "error": "...", "data": {...}}    Reply
    daemon -> agent   {"ask": ID, "do": "hello" | "drain" | "resume" | "grow" | "shrink" | "stacks", "n": N}

An answer may never come: the process may hang, or the way to it be gone with its shim.  So nothing ever waits for one
without a deadline of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from supervisor_d.runtime.drivers.heartbeat import printable

ASKS_MAX = 64
"""Questions of one process without an answer; the oldest is then given up."""

Word = Annotated[str, msgspec.Meta(max_length=200)]


class Hello(msgspec.Struct, frozen=True):
    """The worker is ready; and what its agent can do.  Beat's has nothing but its pid."""

    ready: bool
    pid: int
    agent: int = 0
    celery: Word = ""
    features: tuple[Word, ...] = ()
    missing: dict[Word, str] = {}
    acks_late: bool = False
    reject_on_worker_lost: bool = False
    broker: Word = ""
    stacks_signal: Annotated[int, msgspec.Meta(ge=34, le=64)] | None = None
    """A real-time signal: no other is believed to be harmless."""
    canary: bool = False

    def remark(self) -> str:
        """Which features it does without, and why, for people; what the config switched off is no news."""
        lacks = [f"{name} ({why})" for name, why in self.missing.items() if not why.startswith("switched off")]
        return printable(f"its agent does without {', '.join(lacks)}") if lacks else ""

    def can(self, feature: str) -> bool:
        """Whether a feature of the agent is on."""
        return feature in self.features


class Reply(msgspec.Struct, frozen=True):
    """An answer."""

    reply: int
    ok: bool
    error: str = ""
    data: dict[str, Any] = {}
    pid: int | None = None


_hello = msgspec.json.Decoder(Hello)
_reply = msgspec.json.Decoder(Reply)


def understood(text: str, pid: int) -> Hello | Reply | None:
    """What the agent of the main process `pid` said; None for anything else."""
    for decoder in (_hello, _reply):
        try:
            said = decoder.decode(text)
        except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
            continue
        if isinstance(said, Hello):
            return said if said.ready and said.pid == pid else None
        return said if said.pid in (None, pid) else None
    return None


Answered = Callable[[Reply], None]


class Conversation:
    """Questions to one agent, and who waits for the answers."""

    def __init__(self, send: Callable[[str], None], first: int) -> None:
        """Questions are numbered from `first`, which must lie above all that a former daemon asked: its answers may be
        told again by the shim."""
        self._send = send
        self._last = first
        self._waiting: dict[int, Answered] = {}

    def ask(self, what: str, answered: Answered | None = None, *, number: int | None = None) -> None:
        """Ask; `answered` is called with the reply, if one ever comes."""
        self._last += 1
        if answered is not None:
            self._waiting[self._last] = answered
            if len(self._waiting) > ASKS_MAX:
                del self._waiting[min(self._waiting)]
        question = {"ask": self._last, "do": what}
        self._send(msgspec.json.encode(question if number is None else {**question, "n": number}).decode())

    def answered(self, reply: Reply) -> None:
        """Hand a reply to whoever asked; one that nobody waits for is dropped."""
        waiting = self._waiting.pop(reply.reply, None)
        if waiting is not None:
            waiting(reply)

    def forget(self) -> None:
        """Nobody waits any more."""
        self._waiting.clear()
