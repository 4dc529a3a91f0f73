"""`supervisor-d`: one module for each command, imported when it is asked for, and one place where errors end.

A command answers in about 100 ms.  So nothing heavy is imported here or at the top of a command's module: no aiohttp,
pydantic, YAML or rich; a test holds that.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from supervisor_d import __version__
from supervisor_d.cli.output import ReaderGoneError, note, say_error
from supervisor_d.cli.settings import Settings, with_globals
from supervisor_d.errors import InternalError, RequestError, SupervisorError

COMMANDS = (
    "run", "check", "diff", "reload", "status", "scale", "start", "stop", "restart", "deploy", "rollback", "logs",
    "events", "why", "upgrade", "install-unit", "schema",
)  # fmt: skip
"""In the order of the help; each is `command` in the module of its name."""
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141


class Commands(click.Group):
    """Finds a command's module by its name, in a fixed list."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"supervisor_d.cli.commands.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise RequestError(f"cannot {args[0]}: there is no such command", hint=_meant(args[0]))
        return super().resolve_command(ctx, args)


def _meant(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, COMMANDS, 1, 0.5)
    return f"did you mean `{near[0]}`?" if near else "`supervisor-d --help` lists them all"


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="supervisor-d", message="%(prog)s %(version)s")
@with_globals
def cli() -> None:
    """Keep a shop's processes running: gunicorn, Celery, beat and anything else, from one YAML file."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line.  Returns its exit code; docs/cli.md lists them."""
    args = list(sys.argv[1:] if argv is None else argv)
    settings = Settings(json="--json" in args)  # also for a line that cannot be read to its end
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        return _exit_code(cli.main(args, prog_name="supervisor-d", standalone_mode=False, obj=settings))
    except SupervisorError as error:
        say_error(error, json=settings.json)
        return error.exit_code
    except click.exceptions.Exit as asked:
        return asked.exit_code
    except click.ClickException as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # since click 8.2
            note(error.format_message())
            return RequestError.exit_code
        wrong = _usage(error)
        say_error(wrong, json=settings.json)
        return wrong.exit_code
    except (KeyboardInterrupt, click.Abort):
        return EXIT_INTERRUPTED
    except ReaderGoneError:
        _close_stdout()
        return EXIT_BROKEN_PIPE
    except Exception as error:  # noqa: BLE001  the last place: an operator never meets a traceback
        return _unexpected(error, settings)


def _exit_code(result: Any) -> int:
    """A command returns its exit code, or None for success."""
    return result if isinstance(result, int) else 0


def _usage(error: click.ClickException) -> RequestError:
    """Click's words about a wrong command line, in ours."""
    context = getattr(error, "ctx", None)
    name = context.command_path if context is not None else "supervisor-d"
    text = error.format_message().rstrip(".")
    return RequestError(f"cannot run {name}: {text[:1].lower()}{text[1:]}", hint=f"see `{name} --help`")


def _unexpected(error: Exception, settings: Settings) -> int:
    """One line for a bug of ours; the traceback goes into a file, or is shown with --debug."""
    import traceback

    text = "".join(traceback.format_exception(error))
    if settings.debug:
        note(text)
    what = f"cannot go on: unexpected {type(error).__name__}: {str(error)[:200]}"
    say_error(InternalError(what, hint=_kept(text)), json=settings.json)
    return InternalError.exit_code


def _kept(text: str) -> str:
    import tempfile

    try:
        fd, path = tempfile.mkstemp(prefix="supervisor-d-", suffix=".traceback")
        with os.fdopen(fd, "w") as file:
            file.write(text)
    except OSError:
        return "run it again with --debug to see the traceback"
    return f"the traceback is in {path}; --debug shows it"


def _close_stdout() -> None:
    """The reader is gone: let the interpreter's last flush go nowhere."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)
