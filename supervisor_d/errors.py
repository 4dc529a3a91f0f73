"""The tree of errors that an operator may meet, each class with its exit code.

Text reads "cannot X: reason"; `hint` says the way out.  Codes follow sysexits(3) where it has one, so that
scripts and systemd (`RestartPreventExitStatus=78 75`) can tell the classes apart.
"""

from __future__ import annotations

from dataclasses import dataclass


class SupervisorError(Exception):
    """Base of every designed error: one line of text, an optional hint, an exit code."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a config file: where it stands, what is wrong, how it is mended."""

    path: str
    line: int
    column: int
    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}: {self.key}: {self.message}"


class ConfigError(SupervisorError):
    """The config cannot be accepted; carries every problem found, each with its place (exit 78, EX_CONFIG)."""

    exit_code = 78

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class PrepareError(SupervisorError):
    """The config is right, the machine refuses: a port is taken, a user is missing (exit 73, EX_CANTCREAT)."""

    exit_code = 73


class OutcomeError(SupervisorError):
    """What was asked was tried and did not succeed: a rollout that was rolled back (exit 1)."""

    exit_code = 1


class OutcomeTimeoutError(SupervisorError):
    """What was asked goes on, but the caller's patience ended first (exit 124, as timeout(1))."""

    exit_code = 124


class UnknownNameError(SupervisorError):
    """No pool, slot or route has that name (exit 66, EX_NOINPUT)."""

    exit_code = 66


class RequestError(SupervisorError):
    """What was asked makes no sense as asked: a wrong option, argument or request body (exit 64, EX_USAGE)."""

    exit_code = 64


class UnavailableError(SupervisorError):
    """No daemon answers at the socket (exit 69, EX_UNAVAILABLE)."""

    exit_code = 69


class AlreadyRunningError(SupervisorError):
    """Another daemon holds the runtime directory (exit 75, EX_TEMPFAIL)."""

    exit_code = 75


class NotPermittedError(SupervisorError):
    """The caller's user may not do that (exit 77, EX_NOPERM)."""

    exit_code = 77


class InternalError(SupervisorError):
    """A bug of ours: the daemon ends, its processes live on (exit 70, EX_SOFTWARE)."""

    exit_code = 70
