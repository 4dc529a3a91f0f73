"""What outlives the daemon: the intent (accepted config, operators' decisions, rollouts) and oneshots' successes.

The intent lies in the state directory, written whole to a temporary file, fsync'd, renamed: a crash leaves the old one
or the new one.  Successes lie in the runtime directory with the boot id: they belong to processes that still run, so
they go with a reboot and with a clean end of the daemon.  Both directories are 0700 or hold 0600 files only: specs
carry the environment, secrets included.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from supervisor_d.core.config_spec import DaemonSpec
from supervisor_d.core.intent import Intent, PoolIntent, Version
from supervisor_d.core.spec import PoolSpec
from supervisor_d.errors import InternalError
from supervisor_d.programs.registry import PROGRAMS
from supervisor_d.runtime import crash
from supervisor_d.runtime.places import RULING
from supervisor_d.runtime.proc import stat_fields

STATE_VERSION = 1


@dataclass(frozen=True, slots=True)
class SavedIntent:
    """The intent with the version of its format and the config file it was accepted from."""

    version: int
    config_path: str
    config_digest: str
    intent: Intent
    daemon: DaemonSpec | None = None
    """The daemon's own settings as accepted; None in what a former version wrote."""


@dataclass(frozen=True, slots=True)
class Successes:
    """Generations of oneshots that succeeded since this boot, by pool."""

    boot_id: str
    generations: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def boot_id() -> str:
    """The kernel's identity of this boot (random(4), /proc/sys/kernel/random/boot_id)."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _life() -> str:
    """Of all that can be adopted: this boot, and this container, which ends with its PID 1.  A container that is killed
    and started again finds its files as they were, and the boot's identity is the host's."""
    init = stat_fields(1)  # unreadable under hidepid=2 (proc(5)), and then by every daemon
    return f"{boot_id()} {init[19] if init else ''}"


def write_atomically(path: Path, data: bytes, *, durable: bool) -> None:
    """Replace `path` by `data` (0600): whole or not at all; `durable` survives a power cut as well."""
    temporary = path.with_name(path.name + ".new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(fd, "wb") as file:
        file.write(data)
        if durable:
            file.flush()
            os.fsync(fd)
    crash.point("state-before-rename")
    temporary.replace(path)
    crash.point("state-after-rename")
    if durable:
        _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _typed_keys(spec: PoolSpec) -> PoolSpec:
    """The program's own keys come out of JSON as a mapping; give them their type back."""
    return replace(spec, keys=msgspec.convert(spec.keys, PROGRAMS[spec.program].keys_type))


def _typed_version(version: Version) -> Version:
    return replace(version, spec=_typed_keys(version.spec))


def _typed_pool(pool: PoolIntent) -> PoolIntent:
    previous = _typed_version(pool.previous) if pool.previous is not None else None
    former = _typed_version(pool.former) if pool.former is not None else None
    retired = tuple(map(_typed_version, pool.retired))
    return replace(pool, wanted=_typed_version(pool.wanted), previous=previous, former=former, retired=retired)


class StateStore:
    """Reads and writes what outlives the daemon.  Raises OSError when the disk refuses."""

    def __init__(self, state_dir: Path, runtime_dir: Path) -> None:
        self._intent = state_dir / "intent.json"
        self._successes = runtime_dir / "oneshots.json"
        self._ruling = runtime_dir / RULING

    def load_intent(self) -> SavedIntent | None:
        """The accepted intent, or None when there is none yet.

        Raises InternalError when the file cannot be read: nothing is guessed about running processes.
        """
        try:
            data = self._intent.read_bytes()
        except FileNotFoundError:
            return None
        try:
            saved = msgspec.json.decode(data, type=SavedIntent)
            if saved.version != STATE_VERSION:
                raise msgspec.ValidationError(f"version {saved.version}, not {STATE_VERSION}")
            pools = {name: _typed_pool(pool) for name, pool in saved.intent.pools.items()}
        except (msgspec.DecodeError, KeyError) as error:
            raise InternalError(
                f"cannot read the accepted config in {self._intent}: {error}",
                hint="stop what runs, move the file away and start again",
            ) from error
        return replace(saved, intent=replace(saved.intent, pools=pools))

    def save_intent(self, saved: SavedIntent) -> None:
        """Write the intent down, durably."""
        write_atomically(self._intent, msgspec.json.encode(saved), durable=True)

    def mark_ruling(self) -> None:
        """From now on, the accepted config rules until a clean end, whatever becomes of this daemon.

        Where the disk refuses, processes that live say the same.
        """
        new = self._ruling.with_name(f"{RULING}.new")
        with suppress(OSError):
            new.write_text(_life(), encoding="ascii")
            new.replace(self._ruling)

    def ruled_until_death(self, *, lives: bool = False) -> bool:
        """Whether the daemon before this one has not come to a clean end, in this boot or this container.

        `lives` is whether processes of it do, and decides where it could leave no mark.
        """
        try:
            return self._ruling.read_text(encoding="ascii") == _life()
        except (OSError, ValueError):
            return lives

    def load_successes(self) -> Mapping[str, tuple[int, ...]]:
        """Oneshots' successes of this boot; a file that cannot be read counts as none."""
        try:
            saved = msgspec.json.decode(self._successes.read_bytes(), type=Successes)
        except (FileNotFoundError, msgspec.DecodeError):
            return {}
        return saved.generations if saved.boot_id == boot_id() else {}

    def save_successes(self, generations: Mapping[str, tuple[int, ...]]) -> None:
        """Write the successes down."""
        write_atomically(self._successes, msgspec.json.encode(Successes(boot_id(), generations)), durable=False)

    def clear_successes(self) -> None:
        """The next start runs its oneshots again."""
        self._successes.unlink(missing_ok=True)

    def end(self) -> None:
        """A clean end: the next start begins anew, from the config file."""
        self.clear_successes()
        self._ruling.unlink(missing_ok=True)


def encode(value: Any) -> str:
    """A frozen dataclass as JSON text."""
    return msgspec.json.encode(value).decode()
