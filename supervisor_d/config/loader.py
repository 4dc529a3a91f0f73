"""From a file or a directory to a Config, or to every problem in it.

    texts -> documents (YAML with places) -> one mapping of pools -> a spec for each -> what they say of one another

Each stage goes on with what the one before could read, so that one run shows all that is wrong.  Files of a directory
(`*.yaml`, `*.yml`, in the order of their names) make one config: each says its `version`, one of them may have
`daemon:`, one `defaults:`, and each pool stands in one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from supervisor_d.config.daemon_section import daemon_spec, root_is_allowed
from supervisor_d.config.digest import config_digest
from supervisor_d.config.document import parse
from supervisor_d.config.files import read_texts
from supervisor_d.config.keys import DaemonKeys, FileKeys
from supervisor_d.config.links import check_addresses, check_after
from supervisor_d.config.machine import Machine
from supervisor_d.config.nodes import Mapping as MappingNode
from supervisor_d.config.nodes import Place, Spot, plain
from supervisor_d.config.pools import POOL_NAME, RESERVED_NAMES, PoolReader
from supervisor_d.config.problems import Problems, check
from supervisor_d.config.schema import build, file_model
from supervisor_d.config.site import Site
from supervisor_d.config.sources import ELSEWHERE, source_of
from supervisor_d.core.config_spec import Config, DaemonSpec
from supervisor_d.core.spec import PoolSpec
from supervisor_d.programs.base import Program
from supervisor_d.programs.registry import PROGRAMS

MAX_POOLS = 1000

Look = Callable[[Mapping[str, PoolSpec]], Iterable[tuple[str, str, str]]]
"""Finds what had better be otherwise: (pool, key, why)."""


def load(
    path: str | Path,
    *,
    environ: Mapping[str, str],
    euid: int | None = None,
    programs: Mapping[str, Program] = PROGRAMS,
    advise: bool = False,
    look: Look | None = None,
) -> Config:
    """The config in a file, or in the files of a directory.

    `environ` is what `from_env` and the default directories come from, `euid` the user that the daemon runs as (None:
    this process's).  With `advise` it has warnings as well; `look` finds more of them, in specs that have no problem.
    Raises ConfigError with every problem.
    """
    machine, problems = Machine(environ, euid), Problems()
    texts = read_texts(Path(path), machine, problems)
    return _Loader(str(path), texts, machine, problems, programs, Problems() if advise else None, look).load()


def load_copy(
    path: str | Path,
    texts: Mapping[str, str],
    *,
    environ: Mapping[str, str],
    euid: int | None = None,
    programs: Mapping[str, Program] = PROGRAMS,
) -> Config:
    """The config of `Config.texts`, kept from an earlier load of `path`, whatever the files hold now.

    Env files and directories are looked at as they are now.  Raises ConfigError with every problem.
    """
    return _Loader(str(path), dict(texts), Machine(environ, euid), Problems(), programs).load()


class _Loader:
    """One run over the texts, by the path that each was read from."""

    def __init__(
        self,
        path: str,
        texts: Mapping[str, str],
        machine: Machine,
        problems: Problems,
        programs: Mapping[str, Program],
        warnings: Problems | None = None,
        look: Look | None = None,
    ) -> None:
        self._path = path
        self._texts = texts
        self._machine = machine
        self._problems = problems
        self._programs = programs
        self._warnings = warnings
        self._look = look
        self._daemon = DaemonKeys()
        self._sections: dict[str, Spot] = {}
        self._pools: dict[str, Spot] = {}
        self._sources: dict[str, Spot] = {}
        """The pools with what they have from `defaults:`."""
        self._no_pools = Place(next(iter(texts), path))

    def load(self) -> Config:
        """The config.  Raises ConfigError."""
        for path, text in self._texts.items():
            self._take_file(path, text)
        if not self._pools and not self._problems:
            self._problems.take([self._no_pools.problem("pools", "there are no pools, and a config needs one")])
        daemon = daemon_spec(self._daemon, self._sections.get("daemon"), self._machine, self._problems)
        specs = self._pool_specs(daemon)
        self._problems.raise_any()
        self._look_at(specs)
        texts = {str(Path(path).absolute()): text for path, text in self._texts.items()}
        digest = config_digest(texts.values(), {name: spec.digest for name, spec in specs.items()})
        warnings = self._warnings.in_order() if self._warnings is not None else ()
        return Config(self._path, daemon, specs, digest, texts, warnings)

    # ------------------------------------------------------------------------------------------------- files

    def _take_file(self, path: str, text: str) -> None:
        document = parse(text, path)
        self._problems.take(document.problems)
        if document.root is None:
            return
        spot = Spot(document.root.place, document.root, ())
        if not isinstance(spot.node, MappingNode):
            self._problems.at_value(spot, "must be a mapping of keys and values, `version: 1` the first")
            return
        model = check(file_model(), plain(spot.node), spot, self._problems, ELSEWHERE)
        for name in ("daemon", "defaults"):
            self._take_section(name, spot)
        pools = spot.step("pools")
        if pools is not None and isinstance(pools.node, MappingNode):
            self._no_pools = pools.node.place
            for pool in pools.node.entries:
                self._take_pool(pool, pools)
        if model is not None and spot.step("daemon") is not None:
            keys: FileKeys = build(FileKeys, model)
            self._daemon = keys.daemon or self._daemon

    def _take_section(self, name: str, file: Spot) -> None:
        section = file.step(name)
        if section is None:
            return
        if name in self._sections:
            self._problems.at_key(section, f"stands twice: first in {_shown(self._sections[name].place)}")
        else:
            self._sections[name] = section

    def _take_pool(self, name: str, pools: Spot) -> None:
        spot = pools.find([name])
        if not POOL_NAME.fullmatch(name):
            self._problems.at_key(
                spot, "a pool's name has letters, digits, - and _, 48 at most, a letter or digit first"
            )
        elif name in RESERVED_NAMES:
            self._problems.at_key(spot, "is the name of the daemon itself: choose another")
        elif name in self._pools:
            self._problems.at_key(spot, f"stands twice: first in {_shown(self._pools[name].place)}")
        elif len(self._pools) >= MAX_POOLS:
            self._problems.at_key(spot, f"there are more than {MAX_POOLS} pools")
        else:
            self._pools[name] = spot

    # ------------------------------------------------------------------------------------------------- pools

    def _pool_specs(self, daemon: DaemonSpec) -> dict[str, PoolSpec]:
        specs: dict[str, PoolSpec] = {}
        sites: dict[str, Site] = {}
        allow_root = root_is_allowed(self._sections.get("daemon"))
        for name, spot in self._pools.items():
            source = source_of(name, spot, self._sections.get("defaults"), self._programs, self._problems)
            if source is None:
                continue
            sites[name] = Site(source.spot, self._problems)
            self._sources[name] = source.spot
            reader = PoolReader(source, self._machine, self._problems, self._warnings, allow_root=allow_root)
            spec = reader.read()
            if spec is not None:
                specs[name] = spec
        check_after(specs, sites, self._pools)
        check_addresses(specs, sites, daemon.metrics_listen)
        return specs

    def _look_at(self, specs: Mapping[str, PoolSpec]) -> None:
        """Warnings that are not found by reading, at the keys that they are about."""
        if self._warnings is None or self._look is None:
            return
        for name, key, why in self._look(specs):
            Site(self._sources[name], self._warnings).problem(why, key)


def _shown(place: Place) -> str:
    return f"{place.path}, line {place.line}"
