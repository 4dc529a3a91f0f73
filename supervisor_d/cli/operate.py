"""What reload, scale, start, stop and restart have in common: ask, show what happens while waiting, tell the outcome.

While an operation goes on, the journal is followed on a second connection and both are waited for at once: progress is
what really happens, and nothing polls.
"""

from __future__ import annotations

import select
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

import click

from supervisor_d.api.client import ANSWER_SECONDS, Exchange
from supervisor_d.api.wire import MAX_WAIT_SECONDS, OperateRequest, Outcome, PoolChange
from supervisor_d.cli.output import note, say, say_json
from supervisor_d.cli.render import Cell, Column, painted, state_cell, table
from supervisor_d.cli.settings import Settings
from supervisor_d.cli.values import seconds_of
from supervisor_d.errors import OutcomeError, OutcomeTimeoutError, RequestError, UnavailableError
from supervisor_d.logs.line import printable

_F = TypeVar("_F", bound=Callable[..., Any])


def with_waiting(command: _F) -> _F:
    """Add the options of a command that waits for an outcome."""
    options = (
        click.option("--no-wait", is_flag=True, help="Return at once; the daemon goes on with it."),
        click.option("--timeout", metavar="DURATION", help="Wait at most so long, then exit with 124: 30s, 5m."),
        click.option("--progress/--no-progress", default=None, help="Show what happens meanwhile. [on a terminal]"),
    )
    for option in reversed(options):
        command = option(command)
    return command


def wait_seconds(*, no_wait: bool, timeout: str | None) -> float:
    """How long to wait for the outcome.  Raises RequestError."""
    if no_wait and timeout:
        raise RequestError("cannot use --no-wait with --timeout: either wait, or don't")
    if no_wait:
        return 0.0
    seconds = seconds_of("--timeout", timeout) if timeout else MAX_WAIT_SECONDS
    if not 0 < seconds <= MAX_WAIT_SECONDS:
        raise RequestError(f"cannot wait {timeout}: more than nothing and at most a day can be waited")
    return seconds


def pools_asked(pools: tuple[str, ...], *, everything: bool, command: str) -> tuple[str, ...]:
    """The pools that a command names; empty for all of them.  Raises RequestError."""
    if everything == bool(pools):
        raise RequestError(f"cannot {command}: name pools, or say --all", hint=f"supervisor-d {command} --all")
    return pools


def operate(
    settings: Settings, route: str, requests: Sequence[OperateRequest], *, progress: bool | None
) -> tuple[Outcome, ...]:
    """Ask for operations, all at once, and wait for their outcomes.  Raises what the daemon refuses with."""
    import msgspec

    client = settings.client()
    seconds = max(request.wait_seconds for request in requests)
    names = tuple(name for request in requests for name in request.pools)
    shown = sys.stderr.isatty() and not settings.json if progress is None else progress
    with ExitStack() as stack:
        journal = None
        if shown and seconds > 0:
            query = (("follow", "1"), ("lines", "0"))
            journal = stack.enter_context(client.begin("GET", "/v1/events", query=query))
        asked = [stack.enter_context(client.begin_post(route, request)) for request in requests]
        _await(asked, journal, names, seconds, colour=settings.colour)
        return tuple(msgspec.json.decode(exchange.body(0), type=Outcome) for exchange in asked)


def _await(
    asked: list[Exchange], journal: Exchange | None, pools: tuple[str, ...], seconds: float, *, colour: bool
) -> None:
    """Until all the answers are whole, showing what is journalled meanwhile."""
    deadline = time.monotonic() + seconds + ANSWER_SECONDS
    pending = list(asked)
    while pending:
        sources = [*pending, journal] if journal is not None else pending
        ready = select.select(sources, [], [], max(0.0, deadline - time.monotonic()))[0]
        if not ready:
            raise UnavailableError("cannot read the daemon's answer: none came in time")
        if journal is not None and journal in ready and not _show(journal, pools, colour=colour):
            journal = None
        pending = [exchange for exchange in pending if exchange not in ready or exchange.receive()]


def _show(journal: Exchange, pools: tuple[str, ...], *, colour: bool) -> bool:
    """Show what the journal tells of these pools; False when it tells no more."""
    from supervisor_d.cli.journal_text import decoded, entry_line

    more = journal.receive()
    for line in journal.lines():
        told = decoded(line)
        if not isinstance(told, int) and (not pools or told.pool in pools or not told.pool):
            note(entry_line(told, colour=colour))
    return more


def told(settings: Settings, outcomes: Sequence[Outcome]) -> int:
    """Tell outcomes, as one, and return its exit code."""
    outcome = merged(outcomes)
    if settings.json:
        say_json(outcome)
    else:
        say(*outcome_lines(outcome, width=settings.width, colour=settings.colour))
    return exit_code(outcome)


def merged(outcomes: Sequence[Outcome]) -> Outcome:
    """Several outcomes as one."""
    return Outcome(
        ok=all(outcome.ok for outcome in outcomes),
        message="; ".join(outcome.message for outcome in outcomes),
        changes=tuple(change for outcome in outcomes for change in outcome.changes),
        pools=tuple(pool for outcome in outcomes for pool in outcome.pools),
    )


def exit_code(outcome: Outcome) -> int:
    """0 when all went well; 124 when only patience ended; 1 when something failed."""
    if outcome.ok:
        return 0
    verdicts = {pool.verdict for pool in outcome.pools if not pool.ok}
    return OutcomeTimeoutError.exit_code if verdicts == {"timeout"} else OutcomeError.exit_code


def outcome_lines(outcome: Outcome, *, width: int | None, colour: bool) -> list[str]:
    """An outcome for people: what changed, how each pool came out, and one line for the whole."""
    lines = change_lines(outcome.changes, width=width, colour=colour)
    columns = (Column("POOL"), Column("OUTCOME"), Column("REASON", elastic=True))
    rows = [[Cell(pool.pool), state_cell(pool.verdict), Cell(pool.reason)] for pool in outcome.pools]
    if rows:
        lines += ([""] if lines else []) + table(columns, rows, width=width, colour=colour)
    message = outcome.message if outcome.ok else f"{outcome.message}, but not everything went well"
    return [*lines, painted(printable(message, colour=False), "green" if outcome.ok else "red", on=colour)]


def change_lines(changes: tuple[PoolChange, ...], *, width: int | None, colour: bool) -> list[str]:
    """What a reload does to each pool; pools that it keeps are counted only."""
    columns = (Column("POOL"), Column("CHANGE"), Column("KEYS", rank=1), Column("DETAIL", elastic=True))
    touched = [change for change in changes if change.change != "keep"]
    rows = [[Cell(c.pool), state_cell(c.change), Cell(", ".join(c.keys)), Cell(c.detail)] for c in touched]
    kept = len(changes) - len(touched)
    lines = table(columns, rows, width=width, colour=colour) if rows else []
    return [*lines, painted(f"{kept} unchanged", "dim", on=colour)] if kept else lines
