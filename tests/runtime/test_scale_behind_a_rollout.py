"""A scale that must roll first asks for memory as every other rollout does."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from supervisor_d.core.intent import Intent, PoolIntent, Version
from supervisor_d.core.spec import PoolSpec
from supervisor_d.runtime import operations
from supervisor_d.runtime.operations import Operations

WEB = PoolIntent(Version(1, PoolSpec("web", "gunicorn", 4, None, digest="one")))


class _Supervisor:
    """What a scale needs of the supervisor that is awaited by nobody."""

    def __init__(self) -> None:
        self.intent = Intent({"web": WEB})
        self.observed = SimpleNamespace(pools={})
        self.host = SimpleNamespace(now=lambda: 5.0)
        self.journal = SimpleNamespace(record=lambda _: None)

    def change(self, intent: Intent) -> None:
        self.intent = intent


async def test_it_rolls_one_by_one_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    async def changed(*_: object) -> str:
        return "models.py changed"

    async def short(rolling: Mapping[str, PoolIntent]) -> Mapping[str, str]:
        return dict.fromkeys(rolling, "too little")

    monkeypatch.setattr(operations, "code_changed", changed)
    supervisor: Any = _Supervisor()
    unused: Any = None
    asked = Operations(supervisor, unused, unused, unused, short_of_memory=short)
    await asked.scale("root", "web", 6, 0)
    rollout = supervisor.intent.pools["web"].rollout
    assert rollout is not None
    assert (rollout.short_of_memory, rollout.scales, rollout.workers) == ("too little", True, 6)
