from __future__ import annotations

from dataclasses import replace

import pytest

from supervisor_d.core import intent as intents
from supervisor_d.core.actions import ConcludeRollout
from supervisor_d.core.intent import Intent, PoolIntent
from supervisor_d.core.spec import PoolSpec, RolloutPolicy

WEB1 = PoolSpec("web", "command", 2, None, digest="one")
WEB2 = replace(WEB1, digest="two")
DB = PoolSpec("db", "command", 1, None, digest="db")


def accepted(*specs: PoolSpec, after: Intent | None = None, now: float = 0.0) -> Intent:
    return intents.accept(after or Intent(), {spec.name: spec for spec in specs}, now, reason="changed: app")


def web(intent: Intent) -> PoolIntent:
    return intent.pools["web"]


def verdict(word: str, generation: int = 2) -> ConcludeRollout:
    return ConcludeRollout("web", generation, word, "test")  # type: ignore[arg-type]


@pytest.fixture
def rolling() -> Intent:
    return accepted(WEB2, after=accepted(WEB1), now=5.0)


class TestAccept:
    def test_new_pools_start_as_g1_in_the_configs_order(self) -> None:
        intent = accepted(WEB1, DB)
        assert list(intent.pools) == ["web", "db"]
        assert web(intent).wanted == intents.Version(1, WEB1)
        assert web(intent).rollout is None

    def test_the_same_config_changes_nothing(self) -> None:
        intent = accepted(WEB1, DB)
        assert accepted(WEB1, DB, after=intent) == intent

    def test_an_equal_digest_updates_without_a_rollout(self) -> None:
        patient = replace(WEB1, after=("db",))
        intent = accepted(patient, after=accepted(WEB1))
        assert (web(intent).wanted, web(intent).rollout) == (intents.Version(1, patient), None)

    @pytest.mark.parametrize("spec", [WEB2, replace(WEB1, program="gunicorn")])
    def test_another_digest_or_program_is_a_rollout(self, spec: PoolSpec) -> None:
        pool = web(accepted(spec, after=accepted(WEB1), now=5.0))
        assert (pool.wanted, pool.previous) == (intents.Version(2, spec), intents.Version(1, WEB1))
        assert pool.rollout == intents.RolloutRecord(1, 2, "changed: app", 5.0)

    def test_a_rollout_that_is_overtaken_keeps_where_it_would_go_back_to(self, rolling: Intent) -> None:
        pool = web(accepted(replace(WEB1, digest="three"), after=rolling))
        assert (pool.wanted.generation, pool.previous) == (3, intents.Version(1, WEB1))

    def test_a_rollout_that_was_spared_its_gates_does_not_go_back_behind_them(self, rolling: Intent) -> None:
        spared = accepted(replace(WEB2, rollout=RolloutPolicy(canary=False)), after=rolling)
        again = web(accepted(WEB2, after=spared))
        assert (again.wanted.generation, again.rollout) == (
            2,
            intents.RolloutRecord(1, 2, "changed: app", 5.0, gated=False),
        )

    def test_a_pool_that_left_is_stopped_and_one_that_comes_back_starts(self) -> None:
        gone = accepted(DB, after=intents.scale(accepted(WEB1, DB), "web", 5))
        assert (web(gone).removed, web(gone).running, web(gone).stop_reason) == (True, False, "it left the config")
        back = web(accepted(WEB1, after=gone))
        assert (back.removed, back.running, back.epoch, back.workers, back.wanted.generation) == (
            False,
            True,
            1,
            None,
            1,
        )

    def test_a_stopped_pool_stays_stopped(self) -> None:
        stopped = intents.stop(accepted(WEB1), ("web",), "asked")
        assert not web(accepted(WEB2, after=stopped)).running


class TestRetired:
    def test_a_generation_that_is_wanted_no_more_is_still_known(self, rolling: Intent) -> None:
        kept = intents.conclude(rolling, verdict("succeeded"), 9.0)
        assert (intents.spec_of(kept, "web", 1), intents.known_spec(kept, "web", 1)) == (None, WEB1)
        back = intents.conclude(rolling, verdict("rolled-back"), 9.0)
        assert (intents.spec_of(back, "web", 2), intents.known_spec(back, "web", 2)) == (None, WEB2)
        assert intents.known_spec(back, "web", 3) is None
        assert intents.known_spec(back, "db", 1) is None

    def test_one_that_is_overtaken_too(self, rolling: Intent) -> None:
        overtaken = accepted(replace(WEB1, digest="three"), after=rolling)
        assert [intents.known_spec(overtaken, "web", n) is not None for n in (1, 2, 3)] == [True, True, True]

    def test_only_the_last_few(self) -> None:
        intent = accepted(WEB1)
        for number in range(2, 9):
            intent = intents.conclude(
                intents.restart(intent, ("web",), 1.0, "again"), verdict("succeeded", number), 2.0
            )
        assert [version.generation for version in web(intent).retired] == [7, 6, 5, 4]


class TestScale:
    def test_holds_until_the_config_says_another_number(self) -> None:
        scaled = intents.scale(accepted(WEB1), "web", 6)
        assert web(scaled).wanted_workers == 6
        assert web(accepted(WEB2, after=scaled)).wanted_workers == 6
        assert web(accepted(replace(WEB1, workers=3), after=scaled)).wanted_workers == 3

    def test_back_to_the_config(self) -> None:
        assert web(intents.scale(intents.scale(accepted(WEB1), "web", 6), "web", None)).wanted_workers == 2


