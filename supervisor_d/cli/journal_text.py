"""The journal for people: one line for an entry."""

from __future__ import annotations

from supervisor_d.cli.render import clock, painted
from supervisor_d.core.snapshot import Entry
from supervisor_d.logs.line import printable

_KIND_COLOURS = {"event": "", "action": "cyan", "operator": "magenta", "daemon": "blue"}
_BAD = ("main-exited", "spawn-failed", "shim-lost", "kill", "rolled-back")


def entry_line(entry: Entry, *, colour: bool) -> str:
    """`2031-05-01 12:00:00  web.0@g3.17  main-exited: exit code 1, by itself`."""
    shade = "yellow" if entry.name in _BAD else _KIND_COLOURS.get(entry.kind, "")
    when = painted(clock(entry.at), "dim", on=colour)
    name = painted(printable(entry.name, colour=False), shade, on=colour)
    reason = printable(entry.reason.replace("\n", " "), colour=False)
    return f"{when}  {printable(entry.subject, colour=False)}  {name}: {reason}"


def dropped_line(count: int, *, colour: bool) -> str:
    """Where the daemon was faster than we."""
    return painted(f"({count} entries are missing here: they came faster than they were read)", "yellow", on=colour)


def decoded(line: bytes) -> Entry | int:
    """A line of the stream: an entry, or how many were dropped."""
    import msgspec

    from supervisor_d.api.wire import Dropped

    if line.startswith(b'{"dropped":'):
        return msgspec.json.decode(line, type=Dropped).dropped
    return msgspec.json.decode(line, type=Entry)


def stream_line(line: bytes, *, colour: bool) -> str:
    """A line of the stream as text."""
    told = decoded(line)
    return dropped_line(told, colour=colour) if isinstance(told, int) else entry_line(told, colour=colour)
