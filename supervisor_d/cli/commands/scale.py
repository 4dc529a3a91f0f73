"""`scale`: another number of workers, until a reload changes the pool's own number."""

from __future__ import annotations

import click

from supervisor_d.api.wire import OperateRequest
from supervisor_d.cli.operate import operate, told, wait_seconds, with_waiting
from supervisor_d.cli.settings import pool_names, settings, with_globals
from supervisor_d.cli.values import sizes_of


@click.command("scale")
@click.argument("sizes", nargs=-1, required=True, metavar="POOL=NUMBER...", shell_complete=pool_names)
@with_waiting
@with_globals
def command(sizes: tuple[str, ...], no_wait: bool, timeout: str | None, progress: bool | None) -> int:
    """Want another number of workers: web=6 worker=4; web=config gives a pool back to its config."""
    wanted = sizes_of(sizes)
    wait = wait_seconds(no_wait=no_wait, timeout=timeout)
    requests = [OperateRequest((pool,), workers, wait) for pool, workers in wanted.items()]
    return told(settings(), operate(settings(), "/v1/scale", requests, progress=progress))