class TestScaleOnceRolled:
    @pytest.fixture
    def behind(self) -> Intent:
        """`web` is to have five workers once another generation has come up."""
        return intents.scale_once_rolled(accepted(WEB1), "web", 5, 5.0, "its code changed")

    def test_the_number_waits_for_the_rollouts_success(self, behind: Intent) -> None:
        assert (web(behind).wanted_workers, web(behind).previous) == (2, intents.Version(1, WEB1))
        assert web(intents.conclude(behind, verdict("succeeded"), 9.0)).wanted_workers == 5
        assert web(intents.conclude(behind, verdict("rolled-back"), 9.0)).wanted_workers == 2

    def test_as_configured(self) -> None:
        less = intents.scale(accepted(WEB1), "web", 1)
        behind = intents.scale_once_rolled(less, "web", None, 5.0, "its code changed")
        assert web(behind).wanted_workers == 1
        assert web(intents.conclude(behind, verdict("succeeded"), 9.0)).wanted_workers == 2

    def test_a_later_one_rules(self, behind: Intent) -> None:
        later = intents.scale(behind, "web", 3)
        assert web(later).wanted_workers == 3
        assert web(intents.conclude(later, verdict("succeeded"), 9.0)).wanted_workers == 3

    @pytest.mark.parametrize(("spec", "generation"), [(WEB1, 2), (WEB2, 3)])
    def test_a_reload_in_between_changes_it_only_with_the_configs_own_number(
        self, behind: Intent, spec: PoolSpec, generation: int
    ) -> None:
        same = accepted(spec, after=behind, now=6.0)
        assert web(intents.conclude(same, verdict("succeeded", generation), 9.0)).wanted_workers == 5
        other = accepted(replace(spec, workers=4), after=behind, now=6.0)
        assert web(other).wanted_workers == 4
        assert web(intents.conclude(other, verdict("succeeded", generation), 9.0)).wanted_workers == 4

    def test_the_next_rollout_does_not_repeat_it(self, behind: Intent) -> None:
        done = intents.scale(intents.conclude(behind, verdict("succeeded"), 9.0), "web", 3)
        again = intents.restart(done, ("web",), 10.0, "again")
        assert web(intents.conclude(again, verdict("succeeded", 3), 12.0)).wanted_workers == 3


class TestStartStopRestart:
    def test_each_start_is_an_epoch_of_its_own(self) -> None:
        stopped = intents.stop(accepted(WEB1, DB), ("web",), "asked")
        assert (web(stopped).running, web(stopped).stop_reason) == (False, "asked")
        started = intents.start(stopped, ("web", "db"))
        assert (web(started).running, web(started).stop_reason, web(started).epoch) == (True, "", 1)
        assert started.pools["db"].epoch == 0, "it ran already"

    def test_what_left_the_config_does_not_start(self) -> None:
        gone = accepted(DB, after=accepted(WEB1, DB))
        assert intents.start(gone, ("web",)) == gone

    def test_restart_is_a_rollout_of_the_same_spec(self) -> None:
        pool = web(intents.restart(accepted(WEB1), ("web",), 7.0, "restart by root"))
        assert (pool.wanted, pool.previous) == (intents.Version(2, WEB1), intents.Version(1, WEB1))


class TestConclude:
    def test_the_worked_example(self, rolling: Intent) -> None:
        kept = web(intents.conclude(rolling, verdict("succeeded"), 9.0))
        assert (kept.wanted, kept.previous, kept.rollouts_total) == (intents.Version(2, WEB2), None, {"succeeded": 1})
        back = intents.conclude(rolling, verdict("rolled-back"), 9.0)
        assert (web(back).wanted, web(back).previous) == (intents.Version(1, WEB1), None)
        assert web(back).rollout == intents.RolloutRecord(1, 2, "changed: app", 5.0, "rolled-back", "test", 9.0)
        assert web(accepted(WEB2, after=back)).wanted.generation == 3, "the same file is a new try"

    def test_a_verdict_that_comes_too_late_changes_nothing(self, rolling: Intent) -> None:
        assert intents.conclude(rolling, verdict("succeeded", generation=1), 9.0) == rolling
        done = intents.conclude(rolling, verdict("succeeded"), 9.0)
        assert intents.conclude(done, verdict("rolled-back"), 9.0) == done

    def test_on_trial_until_then(self, rolling: Intent) -> None:
        assert intents.on_trial(rolling, "web", 2)
        assert not intents.on_trial(rolling, "web", 1)
        assert not intents.on_trial(rolling, "db", 2)
        assert not intents.on_trial(intents.conclude(rolling, verdict("succeeded"), 9.0), "web", 2)


class TestLivesOfTheDaemon:
    def test_a_clean_start_has_no_rollouts_and_all_run(self, rolling: Intent) -> None:
        old = intents.scale(intents.stop(rolling, ("web",), "asked"), "web", 6)
        begun = intents.begin(intents.shut_down(old, "SIGTERM"), {"web": WEB2, "db": DB})
        assert (web(begun).running, web(begun).previous, web(begun).rollout) == (True, None, None)
        assert (web(begun).wanted.generation, web(begun).workers, begun.stopping) == (2, 6, "")
        changed = web(intents.begin(old, {"web": replace(WEB1, digest="three", workers=4)}))
        assert (changed.wanted.generation, changed.latest_generation, changed.wanted_workers) == (3, 3, 4)

    def test_after_a_death_all_stands_but_the_end(self, rolling: Intent) -> None:
        dying = intents.kill_now(intents.shut_down(rolling, "SIGTERM"))
        assert (dying.stopping, dying.kill_now) == ("SIGTERM", True)
        assert intents.shut_down(dying, "again").stopping == "SIGTERM"
        assert intents.revived(dying) == rolling

    def test_a_pool_of_which_nothing_is_left_is_dropped(self, rolling: Intent) -> None:
        assert intents.drop(rolling, "web").pools == {}

    def test_the_bound_on_starts(self) -> None:
        assert intents.with_starts_at_once(Intent(), 3).starts_at_once == 3
