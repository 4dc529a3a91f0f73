"""Values with a grammar of their own: stop steps, addresses, modes, commands.  ValueError says what is wrong."""

from __future__ import annotations

import ipaddress
import re
import shlex
import signal

from supervisor_d.config.suggest import did_you_mean
from supervisor_d.core.spec import DRIVER_STEPS, StopStep
from supervisor_d.core.units import parse_duration
from supervisor_d.programs.addresses import parse_address

_NOT_FOR_STOPPING = frozenset({"STOP", "CONT", "CHLD", "CLD", "TSTP", "TTIN", "TTOU", "URG", "WINCH"})
SIGNALS = tuple(
    sorted(known.name.removeprefix("SIG") for known in signal.Signals if not known.name.startswith("SIGRT"))
)
"""The signals of this system, without SIG and without the real-time ones."""

MODE_PATTERN = "^0?[0-7]{3}$"
_SIG = re.compile(r"\ASIG", re.IGNORECASE)


def split_steps(text: str) -> list[str]:
    """`TERM 30s, KILL` as its steps."""
    return [step.strip() for step in text.split(",")]


def parse_step(text: str) -> StopStep:
    """One step of a stop list: `TERM 30s`, `DRAIN 2s` or `KILL`."""
    name, _, wait = text.strip().partition(" ")
    short = name.removeprefix("SIG")
    if not name:
        raise ValueError("has an empty step: write it like TERM 30s, KILL")
    if short not in SIGNALS and name not in DRIVER_STEPS:
        known = (*SIGNALS, *sorted(DRIVER_STEPS))
        raise ValueError(f"unknown signal {name}{did_you_mean(_SIG.sub('', name), known)}")
    if short in _NOT_FOR_STOPPING:
        raise ValueError(f"{short} does not end a process")
    if short == "KILL":
        if wait.strip():
            raise ValueError("KILL takes no time: it waits until nothing is left")
        return StopStep("KILL")
    if not wait.strip():
        raise ValueError(f"say how long {short} may take: {short} 30s")
    try:
        return StopStep(short, parse_duration(wait))
    except ValueError as error:
        raise ValueError(f"{short}: {error}") from None


def split_words(text: str) -> list[str]:
    """A command line as its words, split as a shell would; no shell runs it."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"cannot be split into words: {str(error).lower()}") from None
    if not words:
        raise ValueError("names no program")
    return words


def parse_mode(text: str) -> int:
    """A file mode in octal, `0660`."""
    if not re.fullmatch(MODE_PATTERN, text, re.ASCII):
        raise ValueError('is not a file mode: write three octal digits, quoted, like "0660"')
    return int(text, 8)


def check_address(text: str) -> str:
    """An address as it will be bound, `unix:` and a path (which may be relative) for a unix socket."""
    if text.startswith(("unix:", "/")):
        path = text.removeprefix("unix:")
        if not path or path.startswith("@"):
            raise ValueError("give a path, like unix:/run/shop/web.sock; other unix sockets are open to anyone")
        return f"unix:{path}"
    return str(parse_address(text))


def check_listen(text: str) -> str:
    """`host:port` on loopback: what is served there asks nobody for a password."""
    address = parse_address(text)
    if address.path or not _loopback(address.host):
        raise ValueError("must be a port on loopback, 127.0.0.1 or [::1]: whoever can connect may read it")
    return str(address)


def _loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def clash(one: str, other: str) -> bool:
    """Whether two addresses cannot both be bound: the same, or the same port with one of them on every interface."""
    first, second = parse_address(one), parse_address(other)
    if first.path or second.path or not first.port or first.port != second.port:
        return bool(first.path) and first.path == second.path
    hosts = {_every_name_for(first.host), _every_name_for(second.host)}
    return len(hosts) == 1 or "::" in hosts or ("0.0.0.0" in hosts and not any(":" in host for host in hosts))  # noqa: S104


def _every_name_for(host: str) -> str:
    return {"": "0.0.0.0", "localhost": "127.0.0.1"}.get(host, host)  # noqa: S104  a table, nothing is bound
