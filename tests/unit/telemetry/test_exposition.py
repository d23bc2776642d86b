from __future__ import annotations

import math
import time

import pytest
from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram, Info, Summary, generate_latest
from prometheus_client.core import UnknownMetricFamily
from prometheus_client.registry import Collector

from server.telemetry import exposition, metrics
from server.telemetry.exposition import write


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def test_every_kind_of_metric_is_written_as_prometheus_client_writes_it(registry: CollectorRegistry) -> None:
    Counter("a", "A counter\nof two lines, with a \\.", ["z", "b"], registry=registry).labels("1", "x").inc()
    Gauge("vllm:b", "A gauge.", registry=registry).set(1e22)
    Histogram("c_seconds", "A histogram.", ["route"], registry=registry).labels("/v1").observe(0.3)
    Summary("d", "A summary.", registry=registry).observe(3)
    Info("e", "An info.", registry=registry).info({"version": "1"})
    Enum("f", "A state.", states=["up", "down"], registry=registry)
    Gauge("nothing_yet", "Has labels and no values.", ["label"], registry=registry)

    class Rest(Collector):
        def collect(self) -> list[UnknownMetricFamily]:
            return [UnknownMetricFamily("g", "Unknown.", 3)]

    registry.register(Rest())
    assert write(registry).count(b"\n") > 40
    for _ in range(2):  # the second time with names and labels that were kept
        assert write(registry) == generate_latest(registry)


@pytest.mark.parametrize("value", [0, -1, 0.1, 1e-9, 123456789, 1.5e300, math.inf, -math.inf, math.nan])
@pytest.mark.parametrize(
    "label", ["", "plain", 'quo"ted', "back\\slash", "two\nlines", "\u0645\u0631\u062d\u0628\u0627"]
)
def test_values_and_labels_of_all_sorts(registry: CollectorRegistry, value: float, label: str) -> None:
    Gauge("a", "A gauge.", ["label"], registry=registry).labels(label).set(value)
    assert write(registry) == generate_latest(registry)


def test_what_is_kept_is_bounded(registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposition, "MOST_KEPT", 10)
    many = Gauge("a", "A gauge.", ["label"], registry=registry)
    for number in range(100):
        many.clear()
        many.labels(str(number)).set(1)
        assert write(registry) == generate_latest(registry)
        assert len(exposition._kept) <= 11


def test_as_much_as_vllm_tells_takes_milliseconds(registry: CollectorRegistry) -> None:
    for number in range(16):
        Histogram(f"h{number}", "A histogram.", ["model"], buckets=range(30), registry=registry).labels("m").observe(1)
    write(registry)
    began = time.thread_time()
    for _ in range(10):
        write(registry)
    assert (time.thread_time() - began) / 10 < 0.05  # 1.7 ms on a quiet machine


def test_no_line_tells_when_a_counter_began() -> None:
    metrics.REQUESTS.labels("GET", "/x", "200").inc()
    assert b"_created" not in metrics.exposition()
    metrics.REQUESTS.remove("GET", "/x", "200")
