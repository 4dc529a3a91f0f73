"""Which daemon is meant: `--socket`, else $SUPERVISOR_D_SOCKET, else the config's `runtime_dir`, else the default one.

Only `daemon: runtime_dir:` is wanted of the config.  Most files do not have it, or have it plainly, and then YAML is
not even imported: it would take a quarter of the time that a command has.
"""

# pathlib takes 5 ms of the 100 that a command has.
# ruff: noqa: PTH100, PTH112, PTH113, PTH118, PTH120, PTH123, PTH208
from __future__ import annotations

import os
import re
from collections.abc import Mapping

from supervisor_d.errors import NotPermittedError, RequestError

LOCAL_CONFIG = "supervisor-d.yaml"
SYSTEM_CONFIG = "/etc/supervisor-d/supervisor-d.yaml"
MAX_CONFIG_BYTES = 4 * 1024 * 1024

_BLOCK = re.compile(r"^daemon:[ \t]*(?:#.*)?\n((?:[ \t]+.*\n|[ \t]*(?:#.*)?\n)*)", re.MULTILINE)
_PLAIN = re.compile(
    r"""^([ ]+)runtime_dir:[ \t]+(["']?)([A-Za-z0-9_./ -]*[A-Za-z0-9_./-])\2[ \t]*(?:[ \t]#.*)?$""", re.MULTILINE
)


def find_config(given: str | None, environ: Mapping[str, str]) -> str | None:
    """The config's path: as given, as in the environment, here, or the system's; None when there is none."""
    named = given or environ.get("SUPERVISOR_D_CONFIG")
    if named:
        return named
    return next((path for path in (LOCAL_CONFIG, SYSTEM_CONFIG) if os.path.isfile(path)), None)


def find_socket(socket: str | None, config: str | None, environ: Mapping[str, str], uid: int) -> str:
    """The path of the control socket.  Raises RequestError for a config that was named and cannot be read."""
    named = socket or environ.get("SUPERVISOR_D_SOCKET")
    if named:
        return named
    path = find_config(config, environ)
    directory = _runtime_dir(path, named=path == config) if path else None
    if directory is None:
        directory = default_runtime_dir(environ, uid)
    return os.path.join(directory, "control", "control.sock")


def default_runtime_dir(environ: Mapping[str, str], uid: int) -> str:
    """Where a daemon of this user keeps its socket when its config does not say.

    Raises NotPermittedError when another user sits in the shared place in /tmp and would be spoken to in its stead.
    """
    if uid == 0:
        return "/run/supervisor-d"
    if environ.get("XDG_RUNTIME_DIR"):
        return os.path.join(environ["XDG_RUNTIME_DIR"], "supervisor-d")
    path = f"/tmp/supervisor-d-{uid}"  # noqa: S108  whose it is, is asked
    try:
        owner = os.lstat(path).st_uid
    except OSError:
        return path
    if owner != uid:
        raise NotPermittedError(f"cannot trust {path}: it belongs to uid {owner}")
    return path


def _runtime_dir(path: str, *, named: bool) -> str | None:
    try:
        for file in _files(path):
            with open(file, encoding="utf-8", errors="replace") as text:
                found = runtime_dir_in(text.read(MAX_CONFIG_BYTES))
            if found:
                return os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(file)), found))
    except OSError as error:
        if named:
            raise RequestError(f"cannot read the config {path}: {error.strerror}") from error
    return None


def _files(path: str) -> list[str]:
    """A file, or the config files of a directory."""
    if not os.path.isdir(path):
        return [path]
    return [os.path.join(path, name) for name in sorted(os.listdir(path)) if name.endswith((".yaml", ".yml"))]


def runtime_dir_in(text: str) -> str | None:
    """The value of `daemon: runtime_dir:` in a config's text, None when it has none."""
    if "runtime_dir" not in text:
        return None
    block = _BLOCK.search(text + "\n")
    plain = _PLAIN.findall(block[1]) if block else []
    if len(plain) == 1 and text.count("runtime_dir") == 1:
        return str(plain[0][2])
    return _by_yaml(text)


def _by_yaml(text: str) -> str | None:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        value = yaml.load(text, Loader=loader)  # noqa: S506  the safe loader, in C where there is one
    except (yaml.YAMLError, RecursionError):
        return None  # whoever loads it for real tells what is wrong with it
    daemon = value.get("daemon") if isinstance(value, dict) else None
    found = daemon.get("runtime_dir") if isinstance(daemon, dict) else None
    return found if isinstance(found, str) else None
