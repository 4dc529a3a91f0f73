"""Give a dead worker's messages back: `python -m supervisor_d_celery_agent --restore DIR`.

Run by the daemon after the whole tree is gone, as the worker's user, in the worker's Python, without the application.
DIR is the dead process's private directory.  What is done stands on standard output as one line of JSON:

    {"held": 5, "restored": 3, "acked": 1, "skipped": 0, "gone": 1}

    restored  put back at the head of its queue by kombu's own restore_by_tag, oldest first: its exchanges, priorities
              and key prefixes are kombu's business
    acked     its task had run to its end, only the acknowledgement was missing
    skipped   taken over by somebody else since, or its exchange leads to no queue (kombu would drop it; it waits for
              the visibility timeout)
    gone      acknowledged or restored already, by whomever
    broadcast (where there are any) sent to all that listened then: nobody can get it a second time, and it is taken off
              the broker's books

What the broker had popped for it, and it never read, is put back too, and counts as held and restored: in
$SUPERVISOR_D_LENT stand descriptors of connections whose last answer is still to be read (module popped).

    exit  0   done, or there is no ledger
         64   not called as above
         65   the ledger is spoilt ("spoilt" counts the slots; those that are whole were restored)
         75   the broker does not answer: nothing is lost, try again

It can be run any number of times, and be killed at any point: what is settled is marked in the ledger, and a message
that never reached `unacked` is written there first, once, then restored from there like the others.  The ledger is data
of another process: every field is checked before it is used.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
import socket
import stat
import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Union

from . import ledger, popped
from .late_answers import is_broadcast, plain

EX_OK, EX_USAGE, EX_DATAERR, EX_TEMPFAIL = 0, 64, 65, 75
CONNECT_SECONDS = 3
ANSWER_SECONDS = 5
CLOCK_SLACK_SECONDS = 0.001
COMING_SLACK_SECONDS = 30.0
"""A slot that is COMING was dated before its ZADD, which may have waited for the broker that long."""


Raw = Union[mmap.mmap, bytearray]  # noqa: UP007 - evaluated, and `|` between types is newer than Python 3.9


class SpoiltError(Exception):
    """The ledger is not what a worker of ours writes."""


class Slot(NamedTuple):
    """One message that the worker held."""

    number: int
    state: int
    at: float
    tag: str
    entry: bytes | None
    """Of one that may not have reached `unacked`: what belongs there."""


class Ledger(NamedTuple):
    """What the file says."""

    description: dict[str, Any]
    slots: list[Slot]
    spoilt: int
    mark: Callable[[int, int], None]
    """Set the state of a slot, by its number."""


def main(arguments: list[str]) -> int:
    """The command; its exit code."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m supervisor_d_celery_agent --restore DIR\n")
        return EX_USAGE
    with _alone(arguments[0]):
        return _give_back(arguments[0])


@contextlib.contextmanager
def _alone(directory: str) -> Iterator[None]:
    """While no other helper is at work here: a daemon that was killed leaves one behind.

    Where the ledger cannot be opened there is nothing to be done, as whoever reads it will be told.
    """
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(os.path.join(directory, ledger.NAME), flags)
    except OSError:
        yield
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _give_back(directory: str) -> int:
    counts = dict.fromkeys(("held", "restored", "acked", "skipped", "gone"), 0)
    try:
        lent = popped.from_environment()
        found = read(directory, describe=bool(lent))
    except FileNotFoundError:
        return _say(counts, EX_OK)
    except (SpoiltError, OSError) as exc:
        sys.stderr.write(f"cannot read the ledger in {directory}: {exc}\n")
        return _say(counts, EX_DATAERR)
    counts["held"] = len(found.slots)
    if found.spoilt:
        counts["spoilt"] = found.spoilt
    if not found.slots and not lent:
        return _say(counts, EX_DATAERR if found.spoilt else EX_OK)
    code = _restore(found, counts, lent)
    return _say(counts, EX_DATAERR if found.spoilt and code == EX_OK else code)


def _say(counts: dict[str, int], code: int) -> int:
    sys.stdout.write(json.dumps(counts) + "\n")
    return code


# ------------------------------------------------------------------------------------------------ reading


