"""One pool: from its keys in YAML to a PoolSpec, with everything looked up and every problem told."""

from __future__ import annotations

import dataclasses
import os
import re
import typing
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path, PurePath
from typing import Any

from supervisor_d.config.digest import pool_digest
from supervisor_d.config.environment import environment
from supervisor_d.config.keys import CommonKeys
from supervisor_d.config.machine import CLEAN_PATH, Machine
from supervisor_d.config.nodes import plain
from supervisor_d.config.policies import limits, log_policy, restart_policy, rollout_policy, stop_list
from supervisor_d.config.problems import Problems, check
from supervisor_d.config.schema import build, hints_of, model_of, pool_model
from supervisor_d.config.site import Site, directory_of
from supervisor_d.config.sockets import listeners, probes
from supervisor_d.config.sources import Source
from supervisor_d.core.spec import PoolSpec
from supervisor_d.core.units import PathName
from supervisor_d.packages import installed_version

POOL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,47}", re.ASCII)
"""No dot: `web.0` is a slot.  Short: a unix socket's path (107 bytes) has to hold it."""
RESERVED_NAMES = frozenset({"daemon"})

_ROOT = ("root", "0")


class PoolReader:
    """Makes the spec of one pool."""

    def __init__(
        self, source: Source, machine: Machine, problems: Problems, warnings: Problems | None, *, allow_root: bool
    ) -> None:
        """`warnings` takes what works and had better be otherwise; None when nobody asks for it."""
        self._source = source
        self._site = Site(source.spot, problems)
        self._program = source.program
        self._machine = machine
        self._warnings = warnings
        self._allow_root = allow_root

    def read(self) -> PoolSpec | None:
        """The spec, with every problem taken; one that has problems is good for finding more, and for nothing else."""
        spot, problems = self._site.spot, self._site.problems
        data, known = plain(spot.node), len(problems)
        whole, common = pool_model(self._program), model_of(CommonKeys)
        model = check(whole, data, spot, problems, self._source.elsewhere, fallback=common)
        if model is None:
            return None
        own = build(self._program.keys_type, model) if isinstance(model, whole) else None
        spec = self._spec(build(CommonKeys, model), own, data)
        if len(problems) == known:
            for key, message in self._program.problems(spec).items():
                self._site.problem(message, key)
        if len(problems) == known and self._warnings is not None:
            advised = Site(spot, self._warnings)
            for key, message in self._program.warnings(spec, partial(installed_version, spec.python)):
                advised.problem(message, key)
        return spec

    def _spec(self, keys: CommonKeys, own: Any, data: Mapping[str, Any]) -> PoolSpec:
        site, machine = self._site, self._machine
        cwd, python, env = self._cwd(keys), self._python(keys), environment(site, keys, machine)
        search_path = env.values.get("PATH") or _search_path(python)

        def find_program(words: tuple[str, ...]) -> tuple[str, ...]:
            if not words or not words[0]:
                raise ValueError("names no program")
            return (machine.find_program(words[0], cwd, search_path), *words[1:])

        own = self._looked_up(own, find_program) if own is not None else None
        bound = listeners(site, keys, machine)
        user, group = self._account(keys)
        return PoolSpec(
            name=self._source.name,
            program=self._program.name,
            workers=self._program.default_workers if keys.workers is None else keys.workers,
            keys=own,
            after=tuple(dict.fromkeys(keys.after)),
            stop=stop_list(site, keys, self._program, own),
            restart=restart_policy(site, keys.restart, self._program),
            rollout=rollout_policy(site, keys, self._program),
            ready=probes(site, keys, bound, find_program),
            start_timeout_seconds=keys.start_timeout,
            log=log_policy(site, keys.log),
            limits=limits(site, keys.limits, is_root=machine.is_root),
            listeners=bound,
            user=user,
            group=group,
            cwd=str(cwd),
            root=os.path.realpath(cwd),
            env=env.values,
            env_files=tuple(env.files),
            python=python,
            digest=pool_digest(data, env.digests, env.fetched, os.path.realpath(cwd)),
        )

    def _account(self, keys: CommonKeys) -> tuple[str, str]:
        """User and group, empty where they are the daemon's own."""
        user, group = keys.user or "", keys.group or ""
        with self._site.at("user"):
            user = self._user(user)
        with self._site.at("group"):
            group = self._group(group)
            if group and user in ("", *_ROOT) and self._machine.is_root:
                raise ValueError("a pool of root keeps root's group: give it a `user:` too")
        # Root that becomes root would change nothing, and could not be proven to have dropped anything.
        return ("", "") if user in _ROOT else (user, group)

    def _user(self, user: str) -> str:
        if not user:
            if self._machine.is_root and not self._allow_root and not self._site.is_given("user"):
                raise ValueError(
                    "missing: the daemon runs as root; say which user the pool runs as (`user: root` is possible), "
                    "here or under `defaults:`"
                )
            return ""
        uid = self._machine.check_user(user)
        if self._machine.is_root:
            return user
        if uid != self._machine.euid:
            own = self._machine.own_name()
            raise ValueError(f"the daemon runs as {own} and can become nobody else: drop the key, or run it as root")
        return ""

    def _group(self, group: str) -> str:
        if not group:
            return ""
        gid = self._machine.check_group(group)
        if self._machine.is_root:
            return group
        if gid != os.getegid():
            raise ValueError("only a daemon of root can change groups: drop the key, or run it as root")
        return ""

    def _cwd(self, keys: CommonKeys) -> Path:
        if keys.cwd is None:
            return directory_of(self._site.spot.node)
        cwd = self._site.path(keys.cwd, "cwd")
        with self._site.at("cwd"):
            self._machine.check_directory(cwd)
        return cwd

    def _python(self, keys: CommonKeys) -> str:
        """Absolute, but with its links: a virtual environment's Python is known by its place."""
        if keys.python is None:
            return ""
        python = self._site.path(keys.python, "python")
        with self._site.at("python"):
            self._machine.check_executable(python)
        return str(python)

    def _looked_up(self, own: Any, find_program: Callable[[tuple[str, ...]], tuple[str, ...]]) -> Any:
        """The program's own keys with absolute paths, and commands whose program was found."""
        changed: dict[str, Any] = {}
        for name, hint in hints_of(type(own)).items():
            value = getattr(own, name)
            if value and PathName() in typing.get_args(hint):
                changed[name] = str(self._site.path(value, name))
            elif set(typing.get_args(hint)) == {str, tuple[str, ...]}:
                with self._site.at(name):
                    changed[name] = find_program(value)
        return dataclasses.replace(own, **changed)


def _search_path(python: str) -> str:
    """PATH of a pool that sets none: its interpreter's directory first, as programs.common does it."""
    return f"{PurePath(python).parent}:{CLEAN_PATH}" if python else CLEAN_PATH
