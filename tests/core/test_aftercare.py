from __future__ import annotations

from dataclasses import replace

import pytest

from supervisor_d.core import aftercare
from supervisor_d.core.process import Aftercare, Process, State
from tests.core.transcript import CELERY, COMMAND, policy

ENDED = Process(
    "tasks.0@g1.1", "tasks", 0, 1, 4, policy(CELERY), "test", State.EXITED, since=1.0, began_at=0.0, pid=9, empty=True
)


@pytest.mark.parametrize(
    ("changes", "needed", "waiting", "left"),
    [
        ({}, True, False, True),
        ({"aftercare": Aftercare(under_way=True)}, True, False, True),
        ({"aftercare": Aftercare(1)}, True, True, False),
        ({"aftercare": Aftercare(1, under_way=True)}, True, False, True),
        ({"aftercare": Aftercare(1, done=True)}, False, False, False),
        ({"pid": None}, False, False, False),
        ({"role": "canary"}, False, False, False),
        ({"policy": policy(COMMAND)}, False, False, False),
        ({"empty": False}, True, False, True),
        ({"state": State.READY, "empty": False}, True, False, True),
    ],
)
def test_what_is_left_of_a_process(changes: dict[str, object], needed: bool, waiting: bool, left: bool) -> None:
    process = replace(ENDED, **changes)  # type: ignore[arg-type]
    assert aftercare.needed(process) is needed
    assert aftercare.is_waiting(process) is waiting
    assert aftercare.is_left(process) is left


def test_a_broker_that_is_away_is_asked_ever_more_rarely_and_for_ever() -> None:
    care, delays = Aftercare(), []
    for _ in range(40):
        care = aftercare.failed(aftercare.asked(care), "refused", 100.0, away=True)
        delays.append(care.not_before - 100.0)
        assert not care.done
        assert not care.under_way
    assert delays[:8] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert set(delays[8:]) == {30.0}


def test_what_failed_while_the_broker_was_away_does_not_count_when_it_is_back() -> None:
    care = Aftercare()
    for _ in range(5):
        care = aftercare.failed(aftercare.asked(care), "refused", 0.0, away=True)
    care = aftercare.failed(aftercare.asked(care), "cannot fork", 0.0, away=False)
    assert (care.done, care.attempts, care.failures) == (False, 6, 1)


def test_other_failures_are_tried_a_few_times() -> None:
    care = Aftercare()
    tried = 0
    while not care.done:
        care = aftercare.failed(aftercare.asked(care), "wrong password", 0.0, away=False)
        tried += 1
    assert (tried, care.last_error) == (aftercare.ATTEMPTS_MAX, "wrong password")
