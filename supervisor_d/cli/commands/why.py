"""`why`: the story of a slot, from the journal, and where it stands now."""

from __future__ import annotations

import click

from supervisor_d.api.wire import MAX_LINES
from supervisor_d.cli.journal_text import decoded, entry_line
from supervisor_d.cli.output import say, say_json
from supervisor_d.cli.render import painted, span
from supervisor_d.cli.settings import pool_names, settings, with_globals
from supervisor_d.core.snapshot import Entry, PoolView, Snapshot
from supervisor_d.errors import UnknownNameError


@click.command("why")
@click.argument("slot", metavar="SLOT", shell_complete=pool_names)
@click.option(
    "-n", "--lines", type=click.IntRange(1, MAX_LINES), default=30, show_default=True, help="How many at most."
)
@with_globals
def command(slot: str, lines: int) -> None:
    """Tell what happened to a slot (web.0), a process (web.0@g3.17) or a pool (web), why, and how it is now."""
    import msgspec

    options = settings()
    client = options.client()
    snapshot = msgspec.json.decode(client.get("/v1/status"), type=Snapshot)
    pool = _pool(slot, snapshot)
    told = client.get("/v1/events", query=(("pool", pool.name), ("lines", str(MAX_LINES))))
    entries = [entry for line in told.splitlines() if not isinstance(entry := decoded(line), int)]
    story = [entry for entry in entries if _belongs(entry, slot, pool.name)][-lines:]
    now = _now(slot, pool, snapshot.at)
    if options.json:
        say_json({"slot": slot, "story": story, "now": now})
        return
    say(*(entry_line(entry, colour=options.colour) for entry in story))
    say(*(f"{painted('now', 'bold', on=options.colour)}  {line}" for line in now))


def _pool(slot: str, snapshot: Snapshot) -> PoolView:
    """The pool that a slot belongs to.  Raises UnknownNameError."""
    base = slot.partition("@")[0]
    for pool in snapshot.pools:
        name, _, number = base.rpartition(".")
        if base == pool.name or (name == pool.name and number.isdecimal()):
            return pool
    known = ", ".join(f"{pool.name}.0" for pool in snapshot.pools)
    raise UnknownNameError(f"cannot find a slot {slot!r}", hint=f"slots are named like these: {known or 'web.0'}")


def _belongs(entry: Entry, slot: str, pool: str) -> bool:
    """What was done to the pool is part of each slot's story."""
    about = entry.subject == slot or entry.subject.startswith(f"{slot}@")
    return about or pool in (slot, entry.subject)


def _now(slot: str, pool: PoolView, at: float) -> list[str]:
    """Where the slot stands: its processes, what it waits for, and its pool."""
    lines = [
        f"{process.id} is {process.state} since {span(at - (process.ready_at or process.started_at))}"
        + (f" as pid {process.pid}" if process.pid is not None else "")
        + (f": {process.exit or process.stop_reason or process.reason}")
        for process in pool.processes
        if slot in (process.id, pool.name, f"{pool.name}.{process.slot}")
    ]
    for waiting in pool.slots:
        if slot in (pool.name, f"{pool.name}.{waiting.slot}"):
            name = f"{pool.name}.{waiting.slot}"
            again = f"starts again in {waiting.backoff_seconds:.1f} s (attempt {waiting.attempt}); {waiting.last_exit}"
            lines.append(f"{name} gave up: {waiting.failed}" if waiting.failed else f"{name} {again}")
    return [*lines, f"{pool.name} is {pool.state}{': ' if pool.detail else ''}{pool.detail}"]
