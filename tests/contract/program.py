"""A program that behaves as it is told: `program.py <behaviour as JSON> <file to make when in place>`."""

from __future__ import annotations

import json
import os
import signal
import sys

IGNORED = ("TERM", "QUIT", "USR1")


def hide() -> None:
    """Start a process that nobody would find: another session, no parent, no environment, deaf to TERM."""
    if os.fork():
        os.wait()
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    for name in (*IGNORED, "HUP", "INT"):
        signal.signal(getattr(signal, f"SIG{name}"), signal.SIG_IGN)
    os.execve("/bin/sleep", ["sleep", "1000"], {})


def end(code: int | None, number: int | None) -> None:
    """End with a code or by a signal."""
    if number is not None:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(code or 0)


def echo() -> None:
    """Say what the daemon says."""
    fd = int(os.environ["SUPERVISOR_D_AGENT_FD"])
    os.write(fd, os.read(fd, 8192))


def main() -> None:
    """Behave."""
    behaviour = json.loads(sys.argv[1])
    for name in IGNORED:
        signal.signal(getattr(signal, f"SIG{name}"), signal.SIG_IGN)
    for name in behaviour["obeys"]:
        signal.signal(getattr(signal, f"SIG{name}"), lambda *_: os._exit(0))
    for _ in range(behaviour["leaves"]):
        hide()
    with open(sys.argv[2], "w", encoding="ascii"):
        pass
    if behaviour["ends"]:
        end(behaviour["ends"]["code"], behaviour["ends"]["signal"])
    while behaviour["echoes"]:
        echo()
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
