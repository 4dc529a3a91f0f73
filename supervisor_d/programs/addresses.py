"""Where a pool listens and what a probe asks: addresses as people write them, parsed without any I/O.

127.0.0.1:8000   [::1]:8000   localhost:8000   :8000 (every IPv4 address)   unix:/run/shop.sock
"""

from __future__ import annotations

from dataclasses import dataclass

UNIX_PATH_MAX_BYTES = 107
"""sun_path of unix(7) holds 108 bytes, the last of them NUL."""

ANY_HOSTS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  a table of what they are reached by
"""Hosts that mean "every address", and where a probe on this machine reaches them."""


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP address (host and port) or, when `path` is set, a unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def reachable(self) -> Address:
        """Where a client on this machine finds it: the loopback for an address that means all of them."""
        return self if self.path else Address(ANY_HOSTS.get(self.host, self.host), self.port)


@dataclass(frozen=True, slots=True)
class HttpTarget:
    """What an http probe asks: `target` of whoever listens at `address`, named `host` in the Host header."""

    address: Address
    host: str
    target: str


CANARY_SOCKET = "canary.sock"


def private_socket(private_dir: str) -> Address:
    """Where a canary listens, in its own directory: nobody but the daemon asks there."""
    return Address(path=f"{private_dir}/{CANARY_SOCKET}")


def parse_address(text: str) -> Address:
    """The address that `text` names.  Raises ValueError, its text fit for an operator."""
    if text.startswith(("unix:", "/")):
        return _unix(text.removeprefix("unix:"))
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ValueError(f"{text!r} is not an address: write it like 127.0.0.1:8000, [::1]:8000 or unix:/run/app.sock")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{text!r} has an IPv6 address without brackets: write it like [::1]:8000")
    return Address("" if host == "*" else host, int(port))


def parse_http_target(target: str, listener: Address | None) -> HttpTarget:
    """What an http probe with this `target` asks: a path is asked of the pool's first listener.

    Raises ValueError, its text fit for an operator.
    """
    if any(char.isspace() or not char.isprintable() for char in target) or not target.isascii():
        raise ValueError(f"{target!r} holds blanks or characters that a URL cannot have")
    if target.startswith("/"):
        if listener is None:
            raise ValueError(f"{target!r} is a path, but the pool listens nowhere: give a URL")
        address = listener.reachable
        return HttpTarget(address, "localhost" if address.path else str(address), target)
    if not target.startswith("http://"):
        raise ValueError(f"{target!r} is neither a path like /healthz nor a URL like http://127.0.0.1:8000/healthz")
    host, path = _split_authority(target.removeprefix("http://"))
    if not host or "@" in host:
        raise ValueError(f"{target!r} names no host to ask")
    has_port = ":" in host.rpartition("]")[2]
    return HttpTarget(parse_address(host if has_port else f"{host}:80"), host, path)


def _split_authority(rest: str) -> tuple[str, str]:
    """Host and port of a URL, and what is asked of them: `/` at least, without the fragment."""
    rest = rest.partition("#")[0]
    end = min((rest.index(mark) for mark in "/?" if mark in rest), default=len(rest))
    return rest[:end], rest[end:] if rest[end:].startswith("/") else f"/{rest[end:]}"


def _unix(path: str) -> Address:
    if not path.startswith("/"):
        raise ValueError(f"unix:{path} is not an absolute path: write it like unix:/run/app.sock")
    if len(path.encode()) > UNIX_PATH_MAX_BYTES or "\0" in path:
        raise ValueError(f"unix:{path} is too long for a socket: {UNIX_PATH_MAX_BYTES} bytes at most")
    return Address(path=path)
