"""Figures of requests: what is served now, and totals that outlive workers and masters."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from supervisor_d.agents import supervisor_d_gunicorn_scoreboard as layout
from supervisor_d.runtime.drivers import gunicorn_traffic
from supervisor_d.runtime.drivers.gunicorn import GunicornDriver
from supervisor_d.runtime.drivers.gunicorn_traffic import Ledger
from tests.agents.gunicorn import listening, serving, web
from tests.agents.test_gunicorn_agent import ask
from tests.support.waiting import eventually


class NoMembers:
    def pids(self, process_id: str) -> frozenset[int]:
        return frozenset({4711})


def ledger() -> Ledger:
    return Ledger(NoMembers())  # type: ignore[arg-type]


def board(directory: Path, requests: int = 0) -> Any:
    directory.mkdir(exist_ok=True)
    made = layout.Scoreboard(str(directory))
    desk = made.desk(made.take(set()))
    desk.taken(4711, 1)
    desk.ready()
    for number in range(requests):
        desk.began(number)
        desk.ended(number, 2)
    return desk


def test_a_pool_counts_on_over_its_masters(tmp_path: Path) -> None:
    books = ledger()
    for number in range(1, 4):
        process_id = f"web.0@g1.{number}"
        desk = board(tmp_path / process_id, requests=10)
        books.opened(process_id, "web", str(tmp_path / process_id))
        assert books.figures().serving[process_id].requests_total == 10
        books.ended(process_id)
        desk.began(99)
        desk.ended(99, 5)  # an orphan finishes what it serves
        figures = books.figures()
        assert figures.serving == {}
        assert figures.traffic["web"].requests_total["5xx"] == number
        shutil.rmtree(tmp_path / process_id)
        for _ in range(2):
            assert books.figures().traffic["web"].requests_total == {
                "none": 0, "1xx": 0, "2xx": 10 * number, "3xx": 0, "4xx": 0, "5xx": number,
            }  # fmt: skip


def test_nobody_makes_a_total_shrink(tmp_path: Path) -> None:
    books = ledger()
    board(tmp_path / "a", requests=10)
    books.opened("web.0@g1.1", "web", str(tmp_path / "a"))
    assert books.figures().traffic["web"].requests_total["2xx"] == 10
    with (tmp_path / "a" / layout.NAME).open("r+b") as file:
        file.seek((layout.WORDS + layout.REQUESTS) * layout.WORD_BYTES)
        file.write(bytes(layout.CLASSES * layout.WORD_BYTES))
    assert books.figures().traffic["web"].requests_total["2xx"] == 10


def test_nothing_stays_open(tmp_path: Path) -> None:
    books = ledger()
    before = set(os.listdir("/proc/self/fd"))
    board(tmp_path / "a")
    board(tmp_path / "b")
    for name in ("a", "b"):
        books.opened(f"web.0@g1.{name}", "web", str(tmp_path / name))
    books.figures()
    books.ended("web.0@g1.a")
    shutil.rmtree(tmp_path / "a")
    books.figures()
    books.close()
    assert set(os.listdir("/proc/self/fd")) == before


def test_accounts_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gunicorn_traffic, "ENDED_MAX", 3)
    books = ledger()
    for number in range(9):
        board(tmp_path / str(number), requests=1)
        books.opened(f"web.0@g1.{number}", "web", str(tmp_path / str(number)))
        books.figures()
        books.ended(f"web.0@g1.{number}")
    assert len(books._accounts) == 3
    assert books.figures().traffic["web"].requests_total["2xx"] == 9
    books.ended("web.0@g1.77")


@pytest.mark.real
async def test_what_a_real_master_serves(tmp_path: Path) -> None:
    with listening() as listener:
        async with serving(web(tmp_path, workers=2), tmp_path, listener) as web_0:
            driver = web_0.driver
            assert isinstance(driver, GunicornDriver)
            await ask(listener)
            await eventually(lambda: driver.figures().traffic["web"].requests_total["2xx"] == 1, what="one request")
            held = asyncio.create_task(ask(listener, "/held"))
            await eventually(lambda: driver.figures().serving[web_0.process.id].in_flight == 1, what="one in flight")
            assert driver.figures().traffic["web"].workers == {"booting": 0, "idle": 1, "busy": 1}
            (tmp_path / "release").touch()
            await held
