"""Prometheus metrics: ours begin with `ain_`, the engine's own keep vLLM's names. The only importer of prometheus."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from server.core import Reading
from server.errors import ApiError, EngineDied, Unavailable
from server.telemetry.exposition import write

CONTENT_TYPE = CONTENT_TYPE_LATEST
# Lines that tell when each counter began: a sixth of all, and nobody asks for them.
disable_created_metrics()  # type: ignore[no-untyped-call]

REQUESTS = Counter("ain_http_requests", "HTTP requests by route and status.", ["method", "route", "status"])
SECONDS = Histogram(
    "ain_http_request_seconds",
    "Seconds from the first byte of a request to the last of its reply.",
    ["route"],
    buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300),
)
ERRORS = Counter("ain_errors", "Requests that the server did not answer to their end, streams too, by code.", ["code"])
STALLED = Counter("ain_connections_stalled", "Connections cut because the client did not read its reply.")
TURNED_AWAY = Counter("ain_connections_turned_away", "Connections for which there was no room.")
GAVE_WAY = Counter("ain_connections_gave_way", "Connections without a request that were closed to make room.")
QUEUE_SECONDS = Histogram(
    "ain_queue_seconds",
    "Seconds that requests waited for their turn, of those that were let in.",
    buckets=(0.001, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300),
)
TTFT_SECONDS = Histogram(
    "ain_ttft_seconds",
    "Seconds from when a request asked for its turn to its first token: waiting, fetching, decoding and prefill.",
    buckets=(0.01, 0.03, 0.06, 0.1, 0.2, 0.3, 0.6, 1, 2, 3, 6, 10, 30, 100, 300),
)
REFUSED = Counter("ain_requests_refused", "Requests refused before any costly work, by reason.", ["reason"])
PARAMETERS_IGNORED = Counter("ain_parameters_ignored", "Parameters of requests that had no effect, and were told.")
READY = Gauge("ain_ready", "1 while the server takes requests.")
LOG_BYTES = Gauge("ain_log_bytes", "Size of the engine's log.")
LOG_DISK_FREE_BYTES = Gauge("ain_log_disk_free_bytes", "Room on the disk that the engine's log is on.")
LOG_DISK_FREE_BYTES.set(math.nan)  # until it is measured: none left would be an alarm
SPANS_LOST = Counter("ain_trace_spans_lost", "Spans of traces that the collector did not take.")


def count_request(method: str, route: str, status: int, seconds: float) -> None:
    """A request has been answered, one way or another."""
    REQUESTS.labels(method, route, str(status)).inc()
    SECONDS.labels(route).observe(seconds)


def count_failure(error: ApiError) -> None:
    """A request was not answered but refused, or failed before its reply had begun."""
    if error.status >= 500:
        ERRORS.labels(str(error.code)).inc()
    if isinstance(error, Unavailable) and not isinstance(error, EngineDied):
        REFUSED.labels(str(error.code)).inc()


def exposition() -> bytes:
    """All metrics in Prometheus' text format; 2 ms for the 600 lines that there are with vLLM's."""
    return write(REGISTRY)


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
