"""docs/cli.md and docs/api.md say what there is: each command, option, exit code, route and level, and no other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import click
import pytest

from supervisor_d import errors
from supervisor_d.api.public import PublicServer
from supervisor_d.api.routes import ROUTES
from supervisor_d.api.wire import ErrorBody, LogLine, OperateRequest
from supervisor_d.cli.main import COMMANDS, EXIT_BROKEN_PIPE, EXIT_INTERRUPTED, cli
from supervisor_d.core.snapshot import Entry

DOCS = Path(__file__).parents[2] / "docs"
CLI, API = DOCS / "cli.md", DOCS / "api.md"
OPTION = re.compile(r"(?<![\w-])(--?[a-z][a-z-]*)")


def sections(path: Path) -> dict[str, tuple[int, str]]:
    """Title -> (line, text) of every `##` and `###`."""
    found: dict[str, tuple[int, str]] = {}
    title = ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if re.match(r"##+ ", line):
            title = line.lstrip("# ").strip("`")
            found[title] = (number, "")
        elif title:
            start, text = found[title]
            found[title] = (start, f"{text}{line}\n")
    return found


def first_cells(text: str) -> Iterator[str]:
    """The first cell of each row of the tables in a text."""
    for line in text.splitlines():
        if line.startswith("| "):
            yield line.split("|")[1]


def options_of(command: click.Command) -> set[str]:
    return {
        name
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for name in (*parameter.opts, *parameter.secondary_opts)
    }


def command(name: str) -> click.Command:
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    return found


GLOBAL = options_of(cli) - {"--version"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_its_options_are_told(name: str) -> None:
    found = sections(CLI)
    assert name in found, f"{CLI}: no section `### `{name}``"
    line, text = found[name]
    told = {option for cell in first_cells(text) for option in OPTION.findall(cell)}
    own = options_of(command(name)) - GLOBAL
    assert told == own, f"{CLI}:{line}: `{name}` has {sorted(own)}, the section tells {sorted(told)}"


def test_no_other_command_is_told() -> None:
    lines = CLI.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        if line.startswith("### `"):
            assert line[5:-1] in COMMANDS, f"{CLI}:{number}: there is no command {line[5:-1]}"


def test_options_of_every_command_are_told() -> None:
    line, text = sections(CLI)["Options of every command"]
    told = {option for cell in first_cells(text) for option in OPTION.findall(cell)}
    assert told == GLOBAL | {"-h", "--help"}, f"{CLI}:{line}"
    assert "--version" in text, f"{CLI}:{line}"


def test_every_option_has_a_text() -> None:
    for name in COMMANDS:
        for parameter in command(name).params:
            assert not isinstance(parameter, click.Option) or parameter.help, f"{name} {parameter.opts}"


def test_every_exit_code_is_told_and_no_other() -> None:
    line, text = sections(CLI)["Exit codes"]
    told = {int(cell) for cell in first_cells(text) if cell.strip().isdigit()}
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    designed = {value.exit_code for value in classes if issubclass(value, errors.SupervisorError)}
    assert told == designed | {0, EXIT_INTERRUPTED, EXIT_BROKEN_PIPE}, f"{CLI}:{line}"


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_every_route_is_told_with_its_level(route: object) -> None:
    from supervisor_d.api.routes import Route

    assert isinstance(route, Route)
    title = f"{route.method} {route.path}"
    found = sections(API)
    assert title in found, f"{API}: no section `### `{title}``"
    line, text = found[title]
    assert text.strip().startswith(f"Level {route.level}."), f"{API}:{line}: {title} has the level {route.level}"


def test_no_other_route_is_told() -> None:
    known = {f"{route.method} {route.path}" for route in ROUTES}
    for number, line in enumerate(API.read_text(encoding="utf-8").splitlines(), 1):
        for title in re.findall(r"`((?:GET|POST) /v1/[^`]*)`", line):
            assert title in known, f"{API}:{number}: there is no route {title}"


@pytest.mark.parametrize("kind", [OperateRequest, ErrorBody, Entry, LogLine])
def test_the_keys_of_the_wire_are_told(kind: type) -> None:
    text = API.read_text(encoding="utf-8")
    for field in fields(kind):
        assert f"`{field.name}`" in text, f"{API}: `{field.name}` of {kind.__name__} is missing"


@pytest.mark.parametrize("route", ["events", "logs"])
def test_the_parameters_of_streams_are_told(route: str) -> None:
    import inspect

    from supervisor_d.api import handlers

    source = inspect.getsource(getattr(handlers, route))
    known = set(re.findall(r'"(\w+)"', re.search(r"known_only\(query, \(([^)]*)\)", source)[1]))  # type: ignore[index]
    line, text = sections(API)[f"GET /v1/{route}"]
    told = {name for cell in first_cells(text) for name in re.findall(r"`(\w+)`", cell)}
    assert told == known, f"{API}:{line}"


def test_the_public_routes_are_told() -> None:
    import inspect

    paths = set(re.findall(r'add_get\("([^"]+)"', inspect.getsource(PublicServer)))
    line, text = sections(API)["On loopback TCP"]
    assert {cell.strip(" `").removeprefix("GET ") for cell in first_cells(text) if "GET" in cell} == paths, (
        f"{API}:{line}"
    )


def test_links_lead_somewhere() -> None:
    for path in (CLI, API):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            for target in re.findall(r"\]\(([^)#]+)", line):
                assert (path.parent / target).exists(), f"{path}:{number}: {target}"
