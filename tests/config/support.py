"""Configs written to a directory, loaded as if by a plain user's daemon."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path

from supervisor_d.config.loader import load, load_copy
from supervisor_d.core.config_spec import Config
from supervisor_d.core.spec import PoolSpec
from supervisor_d.errors import ConfigError, Problem

PLAIN_USER = 65534
HOME = {"HOME": "/home/shop"}


def load_text(
    directory: Path, text: str, *, environ: Mapping[str, str] = HOME, euid: int = PLAIN_USER, name: str = "shop.yaml"
) -> Config:
    """The config of a text, as if it stood in a file of `directory`."""
    path = str(directory / name)
    return load_copy(path, {path: textwrap.dedent(text)}, environ=environ, euid=euid)


def load_pool(directory: Path, keys: str, *, environ: Mapping[str, str] = HOME, euid: int = PLAIN_USER) -> PoolSpec:
    """The one pool `web` with these keys."""
    body = textwrap.indent(textwrap.dedent(keys), "    ")
    config = load_text(directory, f"version: 1\npools:\n  web:\n{body}\n", environ=environ, euid=euid)
    return config.pools["web"]


def problems_of(
    directory: Path, text: str, *, environ: Mapping[str, str] = HOME, euid: int = PLAIN_USER
) -> tuple[Problem, ...]:
    """What is wrong with a text."""
    try:
        load_text(directory, text, environ=environ, euid=euid)
    except ConfigError as error:
        return error.problems
    return ()


def load_file(path: Path, *, environ: Mapping[str, str] = HOME, euid: int = PLAIN_USER) -> Config:
    """A file or directory, from the disk."""
    return load(path, environ=environ, euid=euid)
