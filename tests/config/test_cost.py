"""A large config loads fast enough to be checked at every save."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from tests.config.support import load_text

POOL = """\
  p{n}:
    program: gunicorn
    app: shop.wsgi
    bind: 127.0.0.1:{port}
    workers: 4
    env: {{DJANGO_SETTINGS_MODULE: shop.settings, N: {n}}}
    stop: TERM 40s, QUIT 10s, KILL
    restart: {{when: always, backoff: 500ms, limit: 10}}
    ready: {{http: /healthz, interval: 250ms}}
    log: {{max_size: 64MiB, keep: 5}}
    limits: {{open_files: 4096, umask: "0022"}}
"""
TEXT = "version: 1\npools:\n" + "".join(POOL.format(n=n, port=10_000 + n) for n in range(100))


def test_a_hundred_pools_cost_less_than_half_a_second(tmp_path: Path) -> None:
    load_text(tmp_path, TEXT)  # the models are made once
    began = time.process_time()
    assert len(load_text(tmp_path, TEXT).pools) == 100
    assert time.process_time() - began < 0.5


def test_the_core_of_the_config_needs_no_pydantic() -> None:
    code = (
        "import sys, supervisor_d.core.config_spec, supervisor_d.core.units, supervisor_d.core.change\n"
        "sys.exit('pydantic' in sys.modules or 'yaml' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=Path(__file__).parents[2])


def test_loading_makes_no_model_before_it_is_needed() -> None:
    code = (
        "import supervisor_d.config.loader, sys\nfrom supervisor_d.config.schema import _model\n"
        "sys.exit(_model.cache_info().currsize)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=Path(__file__).parents[2])
