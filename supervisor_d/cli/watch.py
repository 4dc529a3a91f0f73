"""`status --watch`: the picture, drawn again when something happens and, as CPU use never rests, every few seconds."""

from __future__ import annotations

import select
import sys
import time

import msgspec

from supervisor_d.api.client import Client, Exchange
from supervisor_d.cli.output import say, say_raw
from supervisor_d.cli.settings import Settings
from supervisor_d.cli.status_view import cpu_shares, status_lines
from supervisor_d.core.snapshot import Snapshot

MINIMUM_SECONDS = 0.1
"""The shortest time between two pictures, however much happens."""
_HIDE, _SHOW = "\x1b[?25l", "\x1b[?25h"
_HOME, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


def watch_status(settings: Settings, pools: tuple[str, ...], interval_seconds: float) -> None:
    """Show the status until Ctrl-C, or until the daemon is gone (UnavailableError)."""
    client = settings.client()
    screen = sys.stdout.isatty() and not settings.json
    try:
        if screen:
            sys.stdout.write(_HIDE + _HOME + _CLEAR_BELOW)
        _watch(client, settings, pools, interval_seconds, screen=screen)
    except KeyboardInterrupt:
        return
    finally:
        if screen:
            sys.stdout.write(_SHOW)
            sys.stdout.flush()


def _watch(
    client: Client, settings: Settings, pools: tuple[str, ...], interval_seconds: float, *, screen: bool
) -> None:
    before: Snapshot | None = None
    with client.begin("GET", "/v1/events", query=(("follow", "1"), ("lines", "0"))) as journal:
        while True:
            data = client.get("/v1/status")
            if settings.json:
                say_raw(data)
            else:
                before = _draw(data, before, settings, pools, screen=screen)
            time.sleep(MINIMUM_SECONDS)
            _wait(journal, interval_seconds - MINIMUM_SECONDS)


def _draw(
    data: bytes, before: Snapshot | None, settings: Settings, pools: tuple[str, ...], *, screen: bool
) -> Snapshot:
    from supervisor_d.cli.commands.status import refuse_unknown

    snapshot = msgspec.json.decode(data, type=Snapshot)
    refuse_unknown(pools, snapshot)
    lines = status_lines(
        snapshot, pools=pools, width=settings.width, colour=settings.colour, shares=cpu_shares(before, snapshot)
    )
    if not screen:
        say(*lines, "")
        return snapshot
    import shutil

    height = shutil.get_terminal_size().lines - 1
    text = "".join(f"{line}{_CLEAR_LINE}\n" for line in lines[:height])
    sys.stdout.write(_HOME + text + _CLEAR_BELOW)
    sys.stdout.flush()
    return snapshot


def _wait(journal: Exchange, seconds: float) -> None:
    """Until something is journalled, at most so long."""
    if select.select([journal], [], [], max(0.0, seconds))[0]:
        journal.receive()
        journal.lines()
