"""What only the machine can tell of a pool's application, for `check`: how it is set, and where its code lies.

A Celery application is imported by the pool's own interpreter, as the pool's user, in its directory and environment,
for no longer than LOOK_SECONDS, and killed with all that it started.  What it says is data: bounded and type-checked.
Never done by `reload`, `diff` or the daemon: an import runs the application's code.
"""

from __future__ import annotations

import os
import re
import select
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import PurePath

from supervisor_d.core.spec import LaunchContext, PoolSpec
from supervisor_d.errors import PrepareError
from supervisor_d.programs.celery_advice import AppFacts, app_warnings
from supervisor_d.programs.common import interpreter, python_environment, with_agents
from supervisor_d.runtime.accounts import find_account
from supervisor_d.runtime.contexts import AGENTS_DIR, base_env

LOOK_SECONDS = 10.0
ANSWER_MAX_BYTES = 2 * 1024 * 1024
INSPECT = "supervisor_d_inspect"
"""Module of supervisor_d/agents/."""
_RELEASE = re.compile(r"releases?|versions?|[0-9a-f]{7,}|v?[0-9][0-9._T-]*", re.ASCII | re.IGNORECASE)
"""A part of a path that names one release: 20260127T1030, v1.4.2, 9f3c2ab, releases."""

Advice = tuple[str, str, str]
"""(pool, key, why)"""


def look(specs: Mapping[str, PoolSpec], *, run_apps: bool = True) -> Iterator[Advice]:
    """What had better be otherwise, of pools without problems; with `run_apps` Celery applications are imported."""
    for name, spec in specs.items():
        if spec.program == "gunicorn" and not spec.keys.preload and _in_place(spec.cwd):
            why = "the code here is changed in place: a worker that gunicorn replaces loads what lies on disk then"
            yield name, "cwd", f"{why}; deploy to release directories behind a link, or say `preload: true`"
    if not run_apps:
        return
    seen: dict[tuple[object, ...], AppFacts] = {}
    for name, spec in specs.items():
        if spec.program not in ("celery", "celery-beat"):
            continue
        where = (spec.python, spec.keys.app, spec.cwd, spec.user, spec.group, tuple(sorted(spec.env.items())))
        app = seen[where] if where in seen else inspected(spec)
        seen[where] = app
        yield from ((name, key, why) for key, why in app_warnings(spec, app, specs))


def inspected(spec: PoolSpec, seconds: float = LOOK_SECONDS) -> AppFacts:
    """What the application of a Celery pool says of itself; whatever goes wrong is its `error`."""
    import msgspec

    from supervisor_d.runtime.probing import kill_tree

    ours, theirs = os.pipe()
    try:
        child = _start(spec, theirs)
    except (OSError, PrepareError, subprocess.SubprocessError) as error:
        os.close(ours)
        return AppFacts(error=str(error))
    finally:
        os.close(theirs)
    try:
        answer = _answer(ours, time.monotonic() + seconds)
    except TimeoutError:
        return AppFacts(error=f"it was not imported within {seconds:g} s")
    finally:
        kill_tree(child)
        os.close(ours)
    try:
        return msgspec.json.decode(answer, type=AppFacts)
    except msgspec.MsgspecError:
        return AppFacts(
            error=f"the import ended its process (exit {child.returncode}) or told nothing that makes sense"
        )


def _start(spec: PoolSpec, answer: int) -> subprocess.Popen[bytes]:
    """Raises OSError and PrepareError."""
    context = LaunchContext("", 0, 0, 1, "", AGENTS_DIR, base_env(spec.user))
    env = {**with_agents(python_environment(spec, context), AGENTS_DIR), "PYTHONDONTWRITEBYTECODE": "1"}
    account = find_account(spec.user, spec.group)
    null = subprocess.DEVNULL
    return subprocess.Popen(
        [interpreter(spec), "-m", INSPECT, spec.keys.app],
        env=env, cwd=spec.cwd or "/", stdin=null, stdout=answer, stderr=null, start_new_session=True,
        user=account["uid"] if account else None,
        group=account["gid"] if account else None,
        extra_groups=account["groups"] if account else None,
    )  # fmt: skip


def _answer(pipe: int, until: float) -> bytes:
    """One line, or all until the end of the pipe.  Raises TimeoutError."""
    answer = b""
    while not answer.endswith(b"\n") and len(answer) < ANSWER_MAX_BYTES:
        if not select.select([pipe], [], [], max(0.0, until - time.monotonic()))[0]:
            raise TimeoutError
        data = os.read(pipe, 65536)
        if not data:
            break
        answer += data
    return answer


def _in_place(directory: str) -> bool:
    """Whether a deploy changes what lies at this very path: no link leads there, and no part of it names a release."""
    is_release = any(_RELEASE.fullmatch(part) for part in PurePath(directory).parts)
    return bool(directory) and os.path.realpath(directory) == directory and not is_release
