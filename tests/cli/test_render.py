from __future__ import annotations

import pytest

from supervisor_d.cli.render import Cell, Column, columns_of, cpu_time, cut, memory, span, table
from supervisor_d.cli.status_view import cpu_shares, status_lines
from supervisor_d.core.snapshot import Serving, TasksNow
from tests.support.fake_service import pool_view, process_view, shop_snapshot, snapshot_of


@pytest.mark.parametrize("width", [60, 80, 140])
def test_status_at_this_width(width: int, request: pytest.FixtureRequest) -> None:
    lines = status_lines(shop_snapshot(), width=width, colour=False)
    assert max(map(columns_of, lines)) <= width
    golden = request.path.with_name("golden") / f"status-{width}.txt"
    assert "".join(f"{line}\n" for line in lines) == golden.read_text(encoding="utf-8")


def test_in_a_pipe_nothing_is_cut_and_nothing_coloured() -> None:
    text = "\n".join(status_lines(shop_snapshot(), width=None, colour=False))
    assert "g4 was rolled back: the canary did not answer" in text
    assert "scaled by an operator" in text
    assert "…" not in text
    assert "\x1b" not in text


def test_colours_change_no_column() -> None:
    import re

    plain = status_lines(shop_snapshot(), width=100, colour=False)
    coloured = status_lines(shop_snapshot(), width=100, colour=True)
    assert coloured != plain
    assert [re.sub(r"\x1b\[[0-9]+m", "", line).rstrip() for line in coloured] == plain


def test_one_pool_of_many() -> None:
    text = "\n".join(status_lines(shop_snapshot(), pools=("web",), width=None, colour=False))
    assert "web.0@g3.10" in text
    assert "worker" not in text


def test_an_adopted_process_and_a_stopping_daemon_are_shown() -> None:
    from dataclasses import replace

    picture = snapshot_of(pool_view(processes=(process_view(adopted=True, reason=""),)))
    picture = replace(picture, daemon=replace(picture.daemon, state="stopping"))
    text = "\n".join(status_lines(picture, width=None, colour=False))
    assert text.splitlines()[0].endswith(": stopping")
    assert "adopted" in text


def test_what_is_in_hand_is_counted_where_an_agent_tells() -> None:
    serving = process_view(serving=Serving(in_flight=17, requests_total=100))
    working = process_view(tasks=TasksNow(active=3, reserved=4, unsafe=0))
    picture = snapshot_of(pool_view(processes=(serving, serving)), pool_view(processes=(working,)))
    head, *rows = [line.split() for line in status_lines(picture, width=None, colour=False)[2:]]
    # a pool's program stands in its own line alone
    busy = [row[head.index("BUSY") - (row[0] != "web")] for row in rows]
    assert busy == ["34", "17", "17", "3", "3"]
    assert "BUSY" not in status_lines(snapshot_of(pool_view()), width=None, colour=False)[2]


def test_no_pools_is_a_head_and_titles() -> None:
    assert len(status_lines(snapshot_of(), width=80, colour=False)) == 3


def test_cpu_use_between_two_pictures() -> None:
    from dataclasses import replace

    usage = process_view().usage
    assert usage is not None
    before = snapshot_of(pool_view())
    later = pool_view(processes=(process_view(usage=replace(usage, cpu_seconds=63.4)),))
    after = replace(snapshot_of(later), at=before.at + 2)
    assert cpu_shares(before, after) == {"web.0@g3.10": pytest.approx(0.5)}
    assert cpu_shares(None, after) == {}
    text = "\n".join(status_lines(after, width=None, colour=False, shares=cpu_shares(before, after)))
    assert "CPU%" in text
    assert " 50 " in text


def test_texts_of_strangers_cannot_steer_the_terminal() -> None:
    picture = snapshot_of(pool_view(detail="\x1b[2Jgone\x07\nnext"))
    assert "\x1b[2J" not in "\n".join(status_lines(picture, width=None, colour=True))


@pytest.mark.parametrize("width", range(1, 50))
def test_a_table_never_exceeds_its_width_by_more_than_its_first_columns(width: int) -> None:
    columns = (Column("NAME"), Column("B", rank=1), Column("C", rank=2, right=True), Column("D", elastic=True))
    rows = [[Cell("web"), Cell("bbbbbb"), Cell("3"), Cell("the long detail of this row")]]
    lines = table(columns, rows, width=width, colour=False)
    least = len("NAME") + 2 + 1  # the name and one column of the elastic one
    assert all(columns_of(line) <= max(width, least) for line in lines)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (45.9, "45s"),
        (200, "3m20s"),
        (3600, "1h"),
        (3605, "1h"),
        (7500, "2h5m"),
        (356400, "4d3h"),
        (-5, "0s"),
    ],
)
def test_spans(seconds: float, text: str) -> None:
    assert span(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0B"),
        (900, "900B"),
        (512 * 1024, "512K"),
        (123 * 2**20, "123M"),
        (int(1.44 * 2**30), "1.4G"),
        (2**40, "1.0T"),
    ],
)
def test_sizes(size: int, text: str) -> None:
    assert memory(size) == text


def test_short_times_of_cpu_have_tenths() -> None:
    assert [cpu_time(0.04), cpu_time(59.94), cpu_time(61)] == ["0.0s", "59.9s", "1m1s"]


def test_wide_characters_take_two_columns() -> None:
    assert columns_of("漢字") == 4
    assert columns_of("e\u0301") == 1
    assert cut("漢字漢字", 5) == "漢字…"
    assert cut("abc", 3) == "abc"
