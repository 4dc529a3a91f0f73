"""The connections of a shim: what was asked counts, also of one who did not wait for an answer."""

from __future__ import annotations

import socket

from supervisor_d.shim import wire
from supervisor_d.shim.kernel import Socket
from supervisor_d.shim.links import Link, Links
from supervisor_d.shim.loop import Loop


def test_what_was_asked_before_the_other_side_closed_is_heard() -> None:
    """A daemon releases a shim that is still coming up, and is gone before the shim's first word."""
    loop = Loop()
    asked: list[wire.Message] = []
    ended: list[Link] = []

    def over(link: Link) -> None:
        ended.append(link)
        loop.stop()

    links = Links(loop, lambda _, message: asked.append(message), over, lambda: [b'{"event":"began"}\n'])
    ours, theirs = socket.socketpair()
    theirs.send(wire.encode({"ask": "release"}))
    theirs.close()
    link = links.add(Socket(fileno=ours.detach()))
    links.tell(b'{"event":"replaced"}\n')
    loop.run()
    assert asked == [{"ask": "release"}]
    assert ended == [link]
