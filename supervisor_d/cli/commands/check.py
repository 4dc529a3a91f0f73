"""`check`: is the config right?  Asks no daemon."""

from __future__ import annotations

import os
from functools import partial

import click

from supervisor_d.cli.output import note, say, say_json
from supervisor_d.cli.settings import settings, with_globals


@click.command("check")
@click.argument("file", required=False, type=click.Path())
@click.option("--no-apps", is_flag=True, help="Import no Celery application to look at its settings.")
@with_globals
def command(file: str | None, no_apps: bool) -> None:
    """Check the config and tell every mistake with its line (exit 78).  No daemon is asked.

    Warnings are about what works and had better be otherwise: they stand on standard error, and the exit code is 0.
    For them Celery applications are imported, each by its pool's own Python and user.
    """
    from supervisor_d.apps import look
    from supervisor_d.config.loader import load

    options = settings()
    path = file or options.config_path()
    config = load(path, environ=os.environ, advise=True, look=partial(look, run_apps=not no_apps))
    names = tuple(config.pools)
    if options.json:
        say_json({"ok": True, "path": path, "pools": names, "warnings": config.warnings})
        return
    note(*(f"{w.path}:{w.line}:{w.column}: warning: {w.key}: {w.message}" for w in config.warnings))
    count = f"{len(names)} pool{'' if len(names) == 1 else 's'}"
    say(f"{path}: ok, {count}{': ' if names else ''}{', '.join(names)}")
