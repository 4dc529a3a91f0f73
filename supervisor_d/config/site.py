"""A mapping of keys while it is read: its values' places, their paths, and where to tell what is wrong with them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from supervisor_d.config.nodes import Node, Spot
from supervisor_d.config.problems import Problems


def directory_of(node: Node) -> Path:
    """Where relative paths start: the directory of the file that a value stands in."""
    return Path(os.path.abspath(node.place.path)).parent  # noqa: PTH100  `..` goes by name, as in the shell


class Site:
    """The keys at one spot."""

    def __init__(self, spot: Spot, problems: Problems) -> None:
        self.spot = spot
        self.problems = problems

    @contextmanager
    def at(self, *path: str | int) -> Iterator[None]:
        """A ValueError raised inside is a problem with the value there."""
        try:
            yield
        except ValueError as error:
            self.problem(str(error), *path)

    def problem(self, message: str, *path: str | int) -> None:
        """A problem with the value at `path`, or with the whole mapping where the key is not given."""
        found = self.spot.find(path)
        if len(found.path) > len(self.spot.path):
            self.problems.at_value(found, message)
        else:
            self.problems.at_key(self.spot, message, str(path[0]))

    def key_problem(self, message: str, *path: str | int) -> None:
        """A problem with the key at `path` itself."""
        self.problems.at_key(self.spot.find(path), message)

    def is_given(self, *path: str | int) -> bool:
        """Whether the last key of `path` was written down."""
        found = self.spot.find(path)
        return len(found.path) > len(self.spot.path) and found.path[-1] == path[-1]

    def path(self, value: str, *path: str | int) -> Path:
        """The absolute path that `value`, which stands at `path`, means."""
        return Path(os.path.normpath(directory_of(self.spot.find(path).node) / value))
