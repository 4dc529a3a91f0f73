"""One broker and one store of records for each test file; each test finds both empty."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.agents.harness import AGENTS_DIR, Node, Server, Truth


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("store"))
    yield server
    server.kill()


@pytest.fixture(scope="module")
def broker_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("broker"), append_only=True)
    yield server
    server.kill()


@pytest.fixture
def broker(broker_server: Server, store: Server) -> Server:
    broker_server.client().flushall()
    store.client().flushall()
    return broker_server


@pytest.fixture
def truth(broker: Server, store: Server) -> Iterator[Truth]:
    truth = Truth(broker, store)
    yield truth
    truth.close()


@pytest.fixture
def start(tmp_path: Path, broker: Server, store: Server) -> Iterator[Callable[..., Node]]:
    """Start a node on the broker; gone at the end of the test."""
    nodes: list[Node] = []

    def start(url: str | None = None, **options: Any) -> Node:
        node = Node(tmp_path, url or broker.url, store, **options)
        nodes.append(node)
        return node

    yield start
    for node in nodes:
        node.end()


@pytest.fixture
def agent_module(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """A module of our Celery agent by its name, imported as it is in a worker; gone at the end of the test."""
    monkeypatch.syspath_prepend(AGENTS_DIR)
    yield lambda name: import_module(f"supervisor_d_celery.{name}")
    for name in [name for name in sys.modules if name.startswith("supervisor_d_celery")]:
        del sys.modules[name]
