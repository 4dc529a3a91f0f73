"""The project as a whole: what its texts say is there, and nothing of any one machine is in it."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from supervisor_d import __version__
from supervisor_d.cli.main import COMMANDS
from supervisor_d.config.loader import load

ROOT = Path(__file__).parents[1]
TEXT_SUFFIXES = {
    "", ".cfg", ".css", ".html", ".ini", ".js", ".json", ".lock", ".md", ".py", ".service", ".socket", ".toml", ".txt",
    ".yaml", ".yml",
}  # fmt: skip

# Written with brackets, so that the patterns do not find themselves: this file is a file of the project too.
REGISTRY_HOSTS = re.compile(r"pypi[.]org|pythonhosted[.]org|[/]simple/|[-]-(extra-)?index-url\s+\S+:")
MACHINE_PATHS = re.compile(r"[/]root/[.]|(?<![\w}])[/]work/|[/]Users/|[.]pyenv/ver|" + re.escape(f"{ROOT}/"))


def project_files() -> list[Path]:
    """Every text file that is, or would be, part of the repository; without git, what lies around."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode == 0:
        names = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:
        names = [path for part in ("supervisor_d", "tests", "docs", "configs") for path in (ROOT / part).rglob("*")]
        names += [path for path in ROOT.iterdir() if path.is_file()]
    return [
        path for path in names if path.is_file() and path.suffix in TEXT_SUFFIXES and "__pycache__" not in path.parts
    ]


def markdown_pages() -> list[Path]:
    return [path for path in project_files() if path.suffix == ".md"]


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("pattern", [REGISTRY_HOSTS, MACHINE_PATHS], ids=["registries", "paths"])
def test_no_file_names_a_registry_or_a_place_of_one_machine(pattern: re.Pattern[str]) -> None:
    found = [
        f"{page_id(path)}:{number}: {line.strip()[:100]}"
        for path in project_files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == []


@pytest.mark.parametrize("pieces", [("--index-", "url https://x"), ("https://files.python", "hosted.org/a")])
def test_the_pattern_of_registries_finds_what_it_is_for(pieces: tuple[str, ...]) -> None:
    assert REGISTRY_HOSTS.search("".join(pieces))


@pytest.mark.parametrize("pieces", [("cd /wo", "rk/main"), (str(ROOT), "/README.md"), ("/ro", "ot/.cache")])
def test_the_pattern_of_paths_finds_what_it_is_for(pieces: tuple[str, ...]) -> None:
    assert MACHINE_PATHS.search("".join(pieces))


def without_code(page: Path) -> str:
    return re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors that headings make, as the usual renderers spell them."""
    headings = re.findall(r"^#+ (.+)$", without_code(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", markdown_pages(), ids=page_id)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        if not linked.exists() or (anchor and anchor not in anchors(linked)):
            broken.append(target)
    assert broken == []


def test_every_page_can_be_found_from_the_map() -> None:
    text = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    missing = [
        path.name for path in (ROOT / "docs").glob("*.md") if f"({path.name})" not in text and path.name != "README.md"
    ]
    assert missing == []


def test_the_changelog_knows_the_version() -> None:
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_lock_file_holds_hashes_of_everything_and_no_place() -> None:
    lock = (ROOT / "requirements" / "dev.lock").read_text(encoding="utf-8")
    pinned = re.findall(r"^([A-Za-z0-9._-]+)(?:\[\S+\])?==\S+ \\\n    --hash=sha256:", lock, re.MULTILINE)
    named = [line for line in lock.splitlines() if line and not line.startswith(("#", " "))]
    assert len(pinned) == len(named)
    assert "://" not in lock


def test_everything_that_pyproject_asks_for_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *(each for group in project["optional-dependencies"].values() for each in group)]
    lock = (ROOT / "requirements" / "dev.lock").read_text(encoding="utf-8").lower()
    names = [re.split(r"[<>=\[ ]", each)[0].lower().replace("_", "-") for each in asked]
    assert [name for name in names if not re.search(rf"^{re.escape(name)}(\[\S+\])?==", lock, re.MULTILINE)] == []


def test_the_readme_lists_every_command() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^supervisor-d ([\w-]+)  ", text, re.MULTILINE) == list(COMMANDS)


def test_the_readmes_config_is_accepted(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0]
    own = pwd.getpwuid(os.geteuid()).pw_name
    here = {
        "www-data": own,
        "/srv/shop/.venv/bin/python": sys.executable,
        "/srv/shop": "/",
        "/usr/bin/redis-server": "/bin/true",
    }
    for there, replacement in here.items():
        assert there in text
        text = text.replace(there, replacement)
    file = tmp_path / "shop.yaml"
    file.write_text(text, encoding="utf-8")
    config = load(file, environ=os.environ)
    assert list(config.pools) == ["redis", "migrate", "worker", "web", "beat"]


def test_every_directory_the_architecture_names_is_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    parts = re.findall(r"\*\*`([a-z.]+/?)`\*\*", text)
    assert len(parts) >= 9
    assert [part for part in parts if not (ROOT / "supervisor_d" / part).exists()] == []
    packages = {path.name for path in (ROOT / "supervisor_d").iterdir() if (path / "__init__.py").exists()}
    assert packages == {part.rstrip("/") for part in parts if part.endswith("/")}
