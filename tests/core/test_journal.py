from __future__ import annotations

from typing import get_args

import pytest

from supervisor_d.core import actions as act
from supervisor_d.core import events as ev
from supervisor_d.core.journal import History, Note, describe_action, describe_event, log_to_quote, pool_of
from supervisor_d.core.observed import Observed
from supervisor_d.core.process import Exit, TasksLeft
from tests.core.transcript import Transcript, policy, pool

ID = "web.0@g1.1"


@pytest.fixture
def t() -> Transcript:
    found = Transcript(pool("web"))
    found.does("spawn web.0@g1.1")
    return found


EVENTS: list[tuple[ev.Event, str]] = [
    (ev.SpawnBegan(ID, "web", 0, 1, 1, policy(), 0, "why"), ""),
    (ev.Spawned(ID, 4711), "spawned: runs as pid 4711"),
    (ev.SpawnFailed(ID, "cannot fork"), "spawn-failed: cannot fork"),
    (ev.BecameReady(ID), "became-ready: answered: it may serve"),
    (ev.NotReadyYet(ID, "http / answered 503"), ""),
    (ev.WorkersReported(ID, 2, 1), "workers-reported: 2 workers live, 1 ready"),
    (ev.WorkersReported(ID, 0, 0), ""),
    (ev.WorkerExited(ID, 9, Exit(signal=9)), "worker-exited: its worker 9 killed by SIGKILL"),
    (ev.Remarked(ID, "holds the lease"), "remarked: holds the lease"),
    (ev.Remarked(ID, ""), ""),
    (ev.Ailing(ID, "its workers keep crashing"), "ailing: its workers keep crashing: it is replaced"),
    (ev.ScaleAsked(ID, 2, "why"), ""),
    (ev.ScaleRefused(ID, 3, "no agent"), "scale-refused: cannot be brought to 3 workers in place: no agent"),
    (ev.StopSignalled(ID, 0, 9.0, "why", expected=True), ""),
    (ev.StepDone(ID, 0), ""),
    (ev.TasksReported(ID, TasksLeft()), ""),
    (
        ev.TasksReported(ID, TasksLeft(2, 0, 0, 9.0, "shop.pay"), 50.0),
        "tasks-reported: 2 tasks left, the oldest 41 s: shop.pay",
    ),
    (ev.FoundStuck(ID, "silent"), ""),
    (ev.StacksAsked(ID), ""),
    (ev.RestoreAsked(ID), ""),
    (ev.Restored(ID, "3 messages held", 3), "restored: 3 messages held"),
    (ev.Restored(ID, ""), ""),
    (
        ev.RestoreFailed(ID, "connection refused", away=True),
        "restore-failed: what it held is not given back yet: connection refused",
    ),
    (ev.KillSent(ID, "why", expected=True), ""),
    (ev.MainExited(ID, Exit(code=3)), "main-exited: exited with code 3, by itself"),
    (ev.TreeEmptied(ID, proven=True, killed=0), "tree-emptied: nothing is left of its tree"),
    (
        ev.TreeEmptied(ID, proven=True, killed=2),
        "tree-emptied: 2 left over by it were killed, nothing is left of its tree",
    ),
    (ev.TreeEmptied(ID, proven=False, killed=0), "tree-emptied: nothing is known to be left (not proven)"),
    (ev.ShimLost(ID), "shim-lost: its shim died"),
    (
        ev.ShimReplaced(ID),
        "shim-replaced: its shim died; another one keeps its log, its sockets and its exit",
    ),
    (ev.Forgotten(ID), ""),
    (ev.SuccessRecorded("web", 1), ""),
    (ev.FailureCleared("web"), "failure-cleared: an operator asked for a fresh try"),
    (ev.PoolRemoved("web"), ""),
]


