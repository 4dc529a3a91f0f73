"""Where a pool listens, and what its processes are asked before they count as ready."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from supervisor_d.config.keys import BindKeys, CommonKeys, ReadyKeys
from supervisor_d.config.machine import Machine
from supervisor_d.config.site import Site
from supervisor_d.core.spec import Listener, Probe
from supervisor_d.programs.addresses import parse_address, parse_http_target

FindProgram = Callable[[tuple[str, ...]], tuple[str, ...]]
"""A command with its program as an absolute path; ValueError when there is none."""


def listeners(site: Site, keys: CommonKeys, machine: Machine) -> tuple[Listener, ...]:
    """The sockets of `bind`, unix paths made absolute."""
    found: list[Listener] = []
    for index, bind in enumerate(keys.bind):
        with site.at("bind", index, "address"):
            address = _absolute(bind.address, site, "bind", index, "address")
            _check_unix_keys(site, bind, machine, address, index)
            found.append(Listener(address, bind.backlog, bind.mode, bind.owner or "", bind.group or ""))
    return tuple(found)


def _absolute(address: str, site: Site, *path: str | int) -> str:
    if address.startswith("unix:"):
        address = f"unix:{site.path(address.removeprefix('unix:'), *path)}"
    return str(parse_address(address))


def _check_unix_keys(site: Site, bind: BindKeys, machine: Machine, address: str, index: int) -> None:
    for key in ("mode", "owner", "group"):
        if site.is_given("bind", index, key) and not address.startswith("unix:"):
            site.key_problem("is for unix sockets only", "bind", index, key)
    for key, name, look_up in (
        ("owner", bind.owner, machine.check_user),
        ("group", bind.group, machine.check_group),
    ):
        if name is not None:
            with site.at("bind", index, key):
                look_up(name)


def probes(site: Site, keys: CommonKeys, bound: tuple[Listener, ...], find_program: FindProgram) -> tuple[Probe, ...]:
    """The questions of `ready`."""
    found: list[Probe] = []
    for index, ready in enumerate(keys.ready):
        kinds = [kind for kind in ("http", "tcp", "exec", "notify") if getattr(ready, kind) is not None]
        if len(kinds) != 1:
            site.problem("needs exactly one of http, tcp, exec and notify", "ready", index)
            continue
        if ready.status is not None and kinds[0] != "http":
            site.key_problem("is for http only", "ready", index, "status")
        with site.at("ready", index, kinds[0]):
            found.append(_probe(site, ready, kinds[0], index, bound, find_program))
    return tuple(found)


def _probe(
    site: Site, ready: ReadyKeys, kind: Any, index: int, bound: tuple[Listener, ...], find_program: FindProgram
) -> Probe:
    target, argv = "", ready.exec or ()
    if kind == "http":
        target = ready.http or ""
        if bound or not site.is_given("bind"):
            parse_http_target(target, parse_address(bound[0].address) if bound else None)
    elif kind == "tcp":
        target = _absolute(ready.tcp or "", site, "ready", index, "tcp")
    elif kind == "exec":
        argv = find_program(argv)
    return Probe(kind, target, argv, ready.interval, ready.timeout, ready.status)
