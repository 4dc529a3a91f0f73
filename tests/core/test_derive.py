"""From the intent to what planning needs, deploys and their order among it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from supervisor_d.core import intent as intents
from supervisor_d.core.actions import ConcludeRollout, PassGate
from supervisor_d.core.derive import Kinds, derive
from supervisor_d.core.desired import Desired, Rollout
from supervisor_d.core.intent import Intent
from supervisor_d.core.spec import OneByOne, PoolSpec, Role, RolloutPolicy, Traits

WEB1 = PoolSpec("web", "command", 2, None, digest="one")
WEB2 = replace(WEB1, digest="two", workers=3)
GATES: tuple[Role, ...] = ("preflight", "canary")


def accepted(*specs: PoolSpec, after: Intent | None = None, now: float = 0.0) -> Intent:
    return intents.accept(after or Intent(), {spec.name: spec for spec in specs}, now, reason="changed: app")


@pytest.fixture
def rolling() -> Intent:
    return accepted(replace(WEB2, workers=2), after=accepted(WEB1), now=5.0)


class TestWithoutGates:
    @staticmethod
    def derived(intent: Intent, traits: Traits | None = None) -> Desired:
        return derive(intent, Kinds(lambda _: traits or Traits(), lambda _, workers: (1,) * workers))

    def test_what_planning_needs(self, rolling: Intent) -> None:
        desired = self.derived(intents.scale(rolling, "web", 3)).pools["web"]
        assert (desired.generation, desired.sizes, desired.running) == (2, (1, 1, 1), True)
        assert desired.rollout == Rollout(1, 2, "changed: app", 5.0)

    @pytest.mark.parametrize(
        ("policy", "short", "expected"),
        [
            ("auto", "", False),
            ("auto", "too little", True),
            ("always", "", True),
            ("never", "too little", False),
        ],
    )
    def test_one_by_one_if_asked_for_or_if_memory_is_short(self, policy: OneByOne, short: str, expected: bool) -> None:
        new = replace(WEB2, rollout=RolloutPolicy(one_by_one=policy))
        intent = intents.short_of_memory(accepted(new, after=accepted(WEB1), now=5.0), {"web": short, "gone": "x"}, 5.0)
        rollout = self.derived(intent).pools["web"].rollout
        assert rollout is not None
        assert rollout.one_by_one is expected
        assert ("one by one: too little" in rollout.reason) is (policy == "auto" and expected)

    def test_memory_is_asked_for_when_a_rollout_begins(self, rolling: Intent) -> None:
        assert intents.short_of_memory(rolling, {"web": "too little"}, 6.0) == rolling

    def test_a_oneshot_is_never_rolled_back(self, rolling: Intent) -> None:
        assert self.derived(rolling, Traits(oneshot=True)).pools["web"].rollout is None

    def test_the_end_of_the_daemon_stops_every_pool(self, rolling: Intent) -> None:
        dying = self.derived(intents.kill_now(intents.shut_down(rolling, "SIGTERM")))
        assert dying.kill_now
        assert (dying.pools["web"].running, dying.pools["web"].stop_reason) == (False, "SIGTERM")


class TestWithGates:
    @staticmethod
    def derived(intent: Intent) -> Desired:
        return derive(intent, Kinds(lambda _: Traits(), lambda _, workers: (1,) * workers, lambda _: GATES))

    def test_the_old_generation_is_wanted_while_the_new_one_is_tried(self) -> None:
        desired = self.derived(accepted(WEB2, after=accepted(WEB1))).pools["web"]
        assert (desired.generation, desired.sizes, desired.rollout) == (1, (1, 1), None)
        assert desired.trial is not None
        assert (desired.trial.generation, desired.trial.gate) == (2, "preflight")

    def test_it_keeps_its_own_number_until_then_and_an_operators_rules_both(self) -> None:
        trying = accepted(WEB2, after=accepted(WEB1))
        passed = intents.pass_gate(trying, PassGate("web", 2, "preflight", "test"))
        passed = intents.pass_gate(passed, PassGate("web", 2, "canary", "test"))
        assert self.derived(passed).pools["web"].sizes == (1, 1, 1)
        for intent in (trying, passed):
            assert self.derived(intents.scale(intent, "web", 5)).pools["web"].sizes == (1,) * 5

    def test_a_number_that_waits_for_the_rollout_does_not_touch_it(self) -> None:
        behind = intents.scale_once_rolled(accepted(WEB1), "web", 5, 5.0, "its code changed")
        assert self.derived(behind).pools["web"].sizes == (1, 1)

    def test_each_gate_that_was_passed_is_behind_it(self, rolling: Intent) -> None:
        first = intents.pass_gate(rolling, PassGate("web", 2, "preflight", "test"))
        trial = self.derived(first).pools["web"].trial
        assert trial is not None
        assert trial.gate == "canary"
        second = self.derived(intents.pass_gate(first, PassGate("web", 2, "canary", "test"))).pools["web"]
        assert (second.generation, second.trial) == (2, None)
        assert second.rollout == Rollout(1, 2, "changed: app", 5.0)

    def test_a_gate_of_another_generation_changes_nothing(self, rolling: Intent) -> None:
        assert intents.pass_gate(rolling, PassGate("web", 1, "canary", "test")) == rolling

    def test_a_policy_that_changes_meanwhile_sends_nobody_back_behind_its_gates(self) -> None:
        bold = replace(WEB2, rollout=RolloutPolicy(canary=False))
        begun = accepted(bold, after=accepted(WEB1))
        careful = accepted(replace(bold, rollout=RolloutPolicy()), after=begun)
        assert self.derived(careful).pools["web"].trial is None

    def test_a_stopped_pool_has_nobody_to_be_gentle_to(self, rolling: Intent) -> None:
        stopped = intents.stop(rolling, ("web",), "asked")
        assert self.derived(stopped).pools["web"].trial is None
        started = self.derived(intents.start(stopped, ("web",))).pools["web"]
        assert (started.generation, started.trial) == (2, None)

    def test_so_has_one_that_is_restarted_while_it_is_stopped(self) -> None:
        stopped = intents.stop(accepted(WEB1), ("web",), "asked")
        begun = intents.start(intents.restart(stopped, ("web",), 1.0, "asked"), ("web",))
        assert self.derived(begun).pools["web"].trial is None


MIGRATE = PoolSpec("migrate", "oneshot", 1, None, digest="m1")
WORKER = PoolSpec("worker", "command", 1, None, digest="w1", after=("migrate",))
WEB = PoolSpec("web", "command", 1, None, digest="web1", after=("worker",))
ALL = ("migrate", "worker", "web")


class TestDeploy:
    @pytest.fixture
    def deploying(self) -> Intent:
        """A deploy of three pools, the config of two of which has changed."""
        new = accepted(
            replace(MIGRATE, digest="m2"),
            replace(WORKER, digest="w2"),
            WEB,
            after=accepted(MIGRATE, WORKER, WEB),
            now=9.0,
        )
        return intents.deploy(new, ALL, frozenset({"migrate"}), "r2", 9.0)

    @staticmethod
    def derived(intent: Intent) -> Desired:
        def traits_of(spec: PoolSpec) -> Traits:
            return Traits(oneshot=spec.program == "oneshot")

        return derive(intent, Kinds(traits_of, lambda _, workers: (1,) * workers))

    @staticmethod
    def concluded(intent: Intent, pool: str, verdict: str) -> Intent:
        generation = intent.pools[pool].wanted.generation
        return intents.conclude(intent, ConcludeRollout(pool, generation, verdict, "test"), 10.0)  # type: ignore[arg-type]

    def waiting(self, intent: Intent) -> dict[str, tuple[str, ...]]:
        pools = self.derived(intent).pools
        return {name: pool.trial.waits_for for name, pool in pools.items() if pool.trial is not None}

    def test_each_pool_waits_for_those_it_comes_after(self, deploying: Intent) -> None:
        assert self.waiting(deploying) == {"worker": ("migrate",), "web": ("migrate", "worker")}
        assert self.derived(deploying).pools["migrate"].rollout is not None, "the first failure of it is one"
        migrated = self.concluded(deploying, "migrate", "succeeded")
        assert self.waiting(migrated) == {"web": ("worker",)}
        rolled = self.concluded(migrated, "worker", "succeeded")
        assert self.waiting(rolled) == {}
        assert self.derived(rolled).pools["web"].generation == 2

    def test_a_failure_dooms_those_that_come_after(self, deploying: Intent) -> None:
        failed = self.concluded(deploying, "migrate", "rolled-back")
        trial = self.derived(failed).pools["web"].trial
        assert trial is not None
        assert trial.doomed == "migrate, which comes first in the deploy r2, was rolled back"

    def test_a_failure_takes_back_what_had_rolled_as_far_as_it_was_another(self, deploying: Intent) -> None:
        rolled = self.concluded(self.concluded(deploying, "migrate", "succeeded"), "worker", "succeeded")
        failed = self.concluded(rolled, "web", "rolled-back")
        worker = failed.pools["worker"]
        assert worker.rollout is not None
        assert worker.wanted.spec.digest == "w1"
        assert worker.rollout.reason == "web was rolled back, and with it the deploy r2"
        assert failed.pools["migrate"].previous is None, "a oneshot is not taken back"

    def test_what_had_no_memory_for_two_generations_has_none_on_the_way_back(self, deploying: Intent) -> None:
        short = intents.short_of_memory(deploying, {"worker": "too little"}, 9.0)
        rolled = self.concluded(self.concluded(short, "migrate", "succeeded"), "worker", "succeeded")
        rollout = self.derived(self.concluded(rolled, "web", "rolled-back")).pools["worker"].rollout
        assert rollout is not None
        assert (rollout.one_by_one, "too little" in rollout.reason) == (True, True)

    def test_a_failure_gives_up_what_rolls_beside_it(self) -> None:
        two = (replace(WEB, name="one", after=()), replace(WEB, name="two", after=()), replace(WEB, after=()))
        intent = accepted(*(replace(spec, digest="new") for spec in two), after=accepted(*two), now=9.0)
        deploying = intents.deploy(intent, (), frozenset(), "r2", 9.0)
        kept = self.concluded(deploying, "two", "succeeded")
        restarted = intents.restart(kept, ("two",), 9.5, "asked")
        failed = self.concluded(restarted, "one", "rolled-back")
        assert failed.pools["web"].wanted.spec.digest == "web1"
        assert [failed.pools[name].rollouts_total for name in ("web", "two")] == [{"rolled-back": 1}, {"succeeded": 1}]
        assert failed.pools["two"].previous is not None, "it has been restarted since, which is not part of the deploy"

    def test_a_failure_leaves_what_was_only_restarted(self) -> None:
        deploying = intents.deploy(accepted(WORKER, WEB), ("worker", "web"), frozenset(), "r2", 9.0)
        failed = self.concluded(self.concluded(deploying, "worker", "succeeded"), "web", "rolled-back")
        assert failed.pools["worker"].previous is None
        assert failed.pools["worker"].wanted.generation == 2

    def test_a_restart_in_between_is_nobodys_turn(self, deploying: Intent) -> None:
        again = intents.restart(self.concluded(deploying, "migrate", "succeeded"), ("worker",), 11.0, "asked")
        assert self.waiting(again) == {}

    def test_a_pool_that_left_holds_nobody_up(self, deploying: Intent) -> None:
        assert self.waiting(intents.drop(deploying, "migrate")) == {"web": ("worker",)}


class TestRollback:
    def test_goes_to_what_ruled_before(self) -> None:
        rolled = accepted(WEB2, after=accepted(WEB1))
        kept = intents.conclude(rolled, ConcludeRollout("web", 2, "succeeded", "test"), 1.0)
        back = intents.rollback(kept, ("web",), 2.0, "asked").pools["web"]
        assert (back.wanted, back.previous) == (intents.Version(3, WEB1), intents.Version(2, WEB2))

    def test_a_restart_is_nothing_to_go_back_to(self) -> None:
        rolled = accepted(WEB2, after=accepted(WEB1))
        kept = intents.conclude(rolled, ConcludeRollout("web", 2, "succeeded", "test"), 1.0)
        again = intents.restart(kept, ("web",), 2.0, "asked")
        kept = intents.conclude(again, ConcludeRollout("web", 3, "succeeded", "test"), 3.0)
        assert kept.pools["web"].former == intents.Version(1, WEB1)

    def test_gives_up_a_rollout_under_way(self, rolling: Intent) -> None:
        back = intents.rollback(rolling, ("web",), 2.0, "asked").pools["web"]
        assert (back.wanted.generation, back.previous) == (1, None)
        assert back.rollout is not None
        assert (back.rollout.verdict, back.rollout.verdict_reason) == ("rolled-back", "asked")

    def test_without_anything_to_go_back_to_nothing_changes(self) -> None:
        assert intents.rollback(accepted(WEB1), ("web",), 2.0, "asked") == accepted(WEB1)

    def test_a_clean_end_in_between_keeps_it(self) -> None:
        assert intents.begin(accepted(WEB1), {"web": WEB2}).pools["web"].former == intents.Version(1, WEB1)


BEAT = PoolSpec("beat", "command", 1, None, digest="beat1", after=("worker",))


class TestRollbackOfADeploy:
    """r1 and r2 have ruled, and a deploy of r3 is under way."""

    @staticmethod
    def release(*specs: PoolSpec, number: int) -> tuple[PoolSpec, ...]:
        return tuple(replace(spec, digest=f"{spec.name} r{number}") for spec in specs)

    @staticmethod
    def succeeded(intent: Intent, *names: str) -> Intent:
        for name in names:
            generation = intent.pools[name].wanted.generation
            intent = intents.conclude(intent, ConcludeRollout(name, generation, "succeeded", "test"), 10.0)
        return intent

    def deploying(self, *specs: PoolSpec, same: tuple[str, ...] = ()) -> Intent:
        names = tuple(spec.name for spec in specs)
        second = self.release(*specs, number=2)
        intent = accepted(*second, after=accepted(*self.release(*specs, number=1)), now=5.0)
        kept = self.succeeded(intent, *names)
        third = {spec.name: spec for spec in self.release(*specs, number=3)}
        third.update({spec.name: spec for spec in second if spec.name in same})
        once = frozenset({"migrate"}) & set(names)
        return intents.deploy(accepted(*third.values(), after=kept, now=9.0), names, once, "r3", 9.0)

    @staticmethod
    def wanted(intent: Intent) -> dict[str, str]:
        return {name: pool.wanted.spec.digest for name, pool in intent.pools.items()}

    @pytest.mark.parametrize("rolled", [(), ("migrate",), ("migrate", "worker"), ("migrate", "worker", "beat")])
    @pytest.mark.parametrize("order", [(MIGRATE, WORKER, WEB, BEAT), (BEAT, WEB, WORKER, MIGRATE)])
    def test_all_go_back_to_what_ruled_before_it_in_any_order(
        self, order: tuple[PoolSpec, ...], rolled: tuple[str, ...]
    ) -> None:
        deploying = self.succeeded(self.deploying(*order), *rolled)
        back = intents.rollback(deploying, tuple(spec.name for spec in order), 12.0, "asked")
        migrated = "migrate r3" if rolled else "migrate r2"
        expected = {"migrate": migrated, "worker": "worker r2", "web": "web r2", "beat": "beat r2"}
        assert self.wanted(back) == expected
        ways = {name: pool.previous is not None for name, pool in back.pools.items()}
        assert ways == {name: name in rolled and name != "migrate" for name in expected}

    def test_what_it_only_restarted_stays(self) -> None:
        deploying = self.succeeded(self.deploying(WORKER, WEB, same=("worker",)), "worker")
        back = intents.rollback(deploying, ("worker", "web"), 12.0, "asked")
        assert self.wanted(back) == {"worker": "worker r2", "web": "web r2"}
        assert back.pools["worker"].previous is None

    def test_what_is_no_part_of_it_goes_its_own_way(self) -> None:
        deploying = self.succeeded(self.deploying(WORKER, WEB), "worker")
        again = self.succeeded(accepted(replace(WORKER, digest="new"), replace(WEB, digest="web r3"), after=deploying))
        again = self.succeeded(again, "worker")
        back = intents.rollback(again, ("worker", "web"), 12.0, "asked")
        assert self.wanted(back) == {"worker": "worker r3", "web": "web r2"}
