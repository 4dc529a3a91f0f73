"""What the agent and the daemon say to each other.

Environment, set by the daemon before exec:

    SUPERVISOR_D_AGENT_FD   descriptor of a unix SOCK_SEQPACKET socket (SOCK_DGRAM will do)
    SUPERVISOR_D_AGENT_DIR  absolute path of the process's private directory (0700, its user's own, on a tmpfs)
    SUPERVISOR_D_AGENT_OFF  features that are to stay off, separated by commas
    SUPERVISOR_D_CANARY     1: import, connect, become ready, but never consume from any queue

Each message is one datagram of at most MESSAGE_MAX_BYTES with one JSON object.  They are sent with MSG_DONTWAIT and
dropped when the other side does not keep up; nobody ever waits.  Only the main process speaks.

    agent -> daemon
    {"ready": true, "pid": N, "agent": 1, "celery": "5.7.0", "kombu": "5.7.0",
     "features": ["heartbeat", ...], "missing": {"ledger": "why"}, "acks_late": bool, "reject_on_worker_lost": bool,
     "prefetch": N (multiplier), "visibility_timeout": seconds or null, "queues": [names], "broker": "redis",
     "settings_filled": {"socket_timeout": 10, ...}, "stacks_signal": N or null, "canary": bool}
        when the worker is up (worker_ready), and again when asked "hello"
    {"reply": ID, "pid": N, "ok": bool, "error": "text" (when not ok), "data": {...}}

    daemon -> agent
    {"ask": ID, "do": "hello" | "drain" | "resume" | "grow" | "shrink" | "stacks", "n": N (grow, shrink; 1 if left out)}

    hello    the ready message again, then the reply
    drain    take no more messages.  The reply comes when no BRPOP is in flight any more (1.1 s at most), with
             {"held": messages delivered and not acknowledged, "in_flight": bool}.  Holds over reconnects.
    resume   take messages again; refused by a canary
    grow     n more pool processes, at once; reply {"processes": N} with what the pool is to have
    shrink   n fewer, never below 1 and never touching a task; reply {"processes": N}; each goes when its work is done
    stacks   the stacks of all threads to stderr

A datagram that carries a descriptor (SCM_RIGHTS) lends a connection: whoever holds the other end keeps it open, and
hands what was not read of it to `--restore` (modules lending and popped).

Files in the private directory: `heartbeat` (module heartbeat) and `ledger` (module ledger).
"""

from __future__ import annotations

import json
import os
import socket
import struct
from typing import Any

FD_ENV = "SUPERVISOR_D_AGENT_FD"
DIR_ENV = "SUPERVISOR_D_AGENT_DIR"
OFF_ENV = "SUPERVISOR_D_AGENT_OFF"
CANARY_ENV = "SUPERVISOR_D_CANARY"
AGENT_VERSION = 1
MESSAGE_MAX_BYTES = 4096
QUEUES_TOLD = 32
NAME_MAX = 200


class Wire:
    """The agent's end of the socket; without one, everything here does nothing."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.main = os.getpid()

    def tell(self, **facts: Any) -> bool:
        """Send one datagram; False when it was dropped.  Pool processes, which inherit the socket, say nothing."""
        if self.fd < 0 or os.getpid() != self.main:
            return False
        try:
            datagram = json.dumps(dict(facts, pid=self.main)).encode("ascii")
            if len(datagram) > MESSAGE_MAX_BYTES:
                return False
            peer = _without_waiting(self.fd)
            try:
                peer.send(datagram, socket.MSG_DONTWAIT)
            finally:
                peer.detach()
        except (OSError, TypeError, ValueError):
            return False
        return True

    def lend(self, descriptor: int) -> bool:
        """Let the other side hold a connection too, in place of the last; False when it was not sent."""
        if self.fd < 0 or os.getpid() != self.main:
            return False
        try:
            peer = socket.socket(fileno=self.fd)
            try:
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", descriptor))
                peer.sendmsg([b"{}"], [rights], socket.MSG_DONTWAIT)
            finally:
                peer.detach()
        except OSError:
            return False
        return True

    def asks(self, most: int = 16) -> list[dict[str, Any]]:
        """What the daemon asks: at most `most` requests, those that are none left out; closes itself at its end."""
        found: list[dict[str, Any]] = []
        for _ in range(most):
            datagram = self._receive()
            if datagram is None:
                break
            request = _request(datagram)
            if request is not None:
                found.append(request)
        return found

    def _receive(self) -> bytes | None:
        if self.fd < 0 or os.getpid() != self.main:
            return None
        try:
            peer = _without_waiting(self.fd)
            try:
                datagram = peer.recv(MESSAGE_MAX_BYTES, socket.MSG_DONTWAIT)
            finally:
                peer.detach()
        except BlockingIOError:
            return None
        except OSError:
            datagram = b""
        if not datagram:  # nobody is left at the other end; of a SOCK_SEQPACKET that is its end
            self.fd = -1
            return None
        return datagram


def _without_waiting(fd: int) -> socket.socket:
    """A socket object that never waits, also while a default timeout is set: MSG_DONTWAIT alone does not prevent that.

    Celery sets one of 5 s while it shuts down (celery/worker/worker.py, SHUTDOWN_SOCKET_TIMEOUT), when our timer shares
    a thread with the last acknowledgements: waiting here would hold them up, and finished tasks would run again.
    """
    found = socket.socket(fileno=fd)
    found.setblocking(False)
    return found


def adopt(value: str | None) -> int:
    """The descriptor that a variable's value names, or -1 where it is none of ours.

    It is closed on exec: for a program that a task starts, the same number would be something else.
    """
    try:
        fd = int(value or "")
        probe = socket.socket(fileno=fd)
    except (ValueError, OSError):
        return -1
    try:
        if probe.family != socket.AF_UNIX or probe.type not in (socket.SOCK_SEQPACKET, socket.SOCK_DGRAM):
            return -1
        os.set_inheritable(fd, False)
        return fd
    except OSError:
        return -1
    finally:
        probe.detach()


def _request(datagram: bytes) -> dict[str, Any] | None:
    try:
        said = json.loads(datagram)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict) or not isinstance(said.get("do"), str) or type(said.get("ask")) is not int:
        return None
    return said
