from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor_d.logs import history as history_module
from supervisor_d.logs.files import Index, Lane, Selection, _parsed, lanes, read_index
from supervisor_d.logs.history import read_history
from supervisor_d.logs.line import LINE_BYTES
from tests.logs.writer import Writer


def selection(directory: Path, *names: str) -> Selection:
    return Selection({"web": directory, "worker": directory}, names)


def texts(directory: Path, *names: str, lines: int = 100, since: float | None = None) -> list[str]:
    return [line.text for line in read_history(lanes(selection(directory, *names)), lines=lines, since=since).lines]


def test_lanes_are_the_logs_of_known_pools_and_nothing_else(tmp_path: Path) -> None:
    for name in ("web.0.log", "web.0~1.log", "web.1.log", "worker.0.log", "web.0.log.1", "web.0.log.idx", "x.0.log"):
        (tmp_path / name).touch()
    (tmp_path / "web.x.log").touch()
    found = [(lane.source, lane.path.name) for lane in lanes(selection(tmp_path))]
    assert found == [
        ("web.0", "web.0.log"),
        ("web.0", "web.0~1.log"),
        ("web.1", "web.1.log"),
        ("worker.0", "worker.0.log"),
    ]
    assert [lane.source for lane in lanes(selection(tmp_path, "web.1", "worker"))] == ["web.1", "worker.0"]
    assert lanes(selection(tmp_path / "nowhere")) == []


def test_links_and_fifos_are_never_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret\n")
    (tmp_path / "web.0.log").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "web.1.log")
    assert texts(tmp_path) == []


def test_last_lines_of_one_file(tmp_path: Path) -> None:
    (tmp_path / "web.0.log").write_text("".join(f"line {n}\n" for n in range(50_000)))
    assert texts(tmp_path, lines=3) == ["line 49997", "line 49998", "line 49999"]
    assert texts(tmp_path, lines=0) == []
    assert len(texts(tmp_path, lines=10_000)) == 10_000
    assert len(texts(tmp_path, lines=20_000)) == 10_000


def test_last_lines_reach_back_into_rotated_files(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "web.0", max_size=100, keep=4)
    for n in range(30):
        writer.write(f"line {n:02}\n")
    writer.close()
    assert (tmp_path / "web.0.log.2").exists()
    assert texts(tmp_path, lines=25) == [f"line {n:02}" for n in range(5, 30)]


def test_a_line_that_has_no_end_yet_is_shown_unless_whole_lines_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "web.0.log").write_text("one\ntwo\nthr")
    assert texts(tmp_path) == ["one", "two", "thr"]
    found = read_history(lanes(selection(tmp_path)), whole_lines=True)
    assert [line.text for line in found.lines] == ["one", "two"]
    assert [position.offset for position in found.positions.values()] == [8]


def test_empty_lines_carriage_returns_and_bad_bytes(tmp_path: Path) -> None:
    (tmp_path / "web.0.log").write_bytes(b"a\n\nb\r\n10%\r20%\n\xff\n")
    assert texts(tmp_path) == ["a", "", "b", "10%\r20%", "\ufffd"]


def test_a_giant_line_comes_in_pieces(tmp_path: Path) -> None:
    (tmp_path / "web.0.log").write_bytes(b"x" * (2 * LINE_BYTES + 5) + b"\nend\n")
    found = texts(tmp_path)
    assert [len(text) for text in found] == [LINE_BYTES, LINE_BYTES, 5, 3]


def test_slots_are_merged_by_the_second_of_the_index(tmp_path: Path) -> None:
    one, two = Writer(tmp_path, "web.0"), Writer(tmp_path, "worker.0")
    one.write("first\n", at=1000)
    two.write("second\n", at=1001)
    one.write("third\n", at=1002)
    two.write("fourth\n", at=1003)
    one.close()
    two.close()
    assert texts(tmp_path) == ["first", "second", "third", "fourth"]
    assert texts(tmp_path, lines=3) == ["second", "third", "fourth"]
    found = read_history(lanes(selection(tmp_path))).lines
    assert [(line.source, line.at) for line in found] == [
        ("web.0", 1000),
        ("worker.0", 1001),
        ("web.0", 1002),
        ("worker.0", 1003),
    ]


def test_lanes_of_one_slot_are_merged(tmp_path: Path) -> None:
    old, new = Writer(tmp_path, "web.0"), Writer(tmp_path, "web.0")
    assert (old.name, new.name) == ("web.0.log", "web.0~1.log")
    old.write("old\n", at=1000)
    new.write("new\n", at=1001)
    old.write("old again\n", at=1002)
    old.close()
    new.close()
    found = read_history(lanes(selection(tmp_path))).lines
    assert [(line.source, line.text) for line in found] == [("web.0", "old"), ("web.0", "new"), ("web.0", "old again")]


def test_since_begins_at_the_second_asked_for(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "web.0", max_size=60, keep=9)
    for second in range(2_000_000_000, 2_000_000_020):
        writer.write(f"a {second}\n", at=second)
        writer.write(f"b {second}\n", at=second + 0.5)
    writer.close()
    for path in tmp_path.iterdir():
        os.utime(path, (2_000_000_020, 2_000_000_020))
    assert texts(tmp_path, since=2_000_000_017.9) == [
        f"{letter} {second}" for second in range(2_000_000_017, 2_000_000_020) for letter in "ab"
    ]
    assert texts(tmp_path, since=2_000_000_021) == []
    assert len(texts(tmp_path, since=0)) == 40


def test_since_goes_by_the_files_age_where_there_is_no_index(tmp_path: Path) -> None:
    (tmp_path / "web.0.log").write_text("old\n")
    os.utime(tmp_path / "web.0.log", (1000, 1000))
    assert texts(tmp_path, since=2000) == []
    assert texts(tmp_path, since=900) == ["old"]


def test_torn_and_foreign_lines_of_an_index_are_left_out() -> None:
    data = b"100 0\nnonsense\n101 -5\n102 10 3\n\xff\xfe 4\n103 20\n104 20\n90 30\n105"
    assert _parsed(data) == Index((100, 104, 104), (0, 20, 30))


@given(st.binary(max_size=200))
def test_no_index_can_break_the_reader(data: bytes) -> None:
    index = _parsed(data)
    assert list(index.offsets) == sorted(set(index.offsets))
    assert list(index.seconds) == sorted(index.seconds)
    index.at(7)
    index.since(7)


@given(
    st.lists(st.text(st.characters(codec="ascii", exclude_characters="\r\n"), max_size=30), max_size=60),
    st.integers(0, 70),
    st.integers(1, 40),
)
def test_history_is_the_tail_of_what_was_written(written: list[str], count: int, block: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(history_module, "BLOCK_BYTES", block)
        path = Path(directory)
        (path / "web.0.log").write_text("".join(f"{text}\n" for text in written))
        assert texts(path, lines=count) == (written[-count:] if count else [])


def test_the_index_of_a_rotated_file_is_its_own(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "web.0", max_size=10, keep=3)
    writer.write("0123456789\n", at=100)
    writer.write("x\n", at=200)
    writer.close()
    assert read_index(tmp_path / "web.0.log.1") == Index((100,), (0,))
    assert read_index(tmp_path / "web.0.log") == Index((200,), (0,))
    assert Lane("web.0", tmp_path / "web.0.log") in lanes(selection(tmp_path))
