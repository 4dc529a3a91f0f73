from __future__ import annotations

import pytest

from supervisor_d.core.events import Ailing, BecameReady, Event, MainExited, ScaleRefused, Spawned, WorkersReported
from supervisor_d.core.process import Exit
from supervisor_d.core.spec import Traits
from tests.core.transcript import GUNICORN, Transcript, pool

OLD, NEW = "web.0@g1.1", "web.0@g2.2"


@pytest.fixture
def t() -> Transcript:
    """Four workers of g1 serve, and g2 begins to take over."""
    t = Transcript(pool("web", (4,), traits=GUNICORN))
    t.does(f"spawn {OLD}")
    t.starts(OLD)
    t.hears(WorkersReported(OLD, 4, 4))
    t.rolls("web", 2, one_by_one=True)
    t.does(f"spawn {NEW}")
    return t


def counted(t: Transcript, process_id: str, workers: int) -> None:
    t.hears(WorkersReported(process_id, workers, workers))


def begins(t: Transcript) -> None:
    t.hears(Spawned(NEW, 200), WorkersReported(NEW, 1, 1), BecameReady(NEW))


def test_the_whole_way(t: Transcript) -> None:
    assert t.process(NEW).workers == 1
    begins(t)
    for new in (1, 2, 3):
        t.does(f"scale {OLD} to {4 - new}")
        counted(t, OLD, 4 - new)
        t.does(f"scale {NEW} to {new + 1}")
        t.hears(WorkersReported(NEW, new + 1, new))
        t.does()
        counted(t, NEW, new + 1)
    t.does(f"TERM {OLD}", "web g2 succeeded")


def test_the_reason_says_who_takes_over(t: Transcript) -> None:
    begins(t)
    t.does(f"scale {OLD} to 3")
    assert t.reasons == ["g2 takes over one by one: 3 workers here, has 4"]


def test_each_step_waits_for_the_one_before(t: Transcript) -> None:
    begins(t)
    t.does(f"scale {OLD} to 3")
    t.does()
    t.hears(WorkersReported(OLD, 4, 3))
    t.does()


def test_an_end_of_the_old_one_leaves_the_whole_size_to_the_new_one(t: Transcript) -> None:
    begins(t)
    t.does(f"scale {OLD} to 3")
    t.hears(MainExited(OLD, Exit(signal=9)))
    t.does(f"scale {NEW} to 4")
    counted(t, NEW, 4)
    t.does("web g2 succeeded")


def test_without_an_old_one_nothing_is_shared() -> None:
    t = Transcript(pool("web", (4,), traits=GUNICORN))
    t.rolls("web", 2, one_by_one=True)
    t.does("spawn web.0@g2.1")
    assert t.process("web.0@g2.1").workers == 4


def test_an_old_one_that_cannot_be_resized_lets_the_new_one_grow(t: Transcript) -> None:
    begins(t)
    t.does(f"scale {OLD} to 3")
    t.hears(ScaleRefused(OLD, 3, "no answer"))
    t.does(f"scale {NEW} to 4")
    counted(t, NEW, 4)
    t.does(f"TERM {OLD}", "web g2 succeeded")


def test_a_size_that_grows_meanwhile_is_the_new_ones_to_reach(t: Transcript) -> None:
    begins(t)
    t.does(f"scale {OLD} to 3")
    counted(t, OLD, 3)
    t.does(f"scale {NEW} to 2")
    t.wants("web", sizes=(5,))
    t.does(f"scale {NEW} to 3")


def test_only_what_is_resized_in_place_goes_one_by_one() -> None:
    t = Transcript(pool("job", (1,), traits=Traits()))
    t.does("spawn job.0@g1.1")
    t.starts("job.0@g1.1")
    t.rolls("job", 2, one_by_one=True)
    t.does("spawn job.0@g2.2")
    t.starts("job.0@g2.2")
    t.does("TERM job.0@g1.1", "job g2 succeeded")


class TestGivenUp:
    """With one old worker and three new ones, the rollout is given up."""

    @pytest.fixture
    def back(self, t: Transcript) -> Transcript:
        begins(t)
        for new in (1, 2):
            t.does(f"scale {OLD} to {4 - new}")
            counted(t, OLD, 4 - new)
            t.does(f"scale {NEW} to {new + 1}")
            counted(t, NEW, new + 1)
        t.does(f"scale {OLD} to 1")
        counted(t, OLD, 1)
        t.wants("web", rollout=None, generation=1)
        return t

    def test_they_change_places_back_one_at_a_time(self, back: Transcript) -> None:
        for old in (2, 3):
            back.does(f"scale {OLD} to {old}")
            counted(back, OLD, old)
            back.does(f"scale {NEW} to {4 - old}")
            counted(back, NEW, 4 - old)
        back.does(f"scale {OLD} to 4")
        back.does()
        counted(back, OLD, 4)
        back.does(f"TERM {NEW}")
        back.ends(NEW)
        back.does(f"forget {NEW}")

    def test_a_new_one_that_ends_or_ails_leaves_the_whole_size_to_the_old_one(self, back: Transcript) -> None:
        back.does(f"scale {OLD} to 2")
        back.hears(Ailing(NEW, "its workers keep crashing"))
        back.does(f"scale {OLD} to 4")
        back.ends(NEW)
        back.does(f"forget {NEW}")

    @pytest.mark.parametrize("why", [ScaleRefused(OLD, 2, "no answer"), Ailing(OLD, "its workers keep crashing")])
    def test_an_old_one_that_cannot_grow_is_replaced(self, back: Transcript, why: Event) -> None:
        back.does(f"scale {OLD} to 2")
        back.hears(why)
        back.does(f"TERM {OLD}")
        back.ends(OLD)
        back.does("spawn web.0@g1.3", f"forget {OLD}")
        back.starts("web.0@g1.3")
        back.hears(WorkersReported("web.0@g1.3", 4, 4))
        back.does(f"TERM {NEW}")
