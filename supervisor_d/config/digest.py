"""What makes a generation: a hash of the keys of a pool as the user wrote them, and of what they point to.

Hashed are the pool's keys after `defaults:` were merged in, in any order; the contents of its env files; the values
that `from_env` fetched; and the real path of `cwd`, so that a new release behind a link is a new generation.  Nothing
derived is hashed (argv, the environment as a whole): an upgrade of the daemon changes no digest.

The keys of LIVE_KEYS are left out: they are the daemon's own business, and a change of them replaces no process.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

LIVE_KEYS = frozenset({"workers", "after", "stop", "restart", "rollout", "ready", "start_timeout"})
"""Keys that change without new processes.  `workers` scales; the others hold for what is started from then on:
a process keeps the stop list and the restart policy it was started with."""


def pool_digest(keys: Mapping[str, Any], env_files: Iterable[str], fetched: Mapping[str, str], real_cwd: str) -> str:
    """The digest of a pool.  `env_files` are digests of contents, `fetched` the values of `from_env`."""
    rolling = {key: value for key, value in keys.items() if key not in LIVE_KEYS}
    whole = {"keys": rolling, "env_files": list(env_files), "fetched": dict(fetched), "cwd": real_cwd}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def config_digest(texts: Iterable[str], pools: Mapping[str, str]) -> str:
    """The digest of a whole config: its texts, and the digests of its pools."""
    return hashlib.sha256(json.dumps([list(texts), dict(pools)], sort_keys=True).encode()).hexdigest()
