"""`diff`: what a reload would do to each pool."""

from __future__ import annotations

import click

from supervisor_d.api.wire import Outcome
from supervisor_d.cli.output import say, say_raw
from supervisor_d.cli.settings import settings, with_globals


@click.command("diff")
@with_globals
def command() -> None:
    """Show what a reload would do now, and change nothing."""
    options = settings()
    data = options.client().get("/v1/diff")
    if options.json:
        say_raw(data)
        return
    import msgspec

    from supervisor_d.cli.operate import change_lines

    outcome = msgspec.json.decode(data, type=Outcome)
    say(*change_lines(outcome.changes, width=options.width, colour=options.colour))
    if all(change.change == "keep" for change in outcome.changes):
        say("a reload would change nothing; to run code that changed in place: supervisor-d restart POOL")
