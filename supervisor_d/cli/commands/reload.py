"""`reload`: apply the changed config, whole or not at all, and say what it did."""

from __future__ import annotations

import click

from supervisor_d.api.wire import OperateRequest
from supervisor_d.cli.operate import operate, told, wait_seconds, with_waiting
from supervisor_d.cli.settings import settings, with_globals


@click.command("reload")
@with_waiting
@with_globals
def command(no_wait: bool, timeout: str | None, progress: bool | None) -> int:
    """Apply the config file as it is now.  A file with mistakes changes nothing (exit 78)."""
    request = OperateRequest(wait_seconds=wait_seconds(no_wait=no_wait, timeout=timeout))
    return told(settings(), operate(settings(), "/v1/reload", [request], progress=progress))