class TestEvents:
    @pytest.mark.parametrize(("event", "line"), EVENTS, ids=lambda value: type(value).__name__)
    def test_each_in_words_unless_an_action_told_it(self, t: Transcript, event: ev.Event, line: str) -> None:
        note = describe_event(event, t.observed)
        assert (f"{note.name}: {note.reason}" if note else "") == line
        assert note is None or (note.kind, note.pool) == ("event", "web")

    def test_none_is_missing(self) -> None:
        assert {type(event) for event, _ in EVENTS} | {ev.Adopted} == set(get_args(ev.Event))

    def test_adoption(self, t: Transcript) -> None:
        note = describe_event(ev.Adopted(t.process(ID), 1), Observed())
        assert note == Note("event", "adopted", "web", ID, "taken over from a former daemon, starting")

    def test_what_is_ailing_already_is_no_line(self, t: Transcript) -> None:
        t.starts(ID)
        t.hears(ev.Ailing(ID, "its workers keep crashing"))
        assert describe_event(ev.Ailing(ID, "another reason"), t.observed) is None

    def test_an_answer_that_comes_again_is_no_line(self, t: Transcript) -> None:
        t.starts(ID)
        assert describe_event(ev.BecameReady(ID), t.observed) is None

    def test_that_nothing_is_left_is_told_after_something_was(self, t: Transcript) -> None:
        t.hears(ev.TasksReported(ID, TasksLeft(1)))
        note = describe_event(ev.TasksReported(ID, TasksLeft()), t.observed)
        assert note is not None
        assert note.reason == "no task is left"

    def test_a_failure_to_restore_is_told_once_for_each_reason(self, t: Transcript) -> None:
        failed = ev.RestoreFailed(ID, "connection refused", away=True)
        t.hears(ev.Spawned(ID, 9), ev.MainExited(ID, Exit(code=0)), ev.RestoreAsked(ID), failed)
        assert describe_event(failed, t.observed) is None
        assert describe_event(ev.RestoreFailed(ID, "wrong password", away=False), t.observed) is not None

    @pytest.mark.parametrize(("expected", "text"), [(True, "as asked: why"), (False, "stopped: why")])
    def test_an_end_says_whether_it_was_asked_for(self, t: Transcript, expected: bool, text: str) -> None:
        t.hears(ev.StopSignalled(ID, 0, 9.0, "why", expected=expected))
        note = describe_event(ev.MainExited(ID, Exit(code=0)), t.observed)
        assert note is not None
        assert note.reason == f"exited with code 0, {text}"


class TestLogToQuote:
    EMPTIED = ev.TreeEmptied(ID, proven=True, killed=0)

    def test_the_log_of_what_ended_with_an_error_once_it_is_whole(self, t: Transcript) -> None:
        t.at(4.0)
        t.starts(ID)
        ended = ev.MainExited(ID, Exit(code=255))
        assert log_to_quote(ended, t.observed) == ("", 0.0), "its last words may still be under way"
        t.hears(ended)
        assert log_to_quote(self.EMPTIED, t.observed) == ("web.0", t.process(ID).began_at)

    @pytest.mark.parametrize("ended", [Exit(code=0), Exit(signal=9)])
    def test_not_of_a_good_end_nor_of_a_kill(self, t: Transcript, ended: Exit) -> None:
        t.starts(ID)
        t.hears(ev.MainExited(ID, ended))
        assert log_to_quote(self.EMPTIED, t.observed) == ("", 0.0)

    def test_not_of_what_was_asked_to_end(self, t: Transcript) -> None:
        t.starts(ID)
        t.hears(ev.StopSignalled(ID, 0, 9.0, "why", expected=True), ev.MainExited(ID, Exit(code=1)))
        assert log_to_quote(self.EMPTIED, t.observed) == ("", 0.0)

    def test_not_where_another_process_of_the_slot_writes_already(self, t: Transcript) -> None:
        t.starts(ID)
        t.hears(ev.MainExited(ID, Exit(code=255)))
        t.hears(ev.SpawnBegan("web.0@g1.2", "web", 0, 1, 1, policy(), 0, "why"))
        assert log_to_quote(self.EMPTIED, t.observed)[0] == "web.0"
        t.starts("web.0@g1.2")
        assert log_to_quote(self.EMPTIED, t.observed) == ("", 0.0)

    def test_of_what_is_not_well(self, t: Transcript) -> None:
        t.starts(ID)
        assert log_to_quote(ev.Ailing(ID, "no workers"), t.observed)[0] == "web.0"


