"""The ledger's file: what is written is read, and nothing else is believed."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor_d.agents.supervisor_d_celery import ledger, restore

DESCRIPTION = {
    "connection": {"transport": "redis", "hostname": "127.0.0.1", "port": 1},
    "options": {"global_keyprefix": "x"},
    "exchanges": {"celery": "direct"},
}


@pytest.fixture
def book(tmp_path: Path) -> ledger.Ledger:
    book = ledger.Ledger(str(tmp_path))
    book.describe(DESCRIPTION)
    return book


def states(tmp_path: Path) -> dict[str, int]:
    return {slot.tag: slot.state for slot in restore.read(str(tmp_path)).slots}


def test_the_life_of_a_message(book: ledger.Ledger, tmp_path: Path) -> None:
    assert states(tmp_path) == {}
    book.coming("a", b"[1]")
    (slot,) = restore.read(str(tmp_path)).slots
    assert (slot.tag, slot.state, slot.entry) == ("a", ledger.COMING, b"[1]")
    book.held("a")
    (slot,) = restore.read(str(tmp_path)).slots
    assert (slot.state, slot.entry) == (ledger.HELD, None)
    book.coming("b", b"[2]")
    book.done("a")
    assert states(tmp_path) == {"a": ledger.DONE, "b": ledger.COMING}
    book.free("a")
    book.free("a")
    book.free("unknown")
    book.done("unknown")
    book.held("unknown")
    assert states(tmp_path) == {"b": ledger.COMING}
    assert len(book) == 1


def test_what_finds_no_place_is_counted(book: ledger.Ledger, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    book.coming("x" * 49, None)
    assert book.overflow == 1
    for number in range(ledger.SLOTS):
        book.coming(f"tag-{number}", None)
        book.held(f"tag-{number}")
    book.coming("one too many", None)
    book.free("one too many")
    assert book.overflow == 2
    assert capfd.readouterr().err.count("the ledger is full") == 1
    assert len(restore.read(str(tmp_path)).slots) == ledger.SLOTS
    for number in range(ledger.SLOTS):
        book.free(f"tag-{number}")
    book.coming("again", None)
    assert states(tmp_path) == {"again": ledger.COMING}


def test_regions_are_used_again_and_not_waited_for(book: ledger.Ledger, tmp_path: Path) -> None:
    for number in range(20):
        book.coming(f"stuck-{number}", b"%d" % number)
    entries = [slot.entry for slot in restore.read(str(tmp_path)).slots]
    assert sum(entry is not None for entry in entries) == ledger.REGIONS
    for number in range(20):
        book.held(f"stuck-{number}")
    book.coming("large", b"x" * ledger.REGION_BYTES)
    book.coming("next", b"n")
    found = {slot.tag: slot.entry for slot in restore.read(str(tmp_path)).slots}
    assert found["large"] is None
    assert found["next"] == b"n"


def test_a_new_description_is_written_beside_the_old_one(book: ledger.Ledger, tmp_path: Path) -> None:
    book.coming("a", None)
    for name in ("one", "two", "three"):
        book.describe({**DESCRIPTION, "exchanges": {name: "topic"}})
        assert restore.read(str(tmp_path)).description["exchanges"] == {name: "topic"}
    with pytest.raises(ValueError, match="too long"):
        book.describe({"x": "y" * ledger.DESCRIPTION_BYTES})
    with pytest.raises(TypeError):
        book.describe({"x": object()})


@pytest.mark.parametrize(
    "description",
    [
        {},
        {**DESCRIPTION, "connection": {"transport": "os:system"}},
        {**DESCRIPTION, "options": {"credential_provider": "os:system"}},
        {**DESCRIPTION, "options": []},
        {**DESCRIPTION, "exchanges": {"x": "evil"}},
        {**DESCRIPTION, "exchanges": {"x": ["direct"]}},
    ],
)
def test_a_description_is_data(book: ledger.Ledger, tmp_path: Path, description: dict[str, object]) -> None:
    book.coming("a", None)
    book.describe(description)
    with pytest.raises(restore.SpoiltError):
        restore.read(str(tmp_path))
    assert restore.main([str(tmp_path)]) == 65


@given(st.data())
def test_noise_is_never_believed(data: st.DataObject) -> None:
    raw = bytearray(ledger.SIZE_BYTES)
    raw[: ledger.HEAD.size] = ledger.HEAD.pack(ledger.MAGIC, 0, ledger.SLOTS, ledger.REGIONS)
    for _ in range(data.draw(st.integers(1, 5))):
        noise = data.draw(st.binary(min_size=1, max_size=300))
        at = data.draw(st.integers(0, len(raw) - 300))
        raw[at : at + len(noise)] = noise
    try:
        found = restore.parse(raw)
    except restore.SpoiltError:
        return
    assert found.slots == [], "a CRC of 32 bits was guessed"


def test_a_spoilt_slot_costs_the_others_nothing(book: ledger.Ledger, tmp_path: Path) -> None:
    book.coming("a", None)
    book.coming("b", None)
    path = tmp_path / "ledger"
    raw = bytearray(path.read_bytes())
    raw[ledger.SLOTS_AT + 16] ^= 0xFF
    path.write_bytes(raw)
    found = restore.read(str(tmp_path))
    assert (len(found.slots), found.spoilt) == (1, 1)


def test_only_a_plain_file_of_its_own_size_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "ledger"
    assert restore.main([str(tmp_path)]) == 0
    assert restore.main([str(tmp_path / "nowhere")]) == 0
    assert restore.main([]) == 64
    path.write_bytes(b"short")
    assert restore.main([str(tmp_path)]) == 65
    path.write_bytes(bytes(ledger.SIZE_BYTES))
    assert restore.main([str(tmp_path)]) == 65
    path.unlink()
    path.symlink_to("/etc/passwd")
    assert restore.main([str(tmp_path)]) == 65
    path.unlink()
    os.mkfifo(path)
    assert restore.main([str(tmp_path)]) == 65
    assert "cannot read the ledger" in capsys.readouterr().err


def test_a_tag_may_be_a_number(book: ledger.Ledger, tmp_path: Path) -> None:
    """As foreign producers write it; in Redis it is text."""
    number: Any = 7
    book.coming(number, b"[1]")
    book.held(number)
    assert states(tmp_path) == {"7": ledger.HELD}
    book.free(number)
    assert states(tmp_path) == {}


def test_the_broker_that_is_described_is_the_one_that_is_used() -> None:
    """Of several the first may be away; a helper that asked another one would find nothing, and forget all."""
    from kombu import connection as kombu_connection

    make: Any = kombu_connection.Connection
    connection = make("redis://127.0.0.1:1;redis://127.0.0.1:2")
    channel = SimpleNamespace(connection=SimpleNamespace(client=connection), state=SimpleNamespace(exchanges={}))
    assert ledger.describe_broker(channel)["connection"]["port"] == 1
    connection.switch(connection.alt[1])
    described = ledger.describe_broker(channel)["connection"]
    assert (described["port"], described["alternates"]) == (2, [])
