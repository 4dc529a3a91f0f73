"""`logs`: what workers wrote, merged over slots."""

from __future__ import annotations

import click

from supervisor_d.api.wire import MAX_LINES, LogLine
from supervisor_d.cli.output import say, say_raw
from supervisor_d.cli.settings import pool_names, settings, with_globals
from supervisor_d.cli.values import since_of
from supervisor_d.logs.line import prefixed


@click.command("logs")
@click.argument("names", nargs=-1, metavar="[POOL|SLOT]...", shell_complete=pool_names)
@click.option("-f", "--follow", is_flag=True, help="Go on as more is written, until Ctrl-C.")
@click.option("-n", "--lines", type=click.IntRange(0, MAX_LINES), help="How many of the past.  [100; all with --since]")
@click.option("--since", metavar="WHEN", help="Nothing older: 10m (ago), or 2031-05-01T12:00.")
@with_globals
def command(names: tuple[str, ...], follow: bool, lines: int | None, since: str | None) -> None:
    """Show workers' logs, merged by time: of all pools, or of those named (web, worker.0)."""
    options = settings()
    wanted = lines if lines is not None else MAX_LINES if since else 100
    query = [("name", name) for name in names] + [("lines", str(wanted))]
    query += [("since", f"{since_of(since):.3f}")] if since else []
    query += [("follow", "1")] if follow else []
    width = 0
    with options.client().begin("GET", "/v1/logs", query=query) as stream:
        for data in stream:
            if options.json:
                say_raw(data)
                continue
            line = _decoded(data)
            width = max(width, len(line.source))
            say(prefixed(line, width, colour=options.colour))


def _decoded(data: bytes) -> LogLine:
    import msgspec

    return msgspec.json.decode(data, type=LogLine)
