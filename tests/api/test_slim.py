"""aiohttp is imported without TLS, and nothing else is the poorer for it."""

from __future__ import annotations

import subprocess
import sys

CODE = """
from supervisor_d.api.slim import without_tls
with without_tls():
    import aiohttp.web
import aiohttp.connector, http.client, ssl, urllib.request
import prometheus_client
assert aiohttp.connector.ssl is None
assert http.client.HTTPSConnection and urllib.request.HTTPSHandler
assert ssl.SSLContext
"""


def test_only_aiohttp_goes_without() -> None:
    subprocess.run([sys.executable, "-c", CODE], check=True, timeout=60)
