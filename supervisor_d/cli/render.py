"""Text for people: tables that fit their terminal, times and sizes in few characters, colours where they say something.

Our own, since importing rich takes as long as the rest of a command together.  A column has a rank: when a table is
wider than the terminal, whole columns go, the highest rank first; then the elastic one is cut, with an ellipsis.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from supervisor_d.logs.line import printable

GAP = "  "
ELASTIC_MINIMUM = 24
_COLOURS = {"red": 31, "green": 32, "yellow": 33, "blue": 34, "magenta": 35, "cyan": 36, "dim": 2, "bold": 1}

STATE_COLOURS = {
    "running": "green", "ready": "green", "done": "green", "succeeded": "green", "keep": "dim",
    "starting": "cyan", "rolling": "cyan", "stopping": "cyan", "waiting": "cyan", "add": "green", "scale": "cyan",
    "degraded": "yellow", "backoff": "yellow", "killing": "yellow", "roll": "yellow", "update": "cyan",
    "timeout": "yellow", "failed": "red", "rolled-back": "red", "exited": "red", "remove": "red",
    "stopped": "dim",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cell:
    """Text and its colour."""

    text: str
    colour: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """A column's title, and how it gives way: rank 0 stays, `elastic` is cut, `right` aligns numbers."""

    title: str
    rank: int = 0
    right: bool = False
    elastic: bool = False


def painted(text: str, colour: str, *, on: bool) -> str:
    """Text in a colour."""
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if on and colour and text else text


def state_cell(word: str) -> Cell:
    """A state in its colour."""
    return Cell(word, STATE_COLOURS.get(word, ""))


def columns_of(text: str) -> int:
    """How many columns of a terminal the text takes."""
    if text.isascii():
        return len(text)
    import unicodedata

    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def cut(text: str, width: int) -> str:
    """Text in at most `width` columns; an ellipsis stands for what is left out."""
    if columns_of(text) <= width:
        return text
    while text and columns_of(text) > width - 1:
        text = text[:-1]
    return f"{text.rstrip()}…" if width > 0 else ""


def table(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], *, width: int | None, colour: bool) -> list[str]:
    """Lines of a table, its titles first.  `width` None: as wide as it is."""
    rows = [[Cell(printable(cell.text, colour=False), cell.colour) for cell in row] for row in rows]
    natural = [max((columns_of(row[i].text) for row in rows), default=0) for i in range(len(columns))]
    shown = [i for i in range(len(columns)) if natural[i]]
    widths = {i: max(natural[i], len(columns[i].title)) for i in shown}
    if width is not None:
        _fit(columns, widths, width)
    titles = [Cell(column.title, "bold") for column in columns]
    return [_line(columns, widths, row, colour=colour) for row in (titles, *rows)]


def _fit(columns: Sequence[Column], widths: dict[int, int], width: int) -> None:
    """Drop and shrink columns until the table fits."""

    def least() -> int:
        elastic = sum(min(w, ELASTIC_MINIMUM) if columns[i].elastic else w for i, w in widths.items())
        return elastic + len(GAP) * (len(widths) - 1)

    for index in sorted((i for i in widths if columns[i].rank), key=lambda i: -columns[i].rank):
        if least() <= width:
            break
        del widths[index]
    over = sum(widths.values()) + len(GAP) * (len(widths) - 1) - width
    for index in [i for i in widths if columns[i].elastic] + list(widths)[:1]:
        taken = max(0, min(over, widths[index] - 1))
        widths[index] -= taken
        over -= taken


def _line(columns: Sequence[Column], widths: dict[int, int], row: Sequence[Cell], *, colour: bool) -> str:
    parts = []
    for index, width in widths.items():
        text = cut(row[index].text, width)
        padding = " " * (width - columns_of(text))
        text = painted(text, row[index].colour, on=colour)
        parts.append(padding + text if columns[index].right else text + padding)
    return GAP.join(parts).rstrip()


def span(seconds: float) -> str:
    """A length of time in its two largest units: `45s`, `3m20s`, `2h5m`, `4d3h`."""
    whole = max(0, int(seconds))
    units = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
    parts: list[str] = []
    for name, size in units:
        count, whole = divmod(whole, size)
        if count or parts:
            parts.append(f"{count}{name}" if count else "")
    return "".join(parts[:2]) or "0s"


def cpu_time(seconds: float) -> str:
    """CPU time: to the tenth of a second below a minute."""
    return f"{seconds:.1f}s" if seconds < 60 else span(seconds)


def memory(size_bytes: int) -> str:
    """Bytes in at most four figures: `512K`, `23M`, `1.4G`."""
    for unit, size in (("T", 2**40), ("G", 2**30), ("M", 2**20), ("K", 2**10)):
        if size_bytes >= size:
            value = size_bytes / size
            return f"{value:.1f}{unit}" if value < 10 and unit in "TG" else f"{value:.0f}{unit}"
    return f"{size_bytes}B"


def clock(unix_seconds: float) -> str:
    """A local date and time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_seconds))
