"""Prometheus metrics: ours begin with `ain_`, the engine's own keep vLLM's names. The only importer of prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from server.core import Reading

CONTENT_TYPE = CONTENT_TYPE_LATEST

REQUESTS = Counter("ain_http_requests", "HTTP requests by route and status.", ["method", "route", "status"])
SECONDS = Histogram(
    "ain_http_request_seconds",
    "Seconds from the first byte of a request to the last of its reply.",
    ["route"],
    buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300),
)
INSIDE = Gauge("ain_requests_inside", "Requests in the house at this moment, fetching and decoding included.")
REFUSED = Counter("ain_requests_refused", "Requests refused before any costly work, by reason.", ["reason"])
READY = Gauge("ain_ready", "1 while the server takes requests.")


def exposition() -> bytes:
    """All metrics in Prometheus' text format."""
    return generate_latest(REGISTRY)


class Readings(Collector):
    """Asks the rooms for their numbers when somebody looks, so that they need not tell them all the time."""

    def __init__(self) -> None:
        self.source: Callable[[], Iterable[Reading]] = tuple

    def collect(self) -> Iterator[Metric]:
        """One metric for each name, with a sample for each of its readings."""
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for reading in self.source():
            if reading.name not in families:
                kind = CounterMetricFamily if reading.is_counter else GaugeMetricFamily
                families[reading.name] = kind(reading.name, reading.help, labels=[name for name, _ in reading.labels])
            families[reading.name].add_metric([value for _, value in reading.labels], reading.value)
        yield from families.values()


_readings = Readings()
REGISTRY.register(_readings)


def watch(source: Callable[[], Iterable[Reading]]) -> None:
    """Show what `source` reads from here on; it takes the place of an earlier one."""
    _readings.source = source
