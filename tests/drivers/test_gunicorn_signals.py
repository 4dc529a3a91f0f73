"""One step at a time: a signal whose effect is not yet seen is not followed by another one."""

from __future__ import annotations

import os
import time

import pytest

from supervisor_d.runtime.drivers.gunicorn_signals import EFFECT_SECONDS, Nudge, nudge

GRACE_SECONDS = 30.0


@pytest.mark.parametrize(
    ("total", "wanted", "ago", "again"),
    [
        (3, 4, EFFECT_SECONDS / 2, False),
        (3, 4, EFFECT_SECONDS + 1, True),
        (4, 3, EFFECT_SECONDS / 2, False),
        (4, 3, EFFECT_SECONDS + 1, False),  # it finishes what it serves; a second signal would end a second one
        (4, 3, EFFECT_SECONDS + GRACE_SECONDS + 1, True),
        (4, 4, EFFECT_SECONDS + GRACE_SECONDS + 1, False),
    ],
)
def test_when_the_next_step_is_made(total: int, wanted: int, ago: float, *, again: bool) -> None:
    last = Nudge(total, time.monotonic() - ago)
    # We have no workers of gunicorn's kind: nobody is signalled.
    assert (nudge(os.getpid(), total, wanted, last, GRACE_SECONDS) is not last) == again


def test_an_effect_that_is_seen_is_followed_at_once() -> None:
    last = Nudge(5, time.monotonic())
    assert nudge(os.getpid(), 4, 3, last, GRACE_SECONDS) is not last
