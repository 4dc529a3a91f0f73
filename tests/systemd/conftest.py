"""A booted systemd with this project installed in it, beside Python, gunicorn, Celery and a Redis: once for all."""

from __future__ import annotations

import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.systemd_box import SystemdBox, unavailable
from tests.systemd.support import NEXT, OPT, PACKAGES, PYTHON, SHOP, Machine, install

TEMPORARY = "/var/tmp"


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    """Shared by all tests here; each takes its own unit away."""
    reason = unavailable()
    if reason:
        pytest.skip(reason)
    directory = Path(tempfile.mkdtemp(prefix="shop-", dir=TEMPORARY))
    directory.chmod(0o755)
    try:
        shop = directory / "shop"
        shop.mkdir()
        shares = {
            install(directory / "first", "1.0"): OPT,
            install(directory / "second", "2.0"): NEXT,
            Path(sysconfig.get_path("purelib")): PACKAGES,
            Path(sys.base_prefix): PYTHON,
            shop: SHOP,
        }
        with SystemdBox(shares) as box:
            # A Python with a shared library names its place, which is another one in the box.
            box.must("sh", "-c", f"echo {PYTHON}/lib >/etc/ld.so.conf.d/0-python.conf && ldconfig")
            yield Machine(box, shop)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
