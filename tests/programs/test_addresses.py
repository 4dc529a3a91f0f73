"""Addresses as people write them, and what an http probe asks."""

from __future__ import annotations

import pytest

from supervisor_d.programs.addresses import Address, HttpTarget, parse_address, parse_http_target


@pytest.mark.parametrize(
    ("text", "address", "shown"),
    [
        ("127.0.0.1:8000", Address("127.0.0.1", 8000), "127.0.0.1:8000"),
        ("[::1]:8000", Address("::1", 8000), "[::1]:8000"),
        ("localhost:0", Address("localhost", 0), "localhost:0"),
        (":8000", Address("", 8000), ":8000"),
        ("*:8000", Address("", 8000), ":8000"),
        ("unix:/run/a.sock", Address(path="/run/a.sock"), "unix:/run/a.sock"),
        ("/run/a.sock", Address(path="/run/a.sock"), "unix:/run/a.sock"),
    ],
)
def test_an_address(text: str, address: Address, shown: str) -> None:
    assert parse_address(text) == address
    assert str(address) == shown


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("8000", "is not an address"),
        ("localhost", "is not an address"),
        ("a:b", "is not an address"),
        ("a:65536", "is not an address"),
        ("a:-1", "is not an address"),
        ("::1:8000", "without brackets"),
        ("unix:web.sock", "not an absolute path"),
        ("unix:/" + "a" * 107, "too long"),
    ],
)
def test_what_is_none(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_address(text)


@pytest.mark.parametrize(
    ("target", "listener", "asked"),
    [
        ("/healthz?a=1", "127.0.0.1:80", HttpTarget(Address("127.0.0.1", 80), "127.0.0.1:80", "/healthz?a=1")),
        ("/", ":80", HttpTarget(Address("127.0.0.1", 80), "127.0.0.1:80", "/")),
        ("/", "[::]:80", HttpTarget(Address("::1", 80), "[::1]:80", "/")),
        ("/", "unix:/a", HttpTarget(Address(path="/a"), "localhost", "/")),
        ("http://shop:81/x?y", None, HttpTarget(Address("shop", 81), "shop:81", "/x?y")),
        ("http://[::1]:81?y#z", None, HttpTarget(Address("::1", 81), "[::1]:81", "/?y")),
        ("http://[::1]/", None, HttpTarget(Address("::1", 80), "[::1]", "/")),
        ("http://shop", None, HttpTarget(Address("shop", 80), "shop", "/")),
    ],
)
def test_an_http_target(target: str, listener: str | None, asked: HttpTarget) -> None:
    assert parse_http_target(target, parse_address(listener) if listener else None) == asked


@pytest.mark.parametrize(
    "target",
    ["/healthz", "https://shop/", "healthz", "http://", "http://a@b/", "http://a:b/", "/a b", "/a\r\nX: y", "/ä", ""],
)
def test_what_no_probe_can_ask(target: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_http_target(target, None)
