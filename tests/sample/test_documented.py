"""docs/sample-app.md and the code say the same."""

from __future__ import annotations

import re
from pathlib import Path

from django.urls import Resolver404, resolve
from library.urls import urlpatterns

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "sample-app.md").read_text()


def test_every_documented_address_exists() -> None:
    addresses = {found.split("?")[0] for found in re.findall(r"`(?:[A-Z, `]+ )?(/[a-z0-9/]*(?:\?[^`]*)?)`", TEXT)}
    assert {"/", "/slow", "/healthz", "/api/tasks", "/api/books/1/authors"} <= addresses
    for address in addresses:
        try:
            resolve(address)
        except Resolver404:
            raise AssertionError(f"{address} is documented and does not exist") from None


def test_every_address_is_documented() -> None:
    for pattern in urlpatterns:
        route = str(pattern.pattern)
        if pattern.name in {"add-author", "remove-author"}:
            continue  # a page's own forms
        shown = route.replace("<int:pk>", "1").replace("<uuid:task_id>", "<id>")
        assert f"/{shown}" in TEXT, route


def test_every_variable_is_documented() -> None:
    settings = (ROOT / "sample_app" / "sample" / "settings.py").read_text()
    documented = set(re.findall(r"^\| `([A-Z_]+)` \|", TEXT, re.MULTILINE))
    assert documented == set(re.findall(r"^([A-Z_]+)  +\S", settings.split('"""')[1], re.MULTILINE))
