"""`schema`: the config's JSON Schema, for editors."""

from __future__ import annotations

import click

from supervisor_d.cli.output import say
from supervisor_d.cli.settings import with_globals


@click.command("schema")
@with_globals
def command() -> None:
    """Print the JSON Schema of the config, for editors that check while one types."""
    from supervisor_d.config.jsonschema import schema_text

    say(schema_text().rstrip("\n"))
