"""`deploy`: a release as one thing: the config, the oneshots, then a rollout of each pool in its turn."""

from __future__ import annotations

import click

from supervisor_d.api.wire import OperateRequest
from supervisor_d.cli.operate import operate, told, wait_seconds, with_waiting
from supervisor_d.cli.settings import pool_names, settings, with_globals


@click.command("deploy")
@click.argument("pools", nargs=-1, metavar="[POOL]...", shell_complete=pool_names)
@click.option("--label", default="", metavar="WORD", help="The release's name, told in events and status.")
@with_waiting
@with_globals
def command(pools: tuple[str, ...], label: str, no_wait: bool, timeout: str | None, progress: bool | None) -> int:
    """Bring a release into effect: apply the config file, run the oneshots, roll each pool in its turn.

    Without names: all pools of gunicorn, Celery and beat that run.  When one fails, the whole deploy is rolled back.
    """
    request = OperateRequest(pools=pools, label=label, wait_seconds=wait_seconds(no_wait=no_wait, timeout=timeout))
    return told(settings(), operate(settings(), "/v1/deploy", [request], progress=progress))
