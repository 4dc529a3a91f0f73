"""What /proc says of processes: the tests' ground truth, read without any help of the program under test."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Stat:
    """The fields of proc_pid_stat(5) that tests ask for."""

    pid: int
    name: str
    state: str
    parent: int
    group: int
    session: int
    start_ticks: int
    cpu_ticks: int


def stat(pid: int) -> Stat | None:
    """The stat of a process; None when there is none with that pid."""
    try:
        head, _, tail = (PROC / str(pid) / "stat").read_text().rpartition(")")
    except OSError:
        return None
    fields = tail.split()
    return Stat(
        pid=pid,
        name=head.partition("(")[2],
        state=fields[0],
        parent=int(fields[1]),
        group=int(fields[2]),
        session=int(fields[3]),
        start_ticks=int(fields[19]),
        cpu_ticks=int(fields[11]) + int(fields[12]),
    )


def alive(pid: int) -> bool:
    """Whether the process exists and has not ended (a zombie has)."""
    found = stat(pid)
    return found is not None and found.state not in "ZX"


def everyone() -> list[Stat]:
    """Every process of this machine, those that have ended left out."""
    pids = (int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit())
    return [found for pid in pids if (found := stat(pid)) is not None and found.state not in "ZX"]


def children(pid: int) -> list[int]:
    """The live children of a process, oldest first."""
    found = [process for process in everyone() if process.parent == pid]
    return [process.pid for process in sorted(found, key=lambda process: process.start_ticks)]


def below(pid: int) -> set[int]:
    """Every live process below `pid`, by parenthood."""
    parents = {process.pid: process.parent for process in everyone()}
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        parent = waiting.pop()
        new = {child for child, its_parent in parents.items() if its_parent == parent} - found
        found |= new
        waiting += new
    return found


def command_line(pid: int) -> str:
    """The command line with blanks between its words; empty when the process is gone."""
    try:
        return (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def environment(pid: int) -> dict[str, str]:
    """The environment that the process was started with."""
    text = (PROC / str(pid) / "environ").read_bytes().decode(errors="replace")
    return dict(entry.split("=", 1) for entry in text.split("\0") if "=" in entry)


def descriptors(pid: int) -> dict[int, str]:
    """The open descriptors and what each is."""
    found: dict[int, str] = {}
    for entry in (PROC / str(pid) / "fd").iterdir():
        with suppress(FileNotFoundError):
            found[int(entry.name)] = str(entry.readlink())
    return found


def status(pid: int) -> dict[str, str]:
    """The fields of proc_pid_status(5)."""
    lines = (PROC / str(pid) / "status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def limits(pid: int) -> dict[str, tuple[str, str]]:
    """The limits of a process: name -> (soft, hard)."""
    lines = (PROC / str(pid) / "limits").read_text().splitlines()[1:]
    return {(words := re.split(r"\s{2,}", line.strip()))[0]: (words[1], words[2]) for line in lines}


def describe(pid: int) -> str:
    """One line on a process, for people."""
    found = stat(pid)
    if found is None:
        return f"pid {pid}: gone"
    line = command_line(pid) or f"[{found.name}]"
    return f"pid {pid} ({found.state}, parent {found.parent}, session {found.session}): {line[:160]}"
