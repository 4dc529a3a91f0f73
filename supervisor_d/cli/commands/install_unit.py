"""`install-unit`: unit files for this interpreter and this config, printed or written."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from supervisor_d.cli import units
from supervisor_d.cli.output import note, say
from supervisor_d.cli.settings import settings, with_globals
from supervisor_d.errors import PrepareError, RequestError

if TYPE_CHECKING:
    from supervisor_d.core.config_spec import Config

SYSTEM_DIR = "/etc/systemd/system"
_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")


@click.command("install-unit")
@click.option(
    "--write", metavar="DIR", help=f"Write the files into a directory, usually {SYSTEM_DIR}, and print no text."
)
@click.option(
    "--user", metavar="NAME", help="Daemon and pools run as this user: the second profile. [root, with `user:`]"
)
@click.option("--group", metavar="NAME", help="With --user: its group. [of the same name]")
@click.option("--name", metavar="NAME", default="supervisor-d", show_default=True, help="The units' name.")
@click.option("--with-socket", is_flag=True, help="A socket unit too: systemd binds what pools listen on.")
@click.option("--writable", metavar="DIR", multiple=True, help="A directory that pools write to; may be repeated.")
@with_globals
def command(
    write: str | None,
    user: str | None,
    group: str | None,
    name: str,
    with_socket: bool,
    writable: tuple[str, ...],
) -> None:
    """Print unit files for systemd, for this interpreter and this config. Asks no daemon."""
    if not name or not set(name) <= _NAME:
        raise RequestError(f"cannot name a unit {name!r}: letters, digits, '.', '_' and '-' only")
    if group and not user:
        raise RequestError("cannot use --group without --user")
    config = _config(user)
    facts = _facts(config, user=user or "", group=group or "", writable=writable)
    files = {f"{name}.service": units.service(facts)}
    if user:
        files[f"{name}-sweep.service"] = units.sweeper(facts, name)
    if with_socket:
        files[f"{name}.socket"] = units.socket(_addresses(config))
    if write is None:
        say(*(f"# {title}\n{text}" for title, text in files.items()))
        return
    _write(Path(write), files)
    for line in _next(name, write, with_socket=with_socket, user=user):
        note(line)


def _config(user: str | None) -> Config:
    """The config as the unit's daemon will see it: as root, or as a plain user with the unit's environment."""
    from supervisor_d.config.loader import load

    environ = {**os.environ, **(units.PLAIN_ENVIRON if user else {})}
    return load(settings().config_path(), environ=environ, euid=_plain_uid(user) if user else 0)


def _plain_uid(user: str) -> int:
    import pwd

    try:
        uid = pwd.getpwnam(user).pw_uid
    except KeyError:
        hint = f"make it first: useradd --system --home-dir {units.STATE_ROOT}/supervisor-d {user}"
        raise PrepareError(f"cannot make a unit for user {user!r}: there is no such user", hint=hint) from None
    if uid == 0:
        raise RequestError("cannot use --user root: leave --user away, and give each pool a `user:`")
    return uid


def _facts(config: Config, *, user: str, group: str, writable: tuple[str, ...]) -> units.UnitFacts:
    seen = tuple(sorted({path for pool in config.pools.values() for path in (pool.cwd, pool.python) if path}))
    return units.UnitFacts(
        python=sys.executable,
        config=str(Path(config.path).absolute()),
        runtime_dir=config.daemon.runtime_dir,
        state_dir=config.daemon.state_dir,
        log_dir=config.daemon.log_dir,
        user=user,
        group=group,
        writable=tuple(str(Path(path).absolute()) for path in writable),
        read=seen,
    )


def _addresses(config: Config) -> list[str]:
    """As ListenStream= wants them (systemd.socket(5)).  Raises RequestError where there are none."""
    found = [listener.address for pool in config.pools.values() for listener in pool.listeners]
    if not found:
        raise RequestError("cannot make a socket unit: no pool in the config listens anywhere")
    if any(address.endswith(":0") for address in found):
        raise RequestError("cannot make a socket unit: a port of 0 is chosen anew by each bind")
    return [address.removeprefix("unix:") for address in found]


def _write(directory: Path, files: dict[str, str]) -> None:
    for title, text in files.items():
        path = directory / title
        try:
            path.write_text(text, encoding="utf-8")
            path.chmod(0o644)
        except OSError as error:
            raise PrepareError(f"cannot write {path}: {error.strerror}", hint="run this as root") from error
        say(str(path))


def _next(name: str, directory: str, *, with_socket: bool, user: str | None) -> list[str]:
    started = f"{name}.socket {name}.service" if with_socket else f"{name}.service"
    if not directory.startswith(("/etc/systemd", "/run/systemd", "/usr/lib/systemd", "/lib/systemd")):
        return []
    hint = [] if user else ["each pool runs as its `user:`, and writes only where --writable lets it"]
    return [f"next: systemctl daemon-reload && systemctl enable --now {started}", *hint]