def read(directory: str, *, describe: bool = False) -> Ledger:
    """The ledger in a private directory, with its description of the broker also if it holds nothing (`describe`).

    Raises FileNotFoundError, SpoiltError, and OSError for the rest.
    """
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fd = os.open(ledger.NAME, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    finally:
        os.close(folder)
    try:
        about = os.fstat(fd)
        if not stat.S_ISREG(about.st_mode) or about.st_uid != os.geteuid():
            raise SpoiltError("not a file of this user's own")
        if about.st_size != ledger.SIZE_BYTES:
            raise SpoiltError(f"{about.st_size} bytes instead of {ledger.SIZE_BYTES}")
        raw = mmap.mmap(fd, ledger.SIZE_BYTES)
        return parse(raw, describe=describe)
    finally:
        os.close(fd)


def parse(raw: Raw, *, describe: bool = False) -> Ledger:
    """What SIZE_BYTES bytes say.  Raises SpoiltError."""
    magic, active, slots, regions = ledger.HEAD.unpack_from(raw)
    if (magic, slots, regions) != (ledger.MAGIC, ledger.SLOTS, ledger.REGIONS) or active > 1:
        raise SpoiltError("not a ledger of this version")
    taken = [slot for slot in range(ledger.SLOTS) if raw[ledger.SLOTS_AT + slot * ledger.SLOT.size] != ledger.FREE]
    found = [_slot(raw, slot) for slot in taken]
    whole = [slot for slot in found if slot is not None]
    description = _description(raw, active) if whole or describe else {}

    def mark(slot: int, state: int) -> None:
        raw[ledger.SLOTS_AT + slot * ledger.SLOT.size] = state

    return Ledger(description, whole, len(found) - len(whole), mark)


def _slot(raw: Raw, number: int) -> Slot | None:
    state, length, region, crc, at, padded = ledger.SLOT.unpack_from(raw, ledger.SLOTS_AT + number * ledger.SLOT.size)
    tag = padded[:length]
    if state > ledger.DONE or not 0 < length <= ledger.TAG_MAX or region > ledger.REGIONS:
        return None
    if ledger.pack_slot(state, tag, region - 1, at)[4:8] != crc.to_bytes(4, "little"):
        return None
    try:
        text = tag.decode("ascii")
    except UnicodeDecodeError:
        return None
    entry = _block(raw, ledger.REGIONS_AT + (region - 1) * ledger.REGION_BYTES, ledger.REGION_BYTES) if region else None
    return Slot(number, state, at, text, entry if state == ledger.COMING else None)


def _block(raw: Raw, at: int, size: int) -> bytes | None:
    length, crc = ledger.BLOCK.unpack_from(raw, at)
    body = bytes(raw[at + ledger.BLOCK.size : at + ledger.BLOCK.size + length])
    if length > size - ledger.BLOCK.size or zlib.crc32(body) != crc:
        return None
    return body


def _description(raw: Raw, active: int) -> dict[str, Any]:
    """The broker and its exchanges, every type checked.  Raises SpoiltError."""
    at = ledger.DESCRIPTIONS_AT + active * ledger.DESCRIPTION_BYTES
    body = _block(raw, at, ledger.DESCRIPTION_BYTES)
    try:
        said = json.loads(body or b"")
    except (ValueError, RecursionError):
        raise SpoiltError("its description of the broker is no JSON") from None
    parts = ("connection", "options", "exchanges")
    if not isinstance(said, dict) or not all(isinstance(said.get(part), dict) for part in parts):
        raise SpoiltError("its description of the broker lacks a part")
    connection, options = said["connection"], said["options"]
    if connection.get("transport") not in ledger.TRANSPORTS:
        raise SpoiltError("its broker is none that messages can be restored to")
    if not set(options) <= ledger.OPTIONS:
        raise SpoiltError("it has options that restoring does not need")
    kinds = ("direct", "topic", "fanout")
    if not all(kind in kinds for kind in said["exchanges"].values()):
        raise SpoiltError("it has exchanges of an unknown type")
    return said


# ------------------------------------------------------------------------------------------------ restoring


def _restore(found: Ledger, counts: dict[str, int], lent: list[socket.socket]) -> int:
    from kombu import connection as kombu_connection
    from kombu.exceptions import OperationalError

    make: Any = kombu_connection.Connection
    try:
        connection = make(**connection_arguments(found.description))
        transport = connection.transport
    except Exception as exc:  # noqa: BLE001 - the description is data: whatever it makes kombu do ends here
        sys.stderr.write(f"cannot use the ledger's broker: {exc}\n")
        return EX_DATAERR
    try:
        with connection:
            connection.connect()
            channel = connection.channel()
            for name, kind in found.description["exchanges"].items():
                channel.state.exchanges[name] = _exchange(kind)
            for slot in sorted(found.slots, key=lambda slot: slot.at, reverse=True):
                outcome = _settle(channel.qos, slot, found)
                counts[outcome] = counts.get(outcome, 0) + 1
            for each in lent:
                _put_back(channel, each, counts)
    except (*transport.connection_errors, *transport.channel_errors, OperationalError, OSError) as exc:
        sys.stderr.write(f"cannot reach the broker: {exc}\n")
        return EX_TEMPFAIL
    return EX_OK


def _put_back(channel: Any, connection: socket.socket, counts: dict[str, int]) -> None:
    """What was popped for the dead goes back to the end that it was taken from (BRPOP), as it was."""
    data = popped.look(connection)
    try:
        answers = list(popped.messages(data))
    except popped.TornError as torn:
        sys.stderr.write(f"cannot put back what the broker said last: {torn}\n")
        answers = []
    with channel.conn_or_acquire() as client:
        for key, message in answers:
            # The key is the one that the broker named, with whatever prefix it has.
            plain(client).rpush(key, message)
            counts["held"] += 1
            counts["restored"] += 1
    popped.take(connection, len(data))


def connection_arguments(description: dict[str, Any]) -> dict[str, Any]:
    """For kombu.Connection: the worker's own, with short timeouts."""
    arguments = dict(description["connection"])
    options = dict(description["options"])
    keepalive = options.get("socket_keepalive_options")
    if isinstance(keepalive, dict):  # JSON has no numbers as keys
        options["socket_keepalive_options"] = {int(key): value for key, value in keepalive.items()}
    options.update(socket_timeout=ANSWER_SECONDS, socket_connect_timeout=CONNECT_SECONDS)
    return dict(arguments, transport_options=options, connect_timeout=CONNECT_SECONDS)


def _exchange(kind: str) -> dict[str, Any]:
    return {"type": kind, "durable": True, "auto_delete": False, "arguments": {}, "table": []}


def _settle(qos: Any, slot: Slot, found: Ledger) -> str:
    """Bring one message to where it belongs, and mark it so; which of the counts it adds to."""
    outcome = _outcome(qos, slot, found)
    if outcome != "skipped":
        found.mark(slot.number, ledger.FREE)
    return outcome


def _outcome(qos: Any, slot: Slot, found: Ledger) -> str:
    with qos.channel.conn_or_acquire() as client:
        entry = client.hget(qos.unacked_key, slot.tag)
        if entry is None and slot.entry is None:
            return "gone"
        if slot.state == ledger.DONE:
            qos._remove_from_indices(slot.tag).execute()
            return "acked"
        slack = COMING_SLACK_SECONDS if slot.state == ledger.COMING else CLOCK_SLACK_SECONDS
        score = plain(client).zscore(f"{qos.channel.global_keyprefix}{qos.unacked_index_key}", slot.tag)
        if score is not None and score > slot.at + slack:
            return "skipped"
        exchange, routing_key = _destination(slot.entry if entry is None else entry)
        if is_broadcast(qos.channel, exchange):
            qos._remove_from_indices(slot.tag).execute()
            return "broadcast"
        if not _routes(qos.channel, exchange, routing_key):
            return "skipped"
        if entry is None:
            client.hset(qos.unacked_key, slot.tag, slot.entry)
            found.mark(slot.number, ledger.HELD)
        qos.restore_by_tag(slot.tag, client=client)
        return "restored"


def _destination(entry: Any) -> tuple[Any, Any]:
    """Exchange and routing key of what stands in `unacked`; None where it is nothing of kombu's."""
    from kombu.utils import json as kombu_json

    loads: Any = kombu_json.loads
    try:
        _message, exchange, routing_key = loads(entry.decode() if isinstance(entry, bytes) else entry)
    except (ValueError, TypeError):
        return None, None
    return exchange, routing_key


def _routes(channel: Any, exchange: Any, routing_key: Any) -> bool:
    """Whether kombu would put it into some queue; where it would not, restoring it would drop it."""
    try:
        return bool(channel._lookup(exchange, routing_key))
    except (ValueError, TypeError, KeyError):
        return False
