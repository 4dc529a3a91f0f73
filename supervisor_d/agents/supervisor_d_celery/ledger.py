"""The ledger: a file that says which messages this worker holds, for whoever comes after its death.

With Redis as broker, what a worker has taken stands in the hash `unacked` until it is acknowledged.  When the worker is
killed nobody knows which of those were its own, so they wait for the visibility timeout, an hour by default.  The
ledger is that knowledge: one slot for each delivery tag, in a mapped file, so that keeping it costs a copy of 64 bytes
and outlives the process.  `restore` reads it.

The life of a slot, beside what kombu does with the message:

    BRPOP has brought it        COMING, and the message itself in a region    (until now only our memory has it)
    ZADD, HSET done             HELD, region free again                       to be restored
    its ack begins              DONE                                          to be acknowledged: the task has run
    its ack is done             free
    restored, put back          free

A worked example: killed between the BRPOP and the HSET, kombu loses the message for good.  Here its slot is COMING, so
`restore` writes it to `unacked` from the region and restores it from there.  Killed between the end of a task and its
ack, the slot is DONE or HELD; DONE is acknowledged and does not run twice.

    offset 0        HEAD: magic, which of two descriptions counts, slots, regions
    64, 64+16 KiB   two descriptions: length, CRC, JSON (the broker, the exchanges' types): the one not in use is
                    written, then HEAD is switched over to it
    SLOTS_AT        SLOTS slots: state, length of the tag, region + 1 or 0, CRC, wall clock, tag
    REGIONS_AT      REGIONS regions of 64 KiB: length, CRC, JSON [message, exchange, routing key]

The state byte of a slot is written after the rest when it is taken, and before when it is freed, so no kill leaves half
of one.  A message that finds no free slot, or whose tag is too long, is not protected, counted (`overflow`) and told in
the log once.  A message that finds no free region or does not fit is protected from its HSET on.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import sys
import time
import zlib
from collections.abc import Mapping
from typing import Any

from .heartbeat import open_map

NAME = "ledger"
MAGIC = b"SDL1"
FREE, COMING, HELD, DONE = range(4)

HEAD = struct.Struct("<4sIII")
BLOCK = struct.Struct("<II")
"""Length and CRC of what follows."""
DESCRIPTION_BYTES = 16 * 1024
DESCRIPTIONS_AT = 64
SLOT = struct.Struct("<BBHId48s")
SLOTS = 16 * 1024
SLOTS_AT = DESCRIPTIONS_AT + 2 * DESCRIPTION_BYTES
REGIONS = 8
REGION_BYTES = 64 * 1024
REGIONS_AT = SLOTS_AT + SLOTS * SLOT.size
SIZE_BYTES = REGIONS_AT + REGIONS * REGION_BYTES
TAG_MAX = 48

TRANSPORTS = ("redis", "rediss", "sentinel", "sentinels")
OPTIONS = frozenset(
    (
        "ack_emulation",
        "body_encoding",
        "client_name",
        "deadletter_queue",
        "fanout_patterns",
        "fanout_prefix",
        "global_keyprefix",
        "health_check_interval",
        "master_name",
        "max_connections",
        "min_other_sentinels",
        "priority_steps",
        "queue_order_strategy",
        "retry_on_timeout",
        "sentinel_kwargs",
        "sep",
        "socket_keepalive",
        "socket_keepalive_options",
        "unacked_index_key",
        "unacked_key",
        "unacked_mutex_expire",
        "unacked_mutex_key",
        "visibility_timeout",
    )
)
"""Of the transport options, those that a restoring connection needs; none of them names code to import."""


class Ledger:
    """Keeps the file.  Raises OSError when it cannot be made; nothing else raises."""

    def __init__(self, directory: str) -> None:
        self._map: mmap.mmap = open_map(os.path.join(directory, NAME), SIZE_BYTES)
        self._free = list(range(SLOTS - 1, -1, -1))
        self._regions = list(range(REGIONS))
        self._slots: dict[str, tuple[int, int]] = {}
        self._description = b""
        self._active = 0
        self.overflow = 0
        self._map[: HEAD.size] = HEAD.pack(MAGIC, 0, SLOTS, REGIONS)

    def describe(self, description: Mapping[str, Any]) -> None:
        """Write what a restoring connection must know.  Raises ValueError when that is too much, TypeError when it is
        nothing that JSON can say."""
        body = json.dumps(description, sort_keys=True).encode("ascii")
        if body == self._description:
            return
        if len(body) > DESCRIPTION_BYTES - BLOCK.size:
            raise ValueError("the broker's settings are too long")
        self._description = body
        self._active = 1 - self._active if self._map[DESCRIPTIONS_AT : DESCRIPTIONS_AT + 4] != b"\0\0\0\0" else 0
        at = DESCRIPTIONS_AT + self._active * DESCRIPTION_BYTES
        self._map[at : at + BLOCK.size + len(body)] = BLOCK.pack(len(body), zlib.crc32(body)) + body
        self._map[: HEAD.size] = HEAD.pack(MAGIC, self._active, SLOTS, REGIONS)

    def coming(self, tag: str, message: bytes | None) -> None:
        """A message was taken and is about to be written to `unacked`; `message` is what will stand there."""
        raw = _raw(tag)
        if tag in self._slots or not self._free or len(raw) > TAG_MAX:
            if tag not in self._slots:
                self._overflowed()
            return
        region = self._keep(message)
        slot = self._free.pop()
        self._slots[tag] = (slot, region)
        self._write(slot, COMING, raw, region)

    def held(self, tag: str) -> None:
        """It stands in `unacked` now."""
        slot, region = self._slots.get(tag, (-1, -1))
        if slot < 0:
            return
        self._write(slot, HELD, _raw(tag), -1)
        if region >= 0:
            self._regions.append(region)
            self._slots[tag] = (slot, -1)

    def done(self, tag: str) -> None:
        """Its work is done: from now on it must be acknowledged, never run again."""
        slot, _ = self._slots.get(tag, (-1, -1))
        if slot >= 0:
            self._map[SLOTS_AT + slot * SLOT.size] = DONE

    def free(self, tag: str) -> None:
        """It is acknowledged, or back in its queue."""
        slot, region = self._slots.pop(tag, (-1, -1))
        if slot < 0:
            return
        self._map[SLOTS_AT + slot * SLOT.size] = FREE
        self._free.append(slot)
        if region >= 0:
            self._regions.append(region)

    def __len__(self) -> int:
        return len(self._slots)

    def _keep(self, message: bytes | None) -> int:
        if message is None or not self._regions or len(message) > REGION_BYTES - BLOCK.size:
            return -1
        region = self._regions.pop()
        at = REGIONS_AT + region * REGION_BYTES
        self._map[at : at + BLOCK.size + len(message)] = BLOCK.pack(len(message), zlib.crc32(message)) + message
        return region

    def _write(self, slot: int, state: int, tag: bytes, region: int) -> None:
        at = SLOTS_AT + slot * SLOT.size
        packed = pack_slot(state, tag, region, time.time())
        if state == HELD:  # the slot is in use: each of its two readings is right
            self._map[at : at + SLOT.size] = packed
            return
        self._map[at + 1 : at + SLOT.size] = packed[1:]
        self._map[at] = state

    def _overflowed(self) -> None:
        self.overflow += 1
        if self.overflow == 1:
            sys.stderr.write(
                "supervisor-d's agent: the ledger is full: some messages would wait for the visibility "
                "timeout if this worker were killed\n"
            )


def _raw(tag: object) -> bytes:
    """As it stands in Redis: foreign producers number their messages."""
    return str(tag).encode("utf-8", "replace")


def pack_slot(state: int, tag: bytes, region: int, at: float) -> bytes:
    """One slot's bytes; the CRC covers all but the state and itself."""
    crc = zlib.crc32(struct.pack("<BHd", len(tag), region + 1, at) + tag)
    return SLOT.pack(state, len(tag), region + 1, crc, at, tag)


