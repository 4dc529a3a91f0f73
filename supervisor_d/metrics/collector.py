"""A snapshot as a collector of prometheus-client: a view of state, made anew for each scrape."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from supervisor_d.core.snapshot import Snapshot
from supervisor_d.metrics.families import FAMILIES, Family


class SnapshotCollector(Collector):
    """Gives the families of `metrics.families`, with the values of one snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        for family in FAMILIES:
            yield self._metric(family)

    def _metric(self, family: Family) -> Metric:
        if family.buckets is not None:
            histogram = HistogramMetricFamily(family.name, family.help, labels=family.labels)
            for labels, buckets in family.buckets(self._snapshot):
                histogram.add_metric(labels, buckets.counts, buckets.total)
            return histogram
        kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
        metric = kind(family.name, family.help, labels=family.labels)
        for values, value in family.series(self._snapshot):
            metric.add_metric(values, float(value))
        return metric
