"""`check`: is the config right?  Asks no daemon."""

from __future__ import annotations

import os

import click

from supervisor_d.cli.output import note, say, say_json
from supervisor_d.cli.settings import settings, with_globals


@click.command("check")
@click.argument("file", required=False, type=click.Path())
@with_globals
def command(file: str | None) -> None:
    """Check the config and tell every mistake with its line (exit 78).  Nothing is started or asked.

    Warnings are about what works and had better be otherwise: they stand on standard error, and the exit code is 0.
    """
    from supervisor_d.config.loader import load

    options = settings()
    path = file or options.config_path()
    config = load(path, environ=os.environ, advise=True)
    names = tuple(config.pools)
    if options.json:
        say_json({"ok": True, "path": path, "pools": names, "warnings": config.warnings})
        return
    note(*(f"{w.path}:{w.line}:{w.column}: warning: {w.key}: {w.message}" for w in config.warnings))
    count = f"{len(names)} pool{'' if len(names) == 1 else 's'}"
    say(f"{path}: ok, {count}{': ' if names else ''}{', '.join(names)}")
