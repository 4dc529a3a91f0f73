"""`events`: what happened and what was done, each with its reason."""

from __future__ import annotations

import click

from supervisor_d.api.wire import MAX_LINES
from supervisor_d.cli.journal_text import stream_line
from supervisor_d.cli.output import say, say_raw
from supervisor_d.cli.settings import pool_names, settings, with_globals


@click.command("events")
@click.option("-f", "--follow", is_flag=True, help="Go on as more happens, until Ctrl-C.")
@click.option("--pool", metavar="POOL", shell_complete=pool_names, help="Of this pool only.")
@click.option(
    "-n", "--lines", type=click.IntRange(0, MAX_LINES), default=50, show_default=True, help="How many of the past."
)
@with_globals
def command(follow: bool, pool: str | None, lines: int) -> None:
    """Show the journal: every event and action with its reason, oldest first."""
    options = settings()
    query = [("lines", str(lines))]
    query += [("pool", pool)] if pool else []
    query += [("follow", "1")] if follow else []
    with options.client().begin("GET", "/v1/events", query=query) as stream:
        for line in stream:
            if options.json:
                say_raw(line)
            else:
                say(stream_line(line, colour=options.colour))
