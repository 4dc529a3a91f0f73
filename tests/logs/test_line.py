from __future__ import annotations

import pytest

from supervisor_d.logs.line import LogLine, prefixed, printable


@pytest.mark.parametrize(
    ("text", "plain", "coloured"),
    [
        ("hello", "hello", "hello"),
        ("a\tb", "a\tb", "a\tb"),
        ("\x1b[31mred\x1b[0m", "red", "\x1b[31mred\x1b[0m\x1b[0m"),
        ("\x1b]0;title\x07x", "x", "x"),
        ("\x1b]52;c;cm0gLXJm\x1b\\x", "x", "x"),
        ("\x1b[2J\x1b[1;1Hgone", "gone", "gone"),
        ("a\rb\x08c\x7f", "abc", "abc"),
        ("\u202eevil", "evil", "evil"),
        ("\x9b31mred", "31mred", "31mred"),
        ("\x1b", "", ""),
        ("größe 漢字", "größe 漢字", "größe 漢字"),
    ],
)
def test_text_of_a_worker_has_no_control_over_the_terminal(text: str, plain: str, coloured: str) -> None:
    assert printable(text, colour=False) == plain
    assert printable(text, colour=True) == coloured


def test_prefix_is_padded_and_keeps_its_colour() -> None:
    line = LogLine("web.0", "hi")
    assert prefixed(line, 8, colour=False) == "web.0    | hi"
    coloured = prefixed(line, 8, colour=True)
    assert coloured.endswith("web.0    |\x1b[0m hi")
    assert coloured == prefixed(LogLine("web.0", "hi"), 8, colour=True)
