"""`make run`: a copy of configs/sample.yaml for this machine, and then the daemon itself, by exec.

What differs between machines are ports and paths, and YAML has no search for a free port.  So the values that the head
of configs/sample.yaml names are replaced as text, nothing else is, and what runs is the daemon with that file: the
terminal, Ctrl-C and the exit code are the daemon's own.

    python sample_app/run.py                      everything in .run
    python sample_app/run.py --directory DIR      everything in DIR
    python sample_app/run.py --write-only         write the file, say its name, start nothing

SECRET_KEY, DEBUG, ALLOWED_HOSTS and DATABASE_URL are handed on where they are set (sample/settings.py): by name, the
values do not get into the file.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import re
import socket
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = ROOT / "configs" / "sample.yaml"
WEB_PORT, METRICS_PORT, REDIS_PORT = 8000, 8001, 6390
PORTS_TRIED = 100
HANDED_ON = ("SECRET_KEY", "DEBUG", "ALLOWED_HOSTS", "DATABASE_URL")
LONGEST_RUNTIME_DIR = 60
"""Characters: below it lie unix sockets, `private/<process>/gunicorn.ctl`, whose whole path has 107 at most."""
EX_TEMPFAIL, EX_UNAVAILABLE = 75, 69


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the shop listens, all on 127.0.0.1."""

    web: int
    metrics: int
    redis: int


def main() -> int:
    """Write the file and become the daemon; returns only what went wrong, or after --write-only."""
    parser = argparse.ArgumentParser(description="Run the sample shop under supervisor-d.")
    parser.add_argument("--directory", type=Path, default=ROOT / ".run", help="where its data goes (default: .run)")
    parser.add_argument("--write-only", action="store_true", help="write the config and print its path, start nothing")
    options = parser.parse_args()
    directory = options.directory.absolute()
    config, runtime_dir = directory / "sample.yaml", runtime_dir_of(directory)
    if holder := running_daemon(runtime_dir):
        print(f"cannot run: the shop runs already (pid {holder}), with {config}", file=sys.stderr)
        return EX_TEMPFAIL
    try:
        directory.mkdir(parents=True, exist_ok=True)
        ports = find_ports(kept_ports(config, runtime_dir))
        write(config, filled_in(TEMPLATE.read_text(), directory, runtime_dir, ports, os.environ))
    except OSError as error:
        print(f"cannot run: {error}", file=sys.stderr)
        return EX_UNAVAILABLE
    if not options.write_only:
        become_the_daemon(config)
    print(config)
    return 0


def become_the_daemon(config: Path) -> NoReturn:
    """Not a child: the daemon has this process's terminal, process group and exit code."""
    os.chdir(ROOT)
    os.execv(sys.executable, [sys.executable, "-m", "supervisor_d", "run", "-c", str(config)])


def runtime_dir_of(directory: Path) -> Path:
    """`daemon` in the directory, or a short path of its own where that is too long for unix sockets."""
    runtime_dir = directory / "daemon"
    if len(os.fsencode(runtime_dir)) <= LONGEST_RUNTIME_DIR:
        return runtime_dir
    mark = hashlib.sha256(os.fsencode(directory)).hexdigest()[:12]
    # The daemon refuses a directory of anybody else's there.
    return Path(f"/tmp/supervisor-d-sample-{os.geteuid()}-{mark}")


def running_daemon(runtime_dir: Path) -> str:
    """The pid of the daemon that holds the directory's lock, as text; empty when none does."""
    try:
        with (runtime_dir / "lock").open("rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return lock.read(32).decode(errors="replace").strip() or "unknown"
    except OSError:
        pass
    return ""


def kept_ports(config: Path, runtime_dir: Path) -> Collection[int]:
    """The ports of the last run, when its daemon died and left its processes: the next one adopts them.

    Those ports are in use, and rightly so.  A record older than the last boot speaks of no process.
    """
    try:
        booted = float(re.search(r"^btime (\d+)", Path("/proc/stat").read_text(), re.MULTILINE)[1])  # type: ignore[index]
        if any(record.stat().st_mtime > booted for record in (runtime_dir / "processes").iterdir()):
            return {int(port) for port in re.findall(r"127\.0\.0\.1:(\d+)", config.read_text())}
    except OSError:
        pass
    return ()


def find_ports(kept: Collection[int] = ()) -> Ports:
    """The usual ports, or the next ones that are free or `kept`.  Raises OSError when a hundred of them are taken."""
    web = next_port(WEB_PORT, kept)
    return Ports(web, next_port(max(METRICS_PORT, web + 1), kept), next_port(REDIS_PORT, kept))


def next_port(first: int, kept: Collection[int]) -> int:
    """The first port from `first` on that can be bound on loopback, or is in `kept`."""
    for port in range(first, first + PORTS_TRIED):
        if port in kept or is_free(port):
            return port
    raise OSError(f"no free port from {first} to {first + PORTS_TRIED - 1} on 127.0.0.1")


def is_free(port: int) -> bool:
    """Whether the daemon could bind the port.  It binds with SO_REUSEADDR too, so a past connection is no obstacle."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def filled_in(template: str, directory: Path, runtime_dir: Path, ports: Ports, environ: Mapping[str, str]) -> str:
    """The template with its values replaced inside their double quotes, and the environment handed on."""
    values = {
        "../.run/daemon": str(runtime_dir),
        "../.run": str(directory),
        "../sample_app": str(ROOT / "sample_app"),
        "../.venv/bin/python": sys.executable,
        f"127.0.0.1:{WEB_PORT}": f"127.0.0.1:{ports.web}",
        f"127.0.0.1:{METRICS_PORT}": f"127.0.0.1:{ports.metrics}",
        str(REDIS_PORT): str(ports.redis),
    }
    # Longest first, and each place once: a replacement is never itself replaced.
    pattern = re.compile("|".join(re.escape(value) for value in sorted(values, key=len, reverse=True)))

    def in_quotes(quoted: re.Match[str]) -> str:
        # A JSON string is a YAML string in double quotes, whatever a path may hold.
        return json.dumps(pattern.sub(lambda found: values[found[0]], quoted[1]), ensure_ascii=False)

    _, separator, body = template.partition("\nversion:")
    body = re.sub(r'"([^"\n]*)"', in_quotes, body)
    handed_on = "".join(f"    {name}: {{from_env: {name}}}\n" for name in HANDED_ON if name in environ)
    body = body.replace("    DJANGO_SETTINGS_MODULE:", f"{handed_on}    DJANGO_SETTINGS_MODULE:", 1)
    return f"# Written by sample_app/run.py from configs/sample.yaml, anew at each `make run`.{separator}{body}"


def write(path: Path, text: str) -> None:
    """Replace the file at once: a daemon that reloads meanwhile never sees half of it."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_text(text)
    new.replace(path)


if __name__ == "__main__":
    sys.exit(main())
