"""The worlds that the contract suite runs on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.contract.behaviours import World
from tests.contract.fake_world import FakeWorld
from tests.contract.linux_world import LinuxWorld


@pytest_asyncio.fixture(params=["fake", pytest.param("linux", marks=pytest.mark.real)])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    if request.param == "fake":
        yield FakeWorld()
        return
    real = LinuxWorld(tmp_path)
    yield real
    await real.end()