def describe_broker(channel: Any) -> dict[str, Any]:
    """What a restoring connection must know: of the broker that `channel` has, which may be another than the first of
    several.  Raises ValueError where it could not be made."""
    info = channel.connection.client.info()
    if info["transport"] not in TRANSPORTS:
        raise ValueError(f"the transport {info['transport']!r} has no `unacked` that could be restored from")
    options = dict(info["transport_options"] or {})
    if info.get("credential_provider") or options.get("credential_provider"):
        raise ValueError("the broker's password comes from a credential provider")
    keys = ("hostname", "userid", "password", "virtual_host", "port", "ssl", "transport")
    # Sentinels are all one broker's; of several brokers another one knows nothing of what this one delivered.
    alternates = info["alternates"] if info["transport"].startswith("sentinel") else []
    return {
        "connection": {**{key: info[key] for key in keys}, "alternates": alternates},
        "options": {key: value for key, value in options.items() if key in OPTIONS},
        "exchanges": {name: spec["type"] for name, spec in channel.state.exchanges.items()},
    }


class Bookkeeping:
    """Tells the ledger what kombu does with messages, by wrapping the methods that do it."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._main = os.getpid()

    def install(self) -> None:
        """From now on, for every channel of this process; processes forked from it leave the ledger alone."""
        from kombu.transport import redis

        qos: Any = redis.QoS
        qos.append = self._append(qos.append)
        qos.ack = self._ack(qos.ack)
        qos.reject = self._reject(qos.reject)
        qos.restore_by_tag = self._restore_by_tag(qos.restore_by_tag)

    def _append(self, original: Any) -> Any:
        def append(qos: Any, message: Any, delivery_tag: Any) -> Any:
            if os.getpid() != self._main:
                return original(qos, message, delivery_tag)
            self._ledger.coming(delivery_tag, _entry(message))
            result = original(qos, message, delivery_tag)
            self._ledger.held(delivery_tag)
            return result

        return append

    def _ack(self, original: Any) -> Any:
        def ack(qos: Any, delivery_tag: Any) -> Any:
            if os.getpid() != self._main:
                return original(qos, delivery_tag)
            self._ledger.done(delivery_tag)
            result = original(qos, delivery_tag)
            self._ledger.free(delivery_tag)
            return result

        return ack

    def _reject(self, original: Any) -> Any:
        def reject(qos: Any, delivery_tag: Any, requeue: bool = False) -> Any:  # noqa: FBT001, FBT002 - kombu's
            if os.getpid() != self._main:
                return original(qos, delivery_tag, requeue=requeue)
            if not requeue:
                self._ledger.done(delivery_tag)
            result = original(qos, delivery_tag, requeue=requeue)
            self._ledger.free(delivery_tag)
            return result

        return reject

    def _restore_by_tag(self, original: Any) -> Any:
        def restore_by_tag(qos: Any, tag: Any, *args: Any, **kwargs: Any) -> Any:
            result = original(qos, tag, *args, **kwargs)
            if os.getpid() == self._main:
                self._ledger.free(tag if isinstance(tag, str) else tag.decode())
            return result

        return restore_by_tag


def _entry(message: Any) -> bytes | None:
    """What kombu is about to write to `unacked`; None for what is no such message."""
    from kombu.utils import json as kombu_json

    dumps: Any = kombu_json.dumps
    try:
        info = message.delivery_info
        return str(dumps([message._raw, info["exchange"], info["routing_key"]])).encode()
    except Exception:  # noqa: BLE001 - then kombu's own attempt tells
        return None
