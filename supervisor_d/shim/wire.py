"""What daemon and shim say to each other, and what stands in the record of a process.

Both sides import this module and nothing else of each other.

The record is a directory of its own in runtime_dir (a tmpfs: it dies with its processes at a reboot, so nothing is
fsynced), 0700, named by the process's id:

    spec.json      written by the daemon before anything runs: a Spec
    events.jsonl   written by the shim: a line for each fact, appended before the fact is told to anybody
    shim.sock      where a daemon reaches the shim
    output         the FIFO that is the program's stdout and stderr

A fact is one JSON object with its kind under "event", the same on the link and in events.jsonl, so that a daemon that
was told and one that reads the record afterwards know the same and by the same code.  A link replays events.jsonl to
whoever connects, and then goes on with what happens.

    began    version, process (of the shim)        it waits at its gate: nothing runs yet
    forked   process (of the main process)         the program's process exists, held before exec
    opened                                         the gate was opened: it may go on to exec
    started                                        exec succeeded
    failed   step, errno                           no program runs and none will; nothing is left
    exited   status (of waitpid), at, rusage       the main process ended (null: how, nobody can tell)
    replaced process (of the shim)                 another shim, in adopt mode, took the place of one that died
    emptied  killed, at                            nothing of the tree is left, by the kernel's word (ECHILD)
    told     text                                  a datagram of the program (the last TOLD_KEPT; never in the record)
    dropped  bytes                                 so much of the log was lost so far, the disk being full

    sockets  count                                 the answer to that question: with so many descriptors (SCM_RIGHTS)
    lent     count                                 the same, of the connections that the program's agent has lent

The daemon asks, with the word under "ask": `go` (open the gate; on the first link only), `sockets` (the program's
listeners, which the shim keeps), `lent` (the connections that its agent has lent), `tell` (pass `text` on to the
agent, as one datagram of TOLD_MAX_BYTES at most), `kill` (everything below the shim) and `release` (the tree is empty
and everything known: end).

Facts and fields are only ever added, and both sides skip those they do not know; where that cannot hold, VERSION
grows.
"""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple, TypedDict

VERSION = 1

SPEC = "spec.json"
EVENTS = "events.jsonl"
SOCKET = "shim.sock"
FIFO = "output"
STORE_NAME = "shim store"
"""Of its process, as ps shows it (and init.py knows it)."""
STORE = "store.sock"
"""In runtime_dir: where daemons reach the store of listening sockets (shim/store.py)."""
NOTIFY = "notify.sock"
"""In the private directory: where the program sends sd_notify(3) datagrams."""

AGENT_ENV = "SUPERVISOR_D_AGENT_FD"

MESSAGE_MAX_BYTES = 64 * 1024
TOLD_MAX_BYTES = 4096
TOLD_KEPT = 32
LINKS_MAX = 4
LISTENERS_MAX = 200
"""A message carries 253 descriptors at most (SCM_MAX_FD, unix(7))."""

Message = dict[str, Any]


class Account(TypedDict):
    """Whom the program runs as, looked up by the daemon: the shim does no name service."""

    uid: int
    gid: int
    groups: list[int]


class LimitsSpec(TypedDict):
    """core.spec.Limits, field by field."""

    open_files: int | None
    processes: int | None
    core_size_bytes: int | None
    memory_bytes: int | None
    nice: int | None
    oom_score_adj: int | None
    umask: int


class LogSpec(TypedDict):
    """Where the output goes: `name` without its suffix, in the directory that came as a descriptor."""

    name: str
    max_size_bytes: int
    keep: int
    block_seconds: float


class Spec(TypedDict):
    """spec.json: all that a shim must know, and the daemon's own words (`facts`) that it keeps for a later one.

    `account` is None for the daemon's own user.  `cgroup` is the path of the process's cgroup, "" without one.
    """

    version: int
    id: str
    facts: str
    argv: list[str]
    env: dict[str, str]
    cwd: str
    account: Account | None
    listeners: int
    limits: LimitsSpec
    log: LogSpec
    log_directory: str
    orphan_grace_seconds: float
    private_dir: str
    notify: bool
    agent: bool
    cgroup: str


class Identity(NamedTuple):
    """Names one process for ever, where a pid alone may be reused.

    `inode` is that of its pidfd: unique since Linux 6.9, the same for all before it, where `starttime` (field 22 of
    proc_pid_stat(5), clock ticks since boot) must tell; `boot_id` keeps a record from outliving a reboot.
    """

    pid: int
    starttime: int
    inode: int
    boot_id: str


_boot: list[str] = []
"""It lasts as long as we do."""


def identify(pid: int, pidfd: int) -> Identity:
    """The identity of `pid`, whose pidfd is open.

    To be sure that both speak of one process: open the pidfd first, identify, and signal only through the pidfd.
    Raises OSError (ProcessLookupError, FileNotFoundError) when it is gone.
    """
    return Identity(*identity_fields(pid, pidfd))


def identity_fields(pid: int, pidfd: int) -> tuple[int, int, int, str]:
    """The fields of an Identity, for who only passes them on."""
    starttime = read(f"/proc/{pid}/stat").rpartition(b")")[2].split(None, 20)[19]
    return pid, int(starttime), os.fstat(pidfd).st_ino, _boot_id()


def _boot_id() -> str:
    if not _boot:
        _boot.append(read("/proc/sys/kernel/random/boot_id").decode().strip())
    return _boot[0]


def read(path: str, directory: int | None = None) -> bytes:
    """A whole file, without io's layers.  Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        data = b""
        while more := os.read(fd, MESSAGE_MAX_BYTES):
            data += more
        return data
    finally:
        os.close(fd)


def identity_of(message: Message) -> Identity:
    """The identity that a `began` or `forked` fact carries.  Raises ValueError when it is none."""
    match message.get("process"):
        case [int(pid), int(starttime), int(inode), str(boot_id)] if pid > 1:
            return Identity(pid, starttime, inode, boot_id)
    raise ValueError("no identity of a process")


_encoder = json.JSONEncoder(separators=(",", ":"))
_decoder = json.JSONDecoder()


def encode(message: Message) -> bytes:
    """One line of JSON."""
    return _encoder.encode(message).encode() + b"\n"


def decode(line: bytes) -> Message:
    """The message of one line.  Raises ValueError for anything but a JSON object."""
    message, _ = _decoder.raw_decode(line.decode())
    if not isinstance(message, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004  (wrong data, not a wrong type of argument)
    return message


class Lines:
    """Cuts a byte stream into messages; what is not a message, or longer than MESSAGE_MAX_BYTES, raises ValueError."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Message]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MESSAGE_MAX_BYTES:
            raise ValueError("message too long")
        return [decode(line) for line in lines]
