"""What a replica tells a balancer of its load, with each reply: ORCA, as Envoy and gRPC read it and vLLM writes it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson

ASKED_BY = "endpoint-load-metrics-format"
"""The request header that asks for a report: `TEXT` or `JSON`. Nobody who does not ask gets one."""
HEADER = "endpoint-load-metrics"
"""The reply header that carries it."""
DIGITS = 6
"""Significant digits of a number: more say nothing, and every reply would carry them."""


@dataclass(frozen=True, slots=True)
class Load:
    """How busy this server is. What is not known, or not a finite number of 0 or more, is left out of the report."""

    application_utilization: float | None = None
    """Work at hand as a share of what can be done at once; over 1 where more waits than that."""
    rps_fractional: float | None = None
    """Requests a second of late."""
    named_metrics: Mapping[str, float] = field(default_factory=dict)
    """Any others, such as vLLM's `kv_cache_usage_perc` and `num_requests_waiting`."""


def load_report(wanted: str | None, load: Load) -> str | None:
    """The value of the reply header for a request that asks for the format `wanted`; None where none is to be sent."""
    form = (wanted or "").strip().upper()
    if form not in ("TEXT", "JSON"):
        return None
    own = {"application_utilization": load.application_utilization, "rps_fractional": load.rps_fractional}
    plain = {name: short for name, value in own.items() if (short := _short(value)) is not None}
    named = {name: short for name, value in load.named_metrics.items() if (short := _short(value)) is not None}
    if not plain and not named:
        return None
    if form == "JSON":
        return f"JSON {orjson.dumps({**plain, 'named_metrics': named}).decode()}"
    pairs = {**plain, **{f"named_metrics.{name}": value for name, value in named.items()}}
    return f"TEXT {', '.join(f'{name}={value:.{DIGITS}g}' for name, value in pairs.items())}"


def _short(value: float | None) -> float | None:
    """The number as it is sent. Envoy throws a whole report away for one number that is not finite."""
    if value is None or not math.isfinite(value) or value < 0:
        return None
    return float(f"{value:.{DIGITS}g}")
