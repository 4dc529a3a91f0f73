"""The lease on a Redis and a clock of the test's own: who holds it, for how long, and when a holder ends itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor_d.agents.supervisor_d_lease import HOLD, LATE, MARGIN_SHARE, RELEASE, TAKE, Lease

TTL = 15.0
TRUSTED = TTL * (1 - MARGIN_SHARE)
ANOTHER_HAS_IT = "another has it, or Redis has lost it"


class EndedError(Exception):
    """This process ended itself."""


class AwayError(Exception):
    """Redis did not answer."""


def fence(why: str) -> NoReturn:
    raise EndedError(why)


def _nothing() -> None:
    """In a pause, usually."""


@dataclass(slots=True)
class World:
    """A clock, and a Redis that lives by it.  `answers_after` is how long an answer is on its way."""

    now: float = 100.0
    lease: tuple[str, float] | None = None
    ran: dict[str, str] = field(default_factory=dict)
    away: bool = False
    answers_after: float = 0.0
    pauses: list[float] = field(default_factory=list)
    in_pause: Callable[[], object] = _nothing

    def host(self, token: str) -> Lease:
        return Lease(
            self, "beat", TTL, token, fence=fence, errors=(AwayError,), clock=lambda: self.now, pause=self.pause
        )

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds
        self.in_pause()

    def holder(self) -> str:
        if self.lease is not None and self.lease[1] <= self.now:
            self.lease = None
        return self.lease[0] if self.lease else ""

    # the client

    def eval(self, script: str, _: int, key: str, *arguments: Any) -> object:
        self._asked()
        try:
            does: dict[str, Callable[..., object]] = {TAKE: self._take, HOLD: self._hold, RELEASE: self._release}
            return does[script](*arguments)
        finally:
            self.now += self.answers_after

    def _take(self, token: str, ttl_ms: int, predecessor: str) -> str:
        if self.holder() not in ("", token, predecessor):
            return self.holder()
        self.lease = (token, self.now + ttl_ms / 1000)
        return ""

    def _hold(self, notes: str, token: str, ttl_ms: int, name: str, at: str, _: int) -> int:
        assert notes == "beat:ran"
        if self.holder() != token:
            return 0
        self.lease = (token, self.now + ttl_ms / 1000)
        if name:
            self.ran[name] = at
        return 1

    def _release(self, token: str) -> int:
        if self.holder() != token:
            return 0
        self.lease = None
        return 1

    def pttl(self, _: str) -> int:
        self._asked()
        return int((self.lease[1] - self.now) * 1000) if self.holder() and self.lease else -2

    def hmget(self, key: str, names: list[str]) -> list[str | None]:
        self._asked()
        assert key == "beat:ran"
        return [self.ran.get(name) for name in names]

    def _asked(self) -> None:
        if self.away:
            raise AwayError


class TestStandingBy:
    def test_one_holds_and_the_other_learns_who(self) -> None:
        world = World()
        a, b = world.host("a"), world.host("b")
        assert a.take() == ""
        assert b.take() == "a"
        assert (a.held, b.held) == (True, False)
        assert b.left_seconds() < 0

    def test_it_is_free_when_its_time_is_over(self) -> None:
        world = World()
        world.host("a").take()
        world.now += TTL - 0.01
        assert world.host("b").take() == "a"
        world.now += 0.02
        assert world.host("b").take() == ""

    def test_a_predecessor_that_is_known_to_have_ended_is_not_waited_for(self) -> None:
        world = World()
        world.host("a").take()
        assert world.host("b").take("x") == "a"
        assert world.host("b").take("a") == ""
        assert world.holder() == "b"

    def test_who_has_it_may_take_it_again(self) -> None:
        world = World()
        a = world.host("a")
        assert a.take() == ""
        assert a.take() == ""

    def test_it_looks_again_when_the_lease_may_run_out_and_never_after_long(self) -> None:
        world = World()
        a, b = world.host("a"), world.host("b")
        a.take()
        assert b.wait_seconds() == 2.0
        world.now += TTL - 1
        assert b.wait_seconds() == pytest.approx(1.0)
        world.now += 1
        assert b.wait_seconds() == 0.05

    def test_what_former_holders_did_is_known(self) -> None:
        world = World()
        a, b = world.host("a"), world.host("b")
        a.take()
        a.permit("tick", "2026-01-01T04:00:00+00:00")
        assert b.noted(["tick", "other"]) == {"tick": "2026-01-01T04:00:00+00:00"}
        assert b.noted([]) == {}

    def test_trouble_is_told(self) -> None:
        world = World(away=True)
        with pytest.raises(AwayError):
            world.host("a").take()
        with pytest.raises(AwayError):
            world.host("a").noted(["tick"])


class TestHolding:
    def test_it_is_trusted_less_long_than_redis_keeps_it(self) -> None:
        world = World()
        a = world.host("a")
        a.take()
        world.now += TRUSTED - 0.01
        a.check()
        world.now += 0.02
        with pytest.raises(EndedError, match=LATE):
            a.check()
        assert world.holder() == "a"

    def test_its_time_counts_from_the_question_not_from_the_answer(self) -> None:
        world = World(answers_after=5.0)
        a = world.host("a")
        a.take()
        assert a.left_seconds() == pytest.approx(TRUSTED - 5.0)

    def test_renewing_puts_the_end_off(self) -> None:
        world = World()
        a = world.host("a")
        a.take()
        for _ in range(10):
            world.now += TTL / 3
            assert a.renew()
        assert a.left_seconds() == pytest.approx(TRUSTED)
        assert world.holder() == "a"

    def test_a_renewal_without_an_answer_puts_nothing_off(self) -> None:
        world = World()
        a = world.host("a")
        a.take()
        world.away = True
        world.now += 1
        assert not a.renew()
        assert a.left_seconds() == pytest.approx(TRUSTED - 1)

    @pytest.mark.parametrize("other", ["", "b"])
    def test_a_lease_that_is_lost_ends_its_holder(self, other: str) -> None:
        world = World()
        a = world.host("a")
        a.take()
        world.lease = (other, world.now + TTL) if other else None
        with pytest.raises(EndedError, match=ANOTHER_HAS_IT):
            a.renew()

    def test_a_released_lease_is_anothers_at_once(self) -> None:
        world = World()
        a = world.host("a")
        a.take()
        a.release()
        assert world.host("b").take() == ""
        assert not a.held
        assert a.renew(), "what is on its way still is no reason to end again"
        with pytest.raises(EndedError):
            a.permit("tick", "now")


class TestAnAct:
    def test_it_is_noted_before_it_is_done(self) -> None:
        world = World()
        a = world.host("a")
        a.take()
        a.permit("tick", "at four")
        assert world.ran == {"tick": "at four"}

    def test_nothing_is_done_and_noted_once_another_has_the_lease(self) -> None:
        world = World()
        a = world.host("a")
        a.take()
        world.lease = ("b", world.now + TTL)
        with pytest.raises(EndedError, match=ANOTHER_HAS_IT):
            a.permit("tick", "at four")
        assert world.ran == {}

    def test_it_waits_for_redis_as_long_as_the_lease_may_be_trusted(self) -> None:
        world = World()
        a = world.host("a")
        a.take()
        world.away = True
        with pytest.raises(EndedError, match=LATE):
            a.permit("tick", "at four")
        assert 100.0 + TRUSTED <= world.now < 100.0 + TTL

    def test_it_is_done_when_redis_answers_again(self) -> None:
        world = World(away=True)
        a = world.host("a")
        world.away = False
        a.take()
        world.away = True
        world.in_pause = lambda: setattr(world, "away", world.now < 105.0)
        a.permit("tick", "at four")
        assert world.ran == {"tick": "at four"}
        assert world.now == pytest.approx(105.0, abs=0.2)

    def test_an_answer_that_comes_after_its_time_permits_nothing(self) -> None:
        """The process was stopped between the question and the answer."""
        world = World()
        a = world.host("a")
        a.take()
        world.answers_after = TRUSTED + 0.1
        with pytest.raises(EndedError, match=LATE):
            a.permit("tick", "at four")

    def test_whoever_wants_to_leave_is_let_out_between_two_tries(self) -> None:
        world = World()
        a = world.host("a")
        a.take()
        world.away = True

        def leave() -> None:
            raise SystemExit

        with pytest.raises(SystemExit):
            a.permit("tick", "at four", leave)


class TestThreads:
    def test_the_renewer_renews_every_third_and_tries_again_soon(self) -> None:
        world = World()
        a = world.host("a")
        a.take()
        told: list[float] = []
        world.in_pause = lambda: setattr(world, "away", 110.0 < world.now < 110.3)
        with pytest.raises(EndedError):
            a.keep(lambda: self._tell(world, told))
        assert told == pytest.approx([100.0, 105.0, 110.0, 115.0])

    def _tell(self, world: World, told: list[float]) -> None:
        told.append(world.now)
        if len(told) == 4:
            world.lease = None

    def test_the_renewer_ends_with_the_lease(self) -> None:
        world = World()
        a = world.host("a")
        a.take()
        a.keep(a.release)

    def test_the_guard_ends_the_process_when_the_time_is_over_and_not_before(self) -> None:
        world = World()
        a = world.host("a")
        a.take()

        def renew_once() -> None:
            if len(world.pauses) == 1:
                world.now -= 2.0
                a.renew()

        world.in_pause = renew_once
        with pytest.raises(EndedError, match=LATE):
            a.guard()
        assert world.now == pytest.approx(100.0 + TRUSTED - 2.0 + TRUSTED)

    def test_the_guard_ends_with_the_lease(self) -> None:
        world = World()
        a = world.host("a")
        a.take()
        world.in_pause = a.release
        a.guard()


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 20), st.booleans(), st.floats(0, 8)), max_size=60))
def test_whatever_happens_two_never_act_within_one_lease(steps: list[tuple[str, float, bool, float]]) -> None:
    """Two hosts, a Redis that comes and goes and answers late, time that passes: acts never overlap."""
    world = World()
    hosts = {token: world.host(token) for token in "ab"}
    ended: set[str] = set()
    for token, seconds, away, late in steps:
        world.now, world.away, world.answers_after = world.now + seconds, away, late
        if token in ended:
            continue
        host = hosts[token]
        try:
            if not host.held:
                host.take()
            else:
                host.permit("tick", "now")
                assert world.holder() == token, "who acts has the lease at this very instant"
        except AwayError:
            pass
        except EndedError:
            ended.add(token)
