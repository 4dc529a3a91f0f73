"""What a config is checked against besides itself: users, files and programs of this machine, the daemon's environment.

Everything here looks and changes nothing.  ValueError says what is amiss, for an operator; the caller knows the place.
A daemon of root believes only files that root alone can write: whoever can change the config commands root.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from supervisor_d.config.envfile import EnvFile, parse_env_file
from supervisor_d.config.suggest import did_you_mean

CLEAN_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""PATH of a process whose pool sets none, as in runtime.contexts."""
MAX_FILE_BYTES = 1024 * 1024


class Machine:
    """This machine, as seen by a daemon of user `euid` with the environment `environ`."""

    def __init__(self, environ: Mapping[str, str], euid: int | None = None) -> None:
        self.environ = environ
        self.euid = os.geteuid() if euid is None else euid
        self._env_files: dict[Path, bytes] = {}

    @property
    def is_root(self) -> bool:
        """Whether the daemon may become other users."""
        return self.euid == 0

    def own_name(self) -> str:
        """The daemon's user, by name where it has one."""
        try:
            return pwd.getpwuid(self.euid).pw_name
        except KeyError:
            return str(self.euid)

    def check_user(self, name: str) -> int:
        """The uid of a user, given by name or number."""
        try:
            return pwd.getpwuid(int(name)).pw_uid if name.isdecimal() else pwd.getpwnam(name).pw_uid
        except (KeyError, OverflowError, ValueError):
            hint = did_you_mean(name, (entry.pw_name for entry in pwd.getpwall()))
            raise ValueError(f"this machine has no user {name}{hint}") from None

    def check_group(self, name: str) -> int:
        """The gid of a group, given by name or number."""
        try:
            return grp.getgrgid(int(name)).gr_gid if name.isdecimal() else grp.getgrnam(name).gr_gid
        except (KeyError, OverflowError, ValueError):
            hint = did_you_mean(name, (entry.gr_name for entry in grp.getgrall()))
            raise ValueError(f"this machine has no group {name}{hint}") from None

    def check_directory(self, path: Path) -> None:
        """`path` must be a directory."""
        if not path.exists():
            raise ValueError(f"{path} does not exist")
        if not path.is_dir():
            raise ValueError(f"{path} is not a directory")

    def check_executable(self, path: Path) -> None:
        """`path` must be a file that can be run."""
        if not path.exists():
            raise ValueError(f"{path} does not exist")
        if not path.is_file() or not os.access(path, os.X_OK):
            raise ValueError(f"{path} is not an executable file")

    def find_program(self, name: str, cwd: Path, search_path: str) -> str:
        """The absolute path of a program: in `search_path`, or below `cwd` when the name has a slash."""
        if "/" in name:
            path = Path(os.path.normpath(cwd / name))
            self.check_executable(path)
            return str(path)
        found = shutil.which(name, path=search_path)
        if found is None:
            raise ValueError(f"the program {name} is not in the pool's PATH: give its whole path")
        return str(cwd / found)

    def env_file(self, path: Path, key: str) -> EnvFile:
        """The variables of a file; it is read once, however many pools name it."""
        if path not in self._env_files:
            self._env_files[path] = self.read(path)
        return parse_env_file(self._env_files[path], str(path), key)

    def read(self, path: Path) -> bytes:
        """The contents of a regular file that only those may have written whom the daemon can trust."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            with open(fd, "rb") as file:  # noqa: PTH123  the descriptor that is looked at is the one that is read
                found = os.fstat(fd)
                if not stat.S_ISREG(found.st_mode):
                    raise ValueError(f"{path} is not a regular file")
                self._check_trusted(path, found)
                return file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {(error.strerror or 'unknown error').lower()}") from None

    def _check_trusted(self, path: Path, found: os.stat_result) -> None:
        if not self.is_root:
            return
        _check_owner(path, found, is_directory=False)
        for parent in _directories_above(path):
            _check_owner(parent, parent.stat(), is_directory=True)


def _directories_above(path: Path) -> Iterator[Path]:
    """Every directory that leads to a file, by the name it was given and by its real one."""
    yield from dict.fromkeys((*path.absolute().parents, *path.resolve().parents))


def _check_owner(path: Path, found: os.stat_result, *, is_directory: bool) -> None:
    """Only root may write; in a sticky directory others may too, since they cannot replace what is root's."""
    sticky = is_directory and bool(found.st_mode & stat.S_ISVTX)
    others = found.st_mode & stat.S_IWOTH or (found.st_mode & stat.S_IWGRP and found.st_gid != 0)
    if found.st_uid != 0:
        raise ValueError(f"a daemon of root does not trust it: {path} belongs to uid {found.st_uid}: chown root {path}")
    if others and not sticky:
        raise ValueError(f"a daemon of root does not trust it: others may write {path}: chmod go-w {path}")
