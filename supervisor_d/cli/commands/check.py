"""`check`: is the config right?  Asks no daemon."""

from __future__ import annotations

import os

import click

from supervisor_d.cli.output import say, say_json
from supervisor_d.cli.settings import settings, with_globals


@click.command("check")
@click.argument("file", required=False, type=click.Path())
@with_globals
def command(file: str | None) -> None:
    """Check the config and tell every mistake with its line (exit 78).  Nothing is started or asked."""
    from supervisor_d.config.loader import load

    options = settings()
    path = file or options.config_path()
    config = load(path, environ=os.environ)
    names = tuple(config.pools)
    if options.json:
        say_json({"ok": True, "path": path, "pools": names})
        return
    count = f"{len(names)} pool{'' if len(names) == 1 else 's'}"
    say(f"{path}: ok, {count}{': ' if names else ''}{', '.join(names)}")
