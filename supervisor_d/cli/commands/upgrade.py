"""`upgrade`: the daemon replaces itself by newer (or older) code; its processes never notice."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import click

from supervisor_d.api.wire import MAX_LINES, UpgradeAnswer, UpgradeRequest
from supervisor_d.cli.output import note, say, say_json
from supervisor_d.cli.settings import Settings, settings, with_globals
from supervisor_d.errors import OutcomeError, RequestError, UnavailableError

if TYPE_CHECKING:
    from supervisor_d.core.snapshot import Entry

PROVE_SECONDS = 90.0
RULE_SECONDS = 60.0
ASK_SECONDS = 0.02


@click.command("upgrade")
@click.option(
    "--python", metavar="FILE", help="The interpreter of the new code: a virtual environment's python. [as now]"
)
@with_globals
def command(python: str | None) -> int:
    """Replace the daemon by the code that is installed now, in place: same pid, and no process is touched.

    The new code proves first that it can read what the daemon has written down. When it can't, nothing changes.
    """
    import msgspec

    options = settings()
    client = options.client()
    request = UpgradeRequest(python=_absolute(python) if python else "")
    with client.begin_post("/v1/upgrade", request) as exchange:
        answer = msgspec.json.decode(exchange.body(PROVE_SECONDS), type=UpgradeAnswer)
    if not options.json:
        note(f"supervisor-d {answer.after} has proven itself; pid {answer.pid} becomes it")
    told = _outcome(options, answer)
    if told.name == "upgrade-failed":
        raise OutcomeError(f"cannot upgrade: {told.reason}", hint="every process goes on; see `supervisor-d events`")
    _tell(options, answer, told)
    return 0


def _tell(options: Settings, answer: UpgradeAnswer, told: Entry) -> None:
    import msgspec

    from supervisor_d.core.snapshot import Snapshot

    daemon = msgspec.json.decode(options.client().get("/v1/status"), type=Snapshot).daemon
    if options.json:
        facts = {"before": answer.before, "after": daemon.version, "pid": daemon.pid, "adopted": daemon.adopted_total}
        say_json({"ok": True, **facts, "message": told.reason})
        return
    say(f"upgraded {told.reason}; {daemon.adopted_total} processes adopted")


def _outcome(options: Settings, answer: UpgradeAnswer) -> Entry:
    """What the daemon that rules now says of it.  Raises UnavailableError when none does in time."""
    deadline = time.monotonic() + RULE_SECONDS
    while time.monotonic() < deadline:
        try:
            found = _story(options, answer.serial)
        except UnavailableError:
            found = None  # between two daemons
        if found is not None:
            return found
        time.sleep(ASK_SECONDS)
    raise UnavailableError(
        f"cannot tell what became of the upgrade: no daemon has said so within {RULE_SECONDS:g} s",
        hint="every process goes on; see the daemon's own log, and start it again if it does not run",
    )


def _story(options: Settings, serial: int) -> Entry | None:
    import msgspec

    from supervisor_d.core.snapshot import Entry

    query = (("after", str(serial)), ("lines", str(MAX_LINES)))
    lines = options.client().get("/v1/events", query).splitlines()
    entries = (msgspec.json.decode(line, type=Entry) for line in lines)
    return next((each for each in entries if each.name in ("upgraded", "upgrade-failed")), None)


def _absolute(python: str) -> str:
    """A path as the daemon understands it, which has a working directory of its own.  Raises RequestError."""
    path = os.path.abspath(python)  # noqa: PTH100  no resolving: the link in a virtual environment is what names it
    if not os.access(path, os.X_OK) or os.path.isdir(path):  # noqa: PTH112
        raise RequestError(f"cannot upgrade to {python}: it cannot be executed", hint="name a python: .venv/bin/python")
    return path
