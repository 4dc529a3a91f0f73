"""`start`: start stopped pools, and give failed ones a fresh try."""

from __future__ import annotations

import click

from supervisor_d.api.wire import OperateRequest
from supervisor_d.cli.operate import operate, pools_asked, told, wait_seconds, with_waiting
from supervisor_d.cli.settings import pool_names, settings, with_globals


@click.command("start")
@click.argument("pools", nargs=-1, metavar="[POOL]...", shell_complete=pool_names)
@click.option("--all", "everything", is_flag=True, help="All pools.")
@with_waiting
@with_globals
def command(pools: tuple[str, ...], everything: bool, no_wait: bool, timeout: str | None, progress: bool | None) -> int:
    """Start stopped pools, and give failed ones a fresh try."""
    wait = wait_seconds(no_wait=no_wait, timeout=timeout)
    request = OperateRequest(pools=pools_asked(pools, everything=everything, command="start"), wait_seconds=wait)
    return told(settings(), operate(settings(), "/v1/start", [request], progress=progress))
