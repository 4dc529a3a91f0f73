"""A pool's variables: those of its env files, then its own, with the values that `from_env` fetches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from supervisor_d.config.envfile import NAME
from supervisor_d.config.keys import CommonKeys, FromEnv
from supervisor_d.config.machine import Machine
from supervisor_d.config.nodes import key_text
from supervisor_d.config.site import Site
from supervisor_d.programs.common import RESERVED_ENV


@dataclass(slots=True)
class Environment:
    """The variables, and what the digest must know of where they came from."""

    values: dict[str, str] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    fetched: dict[str, str] = field(default_factory=dict)


def environment(site: Site, keys: CommonKeys, machine: Machine) -> Environment:
    """A later file wins over an earlier one, `env` over all files.  No problem shows a value."""
    env = Environment()
    for index, name in enumerate(keys.env_files):
        with site.at("env_files", index):
            _add_file(env, site, name, index, machine)
    for name, value in (keys.env or {}).items():
        _check_name(site, name)
        if isinstance(value, FromEnv):
            _fetch(env, site, name, value.from_env, machine.environ)
        else:
            env.values[name] = value
    return env


def _add_file(env: Environment, site: Site, name: str, index: int, machine: Machine) -> None:
    path = site.path(name, "env_files", index)
    found = machine.env_file(path, key_text((*site.spot.path, "env_files")))
    site.problems.take(found.problems)
    env.values.update(found.values)
    env.files.append(str(path))
    env.digests.append(found.digest)


def _check_name(site: Site, name: str) -> None:
    if not NAME.fullmatch(name):
        site.key_problem("a variable's name has letters, digits and _ only, and no digit first", "env", name)
    elif name in RESERVED_ENV:
        site.key_problem("is set by supervisor-d for each process", "env", name)


def _fetch(env: Environment, site: Site, name: str, variable: str, environ: Mapping[str, str]) -> None:
    value = environ.get(variable)
    if value is None:
        site.problem(f"the environment has no variable {variable}", "env", name, "from_env")
    else:
        env.values[name] = env.fetched[name] = value
