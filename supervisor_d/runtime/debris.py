"""What lies where records belong, and what is done about each: the rules of adoption, one by one.

    found                                            rule
    --------------------------------------------------------------------------------------------------------------
    a record of this boot                            adopted, whatever became of its processes
    a record without a spec, nothing of it lives     its daemon died before it asked for anything: removed
    a record of another boot                         its processes ended with that boot: removed
    a record that cannot be read, processes live     nobody can rule them any more: killed, then removed
    facts in it that are not the core's              the same
    a record of another version, processes live      the start is refused: that version can rule them, this one not
    anything else (a file, a link, another name)     not ours: left alone

All but the first is told in `events`.  To live is to have the recorded identity: a pid alone, of whomever, is never
believed, so that a forged or stale record moves no signal.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from supervisor_d.core.process import pool_and_generation
from supervisor_d.errors import InternalError
from supervisor_d.runtime import pidfd
from supervisor_d.runtime.known import Known, known_from
from supervisor_d.runtime.records import Record
from supervisor_d.runtime.state import boot_id
from supervisor_d.shim import wire


class Rule(Enum):
    """What is done about it."""

    ADOPT = auto()
    REMOVE = auto()
    KILL = auto()
    LEAVE = auto()


@dataclass(frozen=True, slots=True)
class Found:
    """One entry of the directory, judged; `why` is for people."""

    rule: Rule
    why: str
    spec: Mapping[str, Any]
    known: Known


def judge(record: Record) -> Found:
    """What a record is, and what to do.  Raises InternalError for a live one of another version."""
    nothing = Known(record.process_id, "?")
    if not _is_record(record):
        return Found(Rule.LEAVE, "is no record of ours: it is left alone", {}, nothing)
    spec, why = _spec(record)
    known = known_from(record.process_id, spec or _UNKNOWN, record.events())
    if not why and _boots(known) - {boot_id()}:
        return Found(Rule.REMOVE, "is of another boot: its processes ended with that", spec, known)
    if not why:
        return Found(Rule.ADOPT, "", spec, known)
    if not _lives(known):
        return Found(Rule.REMOVE, f"{why}, and nothing of it lives", spec, known)
    if "version" in why:
        raise InternalError(
            f"cannot adopt {record.process_id}: {why}", hint="start the version that wrote it, and upgrade from there"
        )
    return Found(Rule.KILL, f"{why}: nobody can rule what lives of it", _UNKNOWN, known)


_UNKNOWN: Mapping[str, Any] = {"argv": ["?"], "facts": "", "cgroup": "", "orphan_grace_seconds": 0.0}
"""As much of a spec as it takes to end what lives."""


def _is_record(record: Record) -> bool:
    try:
        pool_and_generation(record.process_id)
        found = os.lstat(record.path)
    except (ValueError, OSError):
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


def _spec(record: Record) -> tuple[Mapping[str, Any], str]:
    """The spec, and what is wrong with it."""
    try:
        spec = record.spec()
    except FileNotFoundError:
        return {}, "has no spec"
    except (OSError, ValueError):
        return {}, _wrong_version(record) or "has a spec that cannot be read"
    match spec:
        case {"argv": [str(), *_], "facts": str(), "cgroup": str(), "orphan_grace_seconds": int() | float()}:
            return spec, ""
    return {}, "has a spec that is none"


def _wrong_version(record: Record) -> str:
    try:
        version = wire.decode((record.path / wire.SPEC).read_bytes()).get("version")
    except (OSError, ValueError):
        return ""
    known = not isinstance(version, int) or version == wire.VERSION
    return "" if known else f"has the version {version}, and this daemon knows {wire.VERSION}"


def _boots(known: Known) -> set[str]:
    return {identity.boot_id for identity in (known.shim, known.main) if identity is not None}


def _lives(known: Known) -> bool:
    for identity in (known.shim, known.main):
        opened = pidfd.open_pidfd(identity) if identity is not None else None
        if opened is not None:
            os.close(opened)
            return True
    return False
