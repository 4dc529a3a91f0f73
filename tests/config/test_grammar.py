from __future__ import annotations

import pytest

from supervisor_d.config.grammar import check_address, check_listen, clash, parse_mode, parse_step, split_words
from supervisor_d.config.suggest import did_you_mean, nearest
from supervisor_d.core.spec import StopStep


@pytest.mark.parametrize(
    ("text", "step"),
    [("TERM 30s", StopStep("TERM", 30.0)), ("SIGINT 1m", StopStep("INT", 60.0)), ("KILL", StopStep("KILL"))],
)
def test_steps(text: str, step: StopStep) -> None:
    assert parse_step(text) == step


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty step"),
        ("term 30s", r"did you mean TERM\?"),
        ("sigterm 30s", r"did you mean TERM\?"),
        ("XYZZY 1s", "unknown signal XYZZY"),
        ("STOP 1s", "does not end a process"),
        ("TERM", "TERM 30s"),
        ("TERM 30", "give a unit: 30s"),
        ("KILL 1s", "takes no time"),
    ],
)
def test_wrong_steps(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_step(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:80", "127.0.0.1:80"),
        ("[::1]:80", "[::1]:80"),
        ("unix:x", "unix:x"),
        ("/run/x", "unix:/run/x"),
    ],
)
def test_addresses(text: str, address: str) -> None:
    assert check_address(text) == address


@pytest.mark.parametrize("text", ["", "80", "unix:", "unix:@x", "a:b", "::1:80"])
def test_wrong_addresses(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        check_address(text)


@pytest.mark.parametrize("text", ["127.0.0.1:9180", "localhost:9180", "[::1]:9180", "127.9.9.9:1"])
def test_loopback(text: str) -> None:
    assert check_listen(text) == text


@pytest.mark.parametrize(
    "text", ["0.0.0.0:9180", ":9180", "[::]:9180", "10.0.0.1:1", "example.org:1", "unix:/x", "127.0.0.1"]
)
def test_what_is_not_on_loopback(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        check_listen(text)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("127.0.0.1:80", "127.0.0.1:80", True),
        ("127.0.0.1:80", "127.0.0.1:81", False),
        ("127.0.0.1:80", "127.0.0.2:80", False),
        ("localhost:80", "127.0.0.1:80", True),
        ("0.0.0.0:80", "127.0.0.1:80", True),
        (":80", "127.0.0.1:80", True),
        ("0.0.0.0:80", "[::1]:80", False),
        ("[::]:80", "127.0.0.1:80", True),
        ("[::]:80", "[::1]:80", True),
        ("127.0.0.1:0", "127.0.0.1:0", False),
        ("unix:/a", "unix:/a", True),
        ("unix:/a", "unix:/b", False),
        ("unix:/a", "127.0.0.1:80", False),
    ],
)
def test_addresses_that_cannot_both_be_bound(one: str, other: str, expected: bool) -> None:
    assert clash(one, other) is expected
    assert clash(other, one) is expected


def test_modes() -> None:
    assert parse_mode("0660") == parse_mode("660") == 0o660
    for text in ("", "rw", "0888", "7", "07777", "0o660", "٠٦٦٠"):
        with pytest.raises(ValueError, match="is not a file mode"):
            parse_mode(text)


def test_words() -> None:
    assert split_words("a 'b c' # d") == ["a", "b c", "#", "d"]
    for text in ("", "  ", "'x"):
        with pytest.raises(ValueError, match=r"words|program"):
            split_words(text)


def test_the_nearest_spelling() -> None:
    known = ("worker_class", "workers", "web")
    assert nearest("worker-class", known) == "worker_class"
    assert nearest("WORKERS", known) == "workers"
    assert nearest("zzz", known) == nearest("w" * 100, known) == ""
    assert did_you_mean("web", known) == ""
    assert did_you_mean("wep", known) == ", did you mean web?"
