"""`rollback`: go back to what ruled before the last rollout that succeeded, or give up the one under way."""

from __future__ import annotations

import click

from supervisor_d.api.wire import OperateRequest
from supervisor_d.cli.operate import operate, pools_asked, told, wait_seconds, with_waiting
from supervisor_d.cli.settings import pool_names, settings, with_globals


@click.command("rollback")
@click.argument("pools", nargs=-1, metavar="[POOL]...", shell_complete=pool_names)
@click.option("--all", "everything", is_flag=True, help="All pools that have something to go back to.")
@with_waiting
@with_globals
def command(pools: tuple[str, ...], everything: bool, no_wait: bool, timeout: str | None, progress: bool | None) -> int:
    """Go back to what ruled before the last rollout that succeeded; one that is under way is given up."""
    wait = wait_seconds(no_wait=no_wait, timeout=timeout)
    request = OperateRequest(pools=pools_asked(pools, everything=everything, command="rollback"), wait_seconds=wait)
    return told(settings(), operate(settings(), "/v1/rollback", [request], progress=progress))
