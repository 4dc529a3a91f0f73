"""Where a config says that its daemon lives, also when the rest of it makes no sense.

A daemon that starts must find what a former one left running before it judges the file: a file that somebody broke
meanwhile stops no adoption.  So `daemon:`'s three directories are read leniently: by their plain lines where these are
unmistakable (and then YAML is not even imported), else from what YAML can read in front of the first error.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from supervisor_d.config.directories import Directories, default_directories

KEYS = ("runtime_dir", "state_dir", "log_dir")
MAX_CONFIG_BYTES = 4 * 1024 * 1024
MAX_FILES = 200

_BLOCK = re.compile(r"^daemon:[ \t]*(?:#.*)?\n((?:[ \t]+.*\n|[ \t]*(?:#.*)?\n)*)", re.MULTILINE)
_PLAIN = re.compile(
    r"""^[ ]+(runtime_dir|state_dir|log_dir):[ \t]+(["']?)([A-Za-z0-9_./ -]*[A-Za-z0-9_./-])\2[ \t]*(?:[ \t]#.*)?$""",
    re.MULTILINE,
)


def whereabouts(path: str | Path, *, environ: Mapping[str, str], euid: int) -> Directories:
    """The daemon's directories as a config names them, the default ones where it does not or cannot be read."""
    named: dict[str, Path] = {}
    for file, text in _texts(Path(path)):
        for key, value in named_in(text).items():
            named.setdefault(key, Path(os.path.normpath(file.absolute().parent / value)))
    default = default_directories(environ, euid)
    state_dir = named.get("state_dir", default.state_dir)
    log_dir = default.log_dir if euid == 0 else state_dir / "log"
    return Directories(named.get("runtime_dir", default.runtime_dir), state_dir, named.get("log_dir", log_dir))


def named_in(text: str) -> dict[str, str]:
    """The directories that a config's text names under `daemon:`, as far as can be told."""
    mentioned = [key for key in KEYS if key in text]
    block = _BLOCK.search(text + "\n")
    plain = [(str(key), str(value)) for key, _, value in _PLAIN.findall(block[1])] if block else []
    if all(text.count(key) == 1 for key in mentioned) and len(plain) == len(mentioned):
        return dict(plain)
    found = _by_yaml(text)
    for key, value in plain:
        found.setdefault(key, value)
    return found


def _texts(path: Path) -> Iterator[tuple[Path, str]]:
    try:
        files = sorted(f for f in path.iterdir() if f.suffix in (".yaml", ".yml")) if path.is_dir() else [path]
    except OSError:
        return
    for file in files[:MAX_FILES]:
        try:
            with file.open(encoding="utf-8-sig", errors="replace") as opened:
                yield file, opened.read(MAX_CONFIG_BYTES)
        except OSError:
            continue


def _by_yaml(text: str) -> dict[str, str]:
    """From YAML's events up to the first error: the plain values of the mapping under the root's key `daemon`."""
    import yaml

    found: dict[str, str] = {}
    depth, key, section = 0, "", ""
    try:
        for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            if isinstance(event, yaml.ScalarEvent) and not key:
                key = event.value
                continue
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth == 2:
                    section = key if isinstance(event, yaml.MappingStartEvent) else ""
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            elif (
                isinstance(event, yaml.ScalarEvent)
                and depth == 2
                and section == "daemon"
                and key in KEYS
                and event.value
            ):
                found[key] = event.value
            key = ""
    except (yaml.YAMLError, RecursionError):
        pass
    return {key: value for key, value in found.items() if key in KEYS}
