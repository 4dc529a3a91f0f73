"""Work beside the loop is done once, with a thread and without."""

from __future__ import annotations

import threading

import pytest

from supervisor_d.runtime.threads import Threads


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    return monkeypatch


def test_a_thread_does_it() -> None:
    with Threads(1) as threads:
        assert threads.submit(threading.get_ident).result(5) != threading.get_ident()


def test_without_a_thread_it_is_done_at_once(no_threads: pytest.MonkeyPatch) -> None:
    with Threads(1) as threads:
        future = threads.submit(threading.get_ident)
        assert future.done()
        assert future.result() == threading.get_ident()


def test_an_error_is_for_whoever_asked(no_threads: pytest.MonkeyPatch) -> None:
    with Threads(1) as threads:
        future = threads.submit(int, "x")
        with pytest.raises(ValueError, match="invalid literal"):
            future.result()


def test_what_was_done_is_not_done_again_once_there_are_threads(no_threads: pytest.MonkeyPatch) -> None:
    done: list[int] = []
    with Threads(1) as threads:
        threads.submit(done.append, 1)
        no_threads.undo()
        threads.submit(done.append, 2).result(5)
    assert done == [1, 2]


def test_after_its_end_it_does_nothing() -> None:
    threads = Threads(1)
    threads.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        threads.submit(int)
