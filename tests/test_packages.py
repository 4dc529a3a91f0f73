"""Versions are found in an interpreter's directories, by names alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor_d.packages import installed_version


def install(directory: Path, *names: str) -> None:
    for name in names:
        (directory / f"{name}.dist-info").mkdir(parents=True)


def venv(root: Path, text: str = "home = /usr/bin\n") -> str:
    (root / "bin").mkdir(parents=True)
    (root / "pyvenv.cfg").write_text(text)
    return str(root / "bin/python")


def test_our_own_gunicorn_is_seen() -> None:
    import importlib.metadata

    assert installed_version("", "gunicorn") == importlib.metadata.version("gunicorn")
    assert installed_version("", "no-such-distribution") == ""


def test_a_virtual_environment(tmp_path: Path) -> None:
    python = venv(tmp_path / "venv")
    install(tmp_path / "venv/lib/python3.12/site-packages", "gunicorn-25.3.0", "gunicorn_extras-1.0", "Zope.Event-5.0")
    assert installed_version(python, "gunicorn") == "25.3.0"
    assert installed_version(python, "gunicorn-extras") == "1.0"
    assert installed_version(python, "zope_event") == "5.0"
    assert installed_version(python, "celery") == ""


@pytest.mark.parametrize(("included", "found"), [("true", "20.1.0"), ("false", "")])
def test_the_systems_packages_where_they_are_included(tmp_path: Path, included: str, found: str) -> None:
    text = f"home = {tmp_path}/usr/bin\ninclude-system-site-packages = {included}\nversion = 3.11.2\n"
    python = venv(tmp_path / "venv", text)
    install(tmp_path / "usr/lib/python3/dist-packages", "gunicorn-20.1.0")
    install(tmp_path / "usr/lib/python3.10/site-packages", "gunicorn-9.9")
    assert installed_version(python, "gunicorn") == found


def test_an_interpreter_in_no_environment(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python3.13").touch()
    (tmp_path / "bin/python3").symlink_to("python3.13")
    install(tmp_path / "lib/python3.13/site-packages", "gunicorn-27.0.1")
    install(tmp_path / "lib/python3.12/site-packages", "gunicorn-1.0", "celery-5.7")
    assert installed_version(str(tmp_path / "bin/python3"), "gunicorn") == "27.0.1"
    assert installed_version(str(tmp_path / "bin/python3"), "celery") == ""


def test_nothing_there_is_nothing_known(tmp_path: Path) -> None:
    assert installed_version(str(tmp_path / "bin/python"), "gunicorn") == ""
