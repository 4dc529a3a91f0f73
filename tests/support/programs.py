"""Small programs that the tests let a daemon run, and the notes that they take of what happens to them.

A note is one line, `<name> <word> <pid> <monotonic seconds>`, appended by one write(2) to a file that all share:
CLOCK_MONOTONIC is the same clock in every process, so that notes of different processes can be compared.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.waiting import wait_for

_NOTING = """
import os, signal, socket, sys, time
_file = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
name = sys.argv[2]
def note(word):
    os.write(_file, f"{name} {word} {os.getpid()} {time.monotonic()}\\n".encode())
def ready():
    note("ready")
    if "NOTIFY_SOCKET" in os.environ:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
"""

_POLITE = """
def term(*_):
    note("term")
    time.sleep(float(sys.argv[3]))
    note("end")
    os._exit(0)
signal.signal(signal.SIGTERM, term)
ready()
while True:
    signal.pause()
"""

# The child has a session of its own and no parent but whoever takes orphans in.
_STUBBORN = """
signal.signal(signal.SIGTERM, lambda *_: note("term"))
signal.signal(signal.SIGHUP, lambda *_: note("hup"))
if os.fork() == 0:
    os.setsid()
    if os.fork() != 0:
        os._exit(0)
    name += "-child"
    note("ready")
else:
    os.wait()
    ready()
while True:
    signal.pause()
"""

_ONCE = """
note("start")
if len(sys.argv) > 4:
    while not os.path.exists(sys.argv[4]):
        time.sleep(0.005)
note("end")
sys.exit(int(sys.argv[3]))
"""


@dataclass(frozen=True, slots=True)
class Note:
    """One line that a program wrote."""

    name: str
    word: str
    pid: int
    at: float


class Notes:
    """The notes of all programs of a test, and the commands that take them."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def polite(self, name: str, seconds: float = 0.0) -> list[str]:
        """Notes `ready`, `term`, and after some time `end`; tells $NOTIFY_SOCKET that it is ready."""
        return self._command(_POLITE, name, str(seconds))

    def stubborn(self, name: str) -> list[str]:
        """Ignores TERM (but notes it), and has a child `<name>-child` that escaped into a session of its own."""
        return self._command(_STUBBORN, name)

    def once(self, name: str, code: int = 0, *, gate: Path | None = None) -> list[str]:
        """Notes `start`, waits for the file `gate`, notes `end` and exits with `code`."""
        return self._command(_ONCE, name, str(code), *([str(gate)] if gate else []))

    def _command(self, script: str, *args: str) -> list[str]:
        return [sys.executable, "-I", "-S", "-c", _NOTING + script, str(self.path), *args]

    def all(self) -> list[Note]:
        """Every note so far, in the order of writing."""
        if not self.path.exists():
            return []
        lines = [line.split() for line in self.path.read_text().splitlines()]
        return [Note(name, word, int(pid), float(at)) for name, word, pid, at in lines]

    def of(self, name: str, word: str) -> list[Note]:
        """The notes of one program with one word."""
        return [note for note in self.all() if (note.name, note.word) == (name, word)]

    def wait(self, name: str, word: str, count: int = 1, seconds: float = 20.0) -> Note:
        """The `count`th such note, once it is there."""
        found = wait_for(lambda: self.of(name, word)[count - 1 :], seconds, f"note {count} {word!r} of {name}")
        return found[0]
