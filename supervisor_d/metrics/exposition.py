"""The text of `/metrics`: Prometheus's own format, or OpenMetrics for a scraper that asks for it."""

from __future__ import annotations

from typing import NamedTuple

from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import CollectorRegistry

from supervisor_d.core.snapshot import Snapshot
from supervisor_d.metrics.collector import SnapshotCollector


class Exposition(NamedTuple):
    """The body of an answer and its Content-Type."""

    body: bytes
    content_type: str


def render(snapshot: Snapshot, accept: str = "") -> Exposition:
    """All metrics of a snapshot, in the format that the Accept header asks for; text 0.0.4 when it asks for nothing.

    Pure Python over some lines per pool and process: call it in a thread when there are hundreds of them.
    """
    encode, content_type = choose_encoder(accept)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(SnapshotCollector(snapshot))
    return Exposition(encode(registry), content_type)
