"""Prometheus metrics: ours begin with `ain_`, the engine's own keep vLLM's names. The only importer of prometheus."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, Counter, Gauge, Histogram, generate_latest

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
