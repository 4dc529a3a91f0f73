"""`status`: what runs, how well, and why not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import click

from supervisor_d.cli.output import say, say_json, say_raw
from supervisor_d.cli.settings import Settings, pool_names, settings, with_globals
from supervisor_d.errors import RequestError, UnknownNameError

if TYPE_CHECKING:
    from supervisor_d.core.snapshot import Snapshot


@click.command("status")
@click.argument("pools", nargs=-1, metavar="[POOL]...", shell_complete=pool_names)
@click.option("-w", "--watch", is_flag=True, help="Go on showing it, until Ctrl-C.")
@click.option("--interval", metavar="DURATION", default="2s", show_default=True, help="How often with --watch.")
@with_globals
def command(pools: tuple[str, ...], watch: bool, interval: str) -> None:
    """Show pools, their processes, and what is wrong with them."""
    options = settings()
    if watch:
        from supervisor_d.cli.values import seconds_of
        from supervisor_d.cli.watch import watch_status

        seconds = seconds_of("--interval", interval)
        if seconds < 0.1:
            raise RequestError("cannot watch: --interval is at least 100ms")
        watch_status(options, pools, seconds)
        return
    data = options.client().get("/v1/status")
    if options.json and not pools:
        say_raw(data)
        return
    show(options, pools, data)


def show(options: Settings, pools: tuple[str, ...], data: bytes) -> None:
    """Print one picture.  Raises UnknownNameError for a pool that it does not have."""
    snapshot = light_snapshot(data)
    refuse_unknown(pools, snapshot)
    if options.json:
        import json

        whole = json.loads(data)
        say_json({**whole, "pools": [pool for pool in whole["pools"] if pool["name"] in pools]})
        return
    from supervisor_d.cli.status_view import status_lines

    say(*status_lines(snapshot, pools=pools, width=options.width, colour=options.colour))


def light_snapshot(data: bytes) -> Snapshot:
    """A Snapshot's attributes without its class: making the types and their decoder takes 20 ms, this takes 3."""
    import json

    return cast("Snapshot", json.loads(data, object_hook=lambda fields: SimpleNamespace(**fields)))


def refuse_unknown(pools: tuple[str, ...], snapshot: Snapshot) -> None:
    """Raises UnknownNameError for a name that no pool has."""
    known = [pool.name for pool in snapshot.pools]
    for name in pools:
        if name not in known:
            raise UnknownNameError(f"cannot find a pool {name!r}", hint=f"there are: {', '.join(known) or 'none'}")
