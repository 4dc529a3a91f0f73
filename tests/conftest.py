"""What holds for every test: one printed seed, and no silent skip in CI.

* `--hypothesis-seed=N` (or SUPERVISOR_D_SEED=N) replays a run: it seeds Hypothesis, and `random` before each test.
* With CI=true or SUPERVISOR_D_NO_SKIP=1 a skipped test is a failed test, unless it carries
  `@pytest.mark.skip_allowed("why this cannot run in CI")`.
* `HYPOTHESIS_PROFILE` is `dev` (default) or `ci` (the default when CI=true: more examples).
"""

from __future__ import annotations

import os
import random
import secrets
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings

SEED_OPTION = "hypothesis_seed"
IN_CI = os.environ.get("CI", "").lower() in {"1", "true", "yes"}
NO_SKIP = IN_CI or os.environ.get("SUPERVISOR_D_NO_SKIP") == "1"

settings.register_profile(
    "dev", deadline=None, print_blob=True, max_examples=100, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "ci", deadline=None, print_blob=True, max_examples=300, suppress_health_check=[HealthCheck.too_slow]
)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "skip_allowed(reason): may be skipped in CI too, for the stated reason")
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if IN_CI else "dev"))
    if getattr(config.option, SEED_OPTION, None) is None:
        chosen = os.environ.get("SUPERVISOR_D_SEED") or str(secrets.randbelow(2**32))
        setattr(config.option, SEED_OPTION, chosen)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files with slow tests come first: where files run side by side, none of them is the last to end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_report_header(config: pytest.Config) -> str:
    seed = getattr(config.option, SEED_OPTION)
    skips = "a skip is a failure" if NO_SKIP else "skips are allowed"
    return f"seed: {seed} (replay with --hypothesis-seed={seed}); {skips}"


@pytest.fixture(autouse=True)
def _seeded(request: pytest.FixtureRequest) -> None:
    random.seed(f"{getattr(request.config.option, SEED_OPTION)} {request.node.nodeid}")


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory that other users can pass through, with a name that leaves room for a socket's (sun_path: 107 bytes).

    `tmp_path` is neither: it is private to its user, and grows by a part when tests run side by side.
    """
    with tempfile.TemporaryDirectory(prefix="sd-", dir="/tmp") as directory:
        Path(directory).chmod(0o711)
        yield Path(directory)


Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


def _refuse_skip(report: Report, reason: str) -> Report:
    report.outcome = "failed"
    report.longrepr = f"skipped, but nothing may be skipped here (CI=true or SUPERVISOR_D_NO_SKIP=1): {reason}"
    return report


def _skip_reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    return report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    expected_failure = hasattr(report, "wasxfail")
    if NO_SKIP and report.skipped and not expected_failure and item.get_closest_marker("skip_allowed") is None:
        return _refuse_skip(report, _skip_reason(report))
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    return _refuse_skip(report, _skip_reason(report)) if NO_SKIP and report.skipped else report