ACTIONS: list[tuple[act.Action, Note]] = [
    (act.Spawn(ID, "web", 0, 1, 1, policy(), 0, "why"), Note("action", "spawn", "web", ID, "why")),
    (
        act.Spawn(ID, "web", 0, 1, 1, policy(), 0, "why", "canary"),
        Note("action", "spawn", "web", ID, "canary: why"),
    ),
    (act.Signal(ID, "TERM", 0, 9.0, "why", expected=True), Note("action", "signal", "web", ID, "TERM: why")),
    (
        act.Signal(ID, "QUIT", 1, 9.0, "why", expected=True, left="2 tasks left"),
        Note("action", "signal", "web", ID, "QUIT: why; 2 tasks left"),
    ),
    (
        act.DriverStep(ID, "DRAIN", 0, 9.0, "why", expected=True),
        Note("action", "driver-step", "web", ID, "DRAIN: why"),
    ),
    (act.TakeStacks(ID, "why"), Note("action", "take-stacks", "web", ID, "why")),
    (act.Restore(ID, "why"), Note("action", "restore", "web", ID, "why")),
    (act.Kill(ID, "why", expected=True), Note("action", "kill", "web", ID, "why")),
    (act.Scale(ID, 4, "why"), Note("action", "scale", "web", ID, "to 4 workers: why")),
    (act.Forget(ID, "why"), Note("action", "forget", "web", ID, "why")),
    (act.RecordSuccess("web", 1, "why"), Note("action", "record-success", "web", "web", "why")),
    (
        act.ConcludeRollout("web", 2, "rolled-back", "why"),
        Note("action", "conclude-rollout", "web", "web", "g2 rolled-back: why"),
    ),
    (act.PassGate("web", 2, "canary", "why"), Note("action", "pass-gate", "web", "web", "why")),
    (act.DropPool("web", "why"), Note("action", "drop-pool", "web", "web", "why")),
]


class TestActions:
    @pytest.mark.parametrize(("action", "note"), ACTIONS, ids=lambda value: type(value).__name__)
    def test_each_in_words(self, action: act.Action, note: Note) -> None:
        assert describe_action(action) == note

    def test_none_is_missing(self) -> None:
        assert {type(action) for action, _ in ACTIONS} == set(get_args(act.Action))


class TestHistory:
    def test_old_entries_fall_off_and_numbers_go_on(self) -> None:
        history = History(2)
        for number in range(3):
            history.append(Note("event", "spawned", "web", ID, str(number)), at=float(number))
        assert [(entry.serial, entry.reason, entry.at) for entry in history.entries()] == [(2, "1", 1.0), (3, "2", 2.0)]
        again = History(2, history.entries())
        assert again.append(Note("event", "spawned", "web", ID, ""), at=3.0).serial == 4

    def test_of_one_pool_or_slot_or_behind_a_serial(self) -> None:
        history = History(10)
        for subject in ("web.0@g1.1", "web.1@g1.2", "web.10@g1.3", "db.0@g1.4", "web"):
            history.append(Note("event", "spawned", pool_of(subject) or subject, subject, ""), at=0.0)
        assert [e.serial for e in history.entries(pool="web")] == [1, 2, 3, 5]
        assert [e.serial for e in history.entries(subject="web.1")] == [2]
        assert [e.serial for e in history.entries(subject="web.1@g1.2")] == [2]
        assert [e.serial for e in history.entries(after=4)] == [5]
