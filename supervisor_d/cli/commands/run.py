"""`run`: be the daemon, in the foreground.  The only command that knows it."""

from __future__ import annotations

import gc
import os
import sys
from typing import Literal, cast

import click

from supervisor_d.cli.settings import settings, with_globals


@click.command("run")
@click.option("--logs/--no-logs", default=None, help="Show workers' logs, merged. [on a terminal]")
@click.option(
    "--log-format", type=click.Choice(["text", "json"]), help="Of the daemon's own log. [text; json with --json]"
)
@with_globals
def command(logs: bool | None, log_format: str | None) -> int:
    """Run the daemon in the foreground, until SIGTERM or Ctrl-C stops everything.

    As PID 1 (in a container) it starts the daemon below a small init of its own.
    """
    if os.getpid() == 1:
        from supervisor_d.init import become

        become((sys.executable, *sys.orig_argv[1:]))
    gc.disable()  # until it is ready (supervisor_d/daemon.py)
    from supervisor_d.daemon import main
    from supervisor_d.run_options import RunOptions

    options = settings()
    written = log_format or ("json" if options.json else "text")
    run = RunOptions(
        show_logs=sys.stdout.isatty() if logs is None else logs,
        colour=options.colour,
        log_format=cast("Literal['text', 'json']", written),
    )
    return main(options.config_path(), options=run)
