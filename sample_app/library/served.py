"""Who answered: the gunicorn worker's pid, its master's, and the generation that both belong to.

supervisor-d gives each generation's master a name of its own (`--name web-g3`), which is how a process that it started
can tell.  Everything is said in the headers of every response too, so that `curl -i` shows a rollout as it happens.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from django.http import HttpRequest
from django.http.response import HttpResponseBase


@dataclass(frozen=True, slots=True)
class ServedBy:
    """One worker, as the pages show it."""

    pid: int
    master_pid: int
    name: str

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def me() -> ServedBy:
    """This very process.  Asked anew each time: a forked worker is not its master."""
    return ServedBy(os.getpid(), os.getppid(), master_name(sys.argv))


def master_name(argv: Sequence[str]) -> str:
    """The value of `--name`, e.g. `web-g3`; "no supervisor" where a person started the server."""
    for option, value in pairwise(argv):
        if option == "--name":
            return value
    return "no supervisor"


def served_by(request: HttpRequest) -> dict[str, ServedBy]:
    """For templates: `{{ served.pid }}`."""
    return {"served": me()}


class ServedByMiddleware:
    """Adds X-Served-Pid and X-Served-Generation to every response."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        served = me()
        response["X-Served-Pid"] = str(served.pid)
        response["X-Served-Generation"] = served.name
        return response
