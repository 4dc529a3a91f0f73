"""Records: the directory of each process in runtime_dir, as the daemon writes, finds and removes it.

What stands in one, and who writes it, is told in shim/wire.py.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from supervisor_d.core.spec import Launch, Limits
from supervisor_d.shim import wire

RECORD_MAX_BYTES = 4 * 1024 * 1024
REHEARSAL = "rehearsal"
NOTE = "note.json"
"""Beside what shim/wire.py lists: how far the process has come, in the core's own words; no shim reads it."""


@dataclass(frozen=True, slots=True)
class Record:
    """One process's record, and its private directory."""

    process_id: str
    path: Path
    private_dir: Path

    def spec(self) -> wire.Spec:
        """What the process was started with.  Raises OSError or ValueError when it isn't there or isn't ours."""
        spec: wire.Spec = wire.decode(_read(self.path / wire.SPEC))  # type: ignore[assignment]
        if spec.get("version") != wire.VERSION or spec.get("id") != self.process_id:
            raise ValueError(f"not a record of {self.process_id}")
        return spec

    def events(self) -> list[wire.Message]:
        """The facts that the shim recorded; a torn last line is left out."""
        messages = []
        with suppress(OSError):
            for line in _read(self.path / wire.EVENTS).splitlines(keepends=True):
                with suppress(ValueError):
                    messages.append(wire.decode(line))
        return messages

    def note(self, text: str) -> None:
        """Keep the daemon's note.  Raises OSError."""
        _write(self.path, NOTE, text.encode())

    def noted(self) -> str:
        """The daemon's note; "" when there is none."""
        try:
            return _read(self.path / NOTE).decode()
        except (OSError, ValueError):
            return ""

    def open(self) -> int:
        """A descriptor of the directory, for the caller to close."""
        return os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)

    def remove(self) -> None:
        """Remove record and private directory.  What the program left in the latter is deleted, never followed."""
        with suppress(RecursionError):
            shutil.rmtree(self.private_dir, ignore_errors=True)
        shutil.rmtree(self.path, ignore_errors=True)


class Records:
    """All records of a runtime directory."""

    def __init__(self, runtime_dir: Path) -> None:
        self._processes = runtime_dir / "processes"
        self._private = runtime_dir / "private"

    def prepare(self) -> None:
        """Make the directories.  `private` may be passed through by everybody, each to a directory of its own user."""
        self._processes.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._private.mkdir(mode=0o711, exist_ok=True)
        self._private.chmod(0o711)

    def of(self, process_id: str) -> Record:
        """The record of that name, be it there or not."""
        return Record(process_id, self._processes / process_id, self._private / process_id)

    def create(self, spec: wire.Spec) -> Record:
        """Put a process on record, before anything runs.  Raises OSError; FileExistsError for an id that is in use."""
        record = self.of(spec["id"])
        record.path.mkdir(mode=0o700)
        try:
            record.private_dir.mkdir(mode=0o700)
            if account := spec["account"]:
                os.chown(record.private_dir, account["uid"], account["gid"])
            _write(record.path, wire.SPEC, wire.encode(dict(spec)))
        except OSError:
            record.remove()
            raise
        return record

    def __iter__(self) -> Iterator[Record]:
        with suppress(FileNotFoundError):
            for name in sorted(os.listdir(self._processes)):
                yield self.of(name)

    def remove_strays(self) -> None:
        """Remove private directories without a record, and what a zygote that was killed left of its rehearsal."""
        for scratch in self._private.parent.glob(f"{REHEARSAL}.*"):
            shutil.rmtree(scratch, ignore_errors=True)
        for name in os.listdir(self._private):
            if not (self._processes / name).exists():
                self.of(name).remove()


def make_spec(
    record: Record, launch: Launch, facts: str, account: wire.Account | None, listeners: int, log_dir: Path, cgroup: str
) -> wire.Spec:
    """What the shim must know of a launch."""
    log = launch.log
    return wire.Spec(
        version=wire.VERSION,
        id=record.process_id,
        facts=facts,
        argv=list(launch.argv),
        env=dict(launch.env),
        cwd=launch.cwd,
        account=account,
        listeners=listeners,
        limits=_limits(launch.limits),
        log=wire.LogSpec(
            name=launch.log_name, max_size_bytes=log.max_size_bytes, keep=log.keep, block_seconds=log.block_seconds
        ),
        log_directory=str(log_dir),
        orphan_grace_seconds=launch.orphan_grace_seconds,
        private_dir=str(record.private_dir),
        notify=launch.notify,
        agent=launch.agent,
        cgroup=cgroup,
    )


def _limits(limits: Limits) -> wire.LimitsSpec:
    return wire.LimitsSpec(
        open_files=limits.open_files,
        processes=limits.processes,
        core_size_bytes=limits.core_size_bytes,
        memory_bytes=limits.memory_bytes,
        nice=limits.nice,
        oom_score_adj=limits.oom_score_adj,
        umask=limits.umask,
    )


def _write(directory: Path, name: str, data: bytes) -> None:
    """All of it or nothing: a new file, renamed when complete.  No fsync: a tmpfs dies with its processes."""
    temporary = directory / f".{name}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(data)
    os.rename(temporary, directory / name)


def _read(path: Path) -> bytes:
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        return file.read(RECORD_MAX_BYTES)
