"""Pids are reused: whoever has the number of a process of ours now is never signalled."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.dose import FULL, dose, report

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(900 if FULL else 120)]

TIMES = dose(40, 200)
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skip_allowed("a pid namespace and ns_last_pid take root")
def test_no_stranger_is_ever_signalled(tmp_path: Path) -> None:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("a pid namespace and ns_last_pid take root")
    own = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "--"]
    done = subprocess.run(
        [*own, sys.executable, "-m", "tests.faults.pid_reuse", str(TIMES), str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=800 if FULL else 110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report("forced reuse of the pids of shim and program", TIMES, strangers_signalled=0)
