"""aiohttp without TLS: for a server on a unix socket and on loopback.

aiohttp makes two TLS contexts while it is imported, for a client that nobody here uses, and reads all the machine's
certificates for them: a quarter of its import, at the very moment when a daemon that died is missed.  It works without
the `ssl` module (aiohttp/connector.py: `try: import ssl`), so that is what it gets when it is imported first.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast


@contextmanager
def without_tls() -> Iterator[None]:
    """What is imported in here for the first time finds no `ssl`.

    Not so the standard library's own HTTP, which aiohttp imports too: whoever needs it later must find it whole.
    """
    import urllib.request  # noqa: F401

    modules = cast("dict[str, object]", sys.modules)
    known = modules.get("ssl")
    modules["ssl"] = None  # an import of it is an ImportError (importlib, "the import system", 5.3.1)
    try:
        yield
    finally:
        if known is None:
            del modules["ssl"]
        else:
            modules["ssl"] = known
