"""The options that every command has, in front of its name or behind it, and what follows from them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from supervisor_d.api.client import Client
from supervisor_d.cli.find_socket import find_config, find_socket
from supervisor_d.errors import RequestError

_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(slots=True)
class Settings:
    """What was asked for, for every command alike."""

    config: str | None = None
    socket: str | None = None
    json: bool = False
    no_color: bool = False
    debug: bool = False

    @property
    def colour(self) -> bool:
        """Colours: on a terminal, unless the user said no (https://no-color.org)."""
        refused = self.no_color or bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
        return sys.stdout.isatty() and not refused

    @property
    def width(self) -> int | None:
        """Columns of the terminal; None in a pipe, where nothing is cut."""
        if not sys.stdout.isatty():
            return None
        told = os.environ.get("COLUMNS", "")
        return int(told) if told.isdigit() and int(told) else os.get_terminal_size(sys.stdout.fileno()).columns or 80

    def config_path(self) -> str:
        """The config file.  Raises RequestError when there is none."""
        path = find_config(self.config, os.environ)
        if path is None:
            raise RequestError(
                "cannot find a config: there is neither ./supervisor-d.yaml nor /etc/supervisor-d/supervisor-d.yaml",
                hint="name one with --config FILE",
            )
        return path

    def client(self) -> Client:
        """A client of the daemon that these settings mean."""
        return Client(find_socket(self.socket, self.config, os.environ, os.geteuid()))


def settings() -> Settings:
    """The settings of the command that runs."""
    return _of(click.get_current_context())


def _of(context: click.Context) -> Settings:
    found = context.find_root().ensure_object(Settings)
    if not isinstance(found, Settings):
        raise TypeError("the root context holds something else")
    return found


def _note(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Keep what is given; the later of two places wins."""
    if value not in (None, False):
        setattr(_of(context), str(parameter.name), value)


def _option(*names: str, **options: Any) -> Callable[[_F], _F]:
    return click.option(*names, expose_value=False, callback=_note, **options)


_GLOBAL = (
    _option("-c", "--config", metavar="FILE", help="The config file. [env: SUPERVISOR_D_CONFIG]"),
    _option("--socket", metavar="PATH", help="The daemon's control socket. [env: SUPERVISOR_D_SOCKET]"),
    _option("--json", is_flag=True, help="Answer in JSON."),
    _option("--no-color", is_flag=True, help="No colours. [env: NO_COLOR]"),
    _option("--debug", is_flag=True, help="Show the traceback of an unexpected error."),
)


def with_globals(command: _F) -> _F:
    """Add the global options to a command."""
    for option in reversed(_GLOBAL):
        command = option(command)
    return command


def pool_names(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Names of pools for the shell's completion; none when no daemon answers."""
    import msgspec

    try:
        told = msgspec.json.decode(_of(context).client().get("/v1/status"))
    except Exception:  # noqa: BLE001  completion must never disturb the line that is being typed
        return []
    return [pool["name"] for pool in told["pools"] if pool["name"].startswith(incomplete)]
