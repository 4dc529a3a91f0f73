"""Code that changed since a process started is found; what is no code, and what cannot be known, is not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor_d.runtime import code_on_disk
from supervisor_d.runtime.code_on_disk import changed_code, first_changed
from supervisor_d.runtime.proc import started_at


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    shop = tmp_path / "shop"
    (shop / "orders").mkdir(parents=True)
    (shop / "orders/views.py").write_text("")
    return shop


@pytest.fixture
def started(shop: Path) -> Iterator[int]:
    """A process that runs there, older than what a test writes."""
    time.sleep(0.01)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, cwd=shop) as process:
        while time.monotonic() < (started_at(process.pid) or 0) + code_on_disk.IMPORT_SECONDS + 0.05:
            time.sleep(0.01)
        yield process.pid
        process.kill()


def test_nothing_changed(shop: Path, started: int) -> None:
    assert changed_code(str(shop), started) == ""


def test_a_file_that_is_newer(shop: Path, started: int) -> None:
    (shop / "orders/views.py").write_text("print()")
    assert changed_code(str(shop), started) == f"code under {shop} changed since it started (orders/views.py)"


def test_a_file_that_says_it_is_old(shop: Path, started: int) -> None:
    (shop / "models.py").write_text("")
    os.utime(shop / "models.py", (1.0, 1.0))
    assert changed_code(str(shop), started).endswith("(models.py)")


def test_another_directory_by_the_same_name(shop: Path, started: int, tmp_path: Path) -> None:
    shop.rename(tmp_path / "old")
    shop.mkdir()
    assert changed_code(str(shop), started) == f"{shop} is another directory than when it started"


@pytest.mark.parametrize(
    "name", ["notes.txt", ".git/hook.py", "node_modules/gyp.py", "orders/__pycache__/x.py", "env/lib/mod.py"]
)
def test_what_is_no_code_of_the_pools(shop: Path, name: str) -> None:
    (shop / "env").mkdir()
    (shop / "env/pyvenv.cfg").write_text("")
    (shop / name).parent.mkdir(parents=True, exist_ok=True)
    since = time.time() - 60
    (shop / "orders/views.py").unlink()
    (shop / name).write_text("")
    assert first_changed(str(shop), since) == ""


def test_no_link_is_followed_and_nothing_goes_on_for_ever(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (shop / "loop").symlink_to(shop)
    (shop / "orders/views.py").unlink()
    assert first_changed(str(shop), 0.0) == ""
    monkeypatch.setattr(code_on_disk, "FILES_MAX", 10)
    for number in range(20):
        (shop / f"{number}.txt").write_text("")
    (shop / "orders/late.py").write_text("")
    assert first_changed(str(shop), 0.0) == ""


def test_what_is_gone_is_not_known(shop: Path) -> None:
    assert changed_code(str(shop), 2**22 + 1) == ""
    assert first_changed(str(shop / "nowhere"), 0.0) == ""
