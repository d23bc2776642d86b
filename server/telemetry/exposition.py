"""Prometheus' text format, written twice as fast as prometheus_client does it.

It is written on the event loop: a thread beside a busy loop waits for the interpreter again and again, and its answer
came many times later. Whoever routes by these numbers asks every 50 ms, so it has to be quick. Most of the text, names
and labels, is the same each time and is kept.
"""

from __future__ import annotations

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

KINDS = {"info": "gauge", "stateset": "gauge", "gaugehistogram": "histogram", "unknown": "untyped"}
"""What OpenMetrics has beyond this older format."""
SUFFIXES = {"counter": "_total", "info": "_info"}
MOST_KEPT = 50_000
"""Names with labels that are kept; far more than a server has."""

_kept: dict[tuple[str, tuple[tuple[str, str], ...]], str] = {}


def write(registry: Collector) -> bytes:
    """All metrics of a registry, as `prometheus_client.generate_latest` writes them."""
    if len(_kept) > MOST_KEPT:
        _kept.clear()
    lines: list[str] = []
    for metric in registry.collect():
        lines.append(_head(metric))
        lines += [f"{_name_and_labels(sample)}{_number(sample.value)}\n" for sample in metric.samples]
    return "".join(lines).encode()


def _head(metric: Metric) -> str:
    name = metric.name + SUFFIXES.get(metric.type, "")
    text = metric.documentation.replace("\\", r"\\").replace("\n", r"\n")
    return f"# HELP {name} {text}\n# TYPE {name} {KINDS.get(metric.type, metric.type)}\n"


def _name_and_labels(sample: Sample) -> str:
    key = (sample.name, tuple(sample.labels.items()))
    text = _kept.get(key)
    if text is None:
        labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in sorted(sample.labels.items()))
        text = _kept[key] = f"{sample.name}{{{labels}}} " if labels else f"{sample.name} "
    return text


def _number(value: float) -> str:
    return str(floatToGoString(value))  # type: ignore[no-untyped-call]


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
