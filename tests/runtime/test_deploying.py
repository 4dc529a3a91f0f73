"""What a rollback means when no pool is named."""

from __future__ import annotations

from dataclasses import replace

import pytest

from supervisor_d.core.intent import Intent, PoolIntent, Version
from supervisor_d.core.spec import PoolSpec
from supervisor_d.errors import NotPermittedError
from supervisor_d.runtime.deploying import refuse_rollback


def _pool(program: str) -> PoolIntent:
    """One that another version ruled before."""
    spec = PoolSpec("any", program, 1, None, digest="new")
    return PoolIntent(Version(2, spec), former=Version(1, replace(spec, digest="old")))


@pytest.fixture
def intent() -> Intent:
    return Intent({"migrate": _pool("oneshot"), "web": _pool("command")})


def test_all_are_those_that_can_but_for_a_oneshot_whose_work_is_done(intent: Intent) -> None:
    assert refuse_rollback(intent, ("migrate", "web"), everything=True) == ("web",)
    with pytest.raises(NotPermittedError, match="what a oneshot did is not taken back"):
        refuse_rollback(intent, ("migrate",), everything=True)


def test_by_its_name_it_can_be(intent: Intent) -> None:
    assert refuse_rollback(intent, ("migrate",), everything=False) == ("migrate",)


def test_one_that_is_under_way_is_given_up_with_all_the_others(intent: Intent) -> None:
    migrating = replace(intent.pools["migrate"], previous=Version(1, intent.pools["web"].wanted.spec))
    rolling = replace(intent, pools={**intent.pools, "migrate": migrating})
    assert refuse_rollback(rolling, ("migrate", "web"), everything=True) == ("migrate", "web")
