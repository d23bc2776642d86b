"""What dashboard, alerts and Kubernetes files ask for is what the server and vLLM tell."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY

import server.telemetry.metrics  # noqa: F401  registers them

ROOT = Path(__file__).parents[3]
DOCKER = ROOT / "docker"
MONITORING = DOCKER / "monitoring"
DASHBOARD = MONITORING / "grafana" / "dashboard.json"
ALERTS = MONITORING / "alerts.yml"

PROMETHEUS_OWN = {"up", "scrape_duration_seconds"}
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}


# ---- What is told


def samples(name: str, kind: str) -> set[str]:
    """The names of a metric's samples: `ain_ttft_seconds` has `ain_ttft_seconds_bucket` and others."""
    name = name.removesuffix("_total") if kind == "counter" else name
    return {name + suffix for suffix in SUFFIXES.get(kind, ("",))}


def registered() -> set[str]:
    """What the server counts by itself, and what prometheus_client tells of every process."""
    return {name for family in REGISTRY.collect() for name in samples(family.name, family.type)}


def readings() -> set[str]:
    """What rooms tell when they are asked: every `Reading(...)` in the server."""
    found = set()
    for file in sorted((ROOT / "server").rglob("*.py")):
        for call in _calls(file, "Reading"):
            kind = "gauge"
            for keyword in call.keywords:
                if keyword.arg == "is_counter":
                    kind = "counter"
            found |= samples(_text(call.args[0]), kind)
    return found


def of_vllm() -> set[str]:
    """What vLLM registers: every `self._counter_cls(name=...)` and its kind in its loggers."""
    package = importlib.util.find_spec("vllm")
    assert package is not None
    assert package.origin is not None
    found = set()
    for kind in ("counter", "gauge", "histogram"):
        for call in _calls(Path(package.origin).parent / "v1" / "metrics" / "loggers.py", f"_{kind}_cls"):
            for keyword in call.keywords:
                if keyword.arg == "name" and isinstance(keyword.value, ast.Constant):
                    found |= samples(_text(keyword.value), kind)
    return found | {"vllm:cache_config_info"}  # named in a variable


def _calls(file: Path, name: str) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and name in {getattr(node.func, "id", ""), getattr(node.func, "attr", "")}:
            yield node


def _text(node: ast.expr) -> str:
    assert isinstance(node, ast.Constant), f"line {node.lineno}: a metric's name must stand where it is made"
    return str(node.value)


@cache
def told() -> frozenset[str]:
    return frozenset(registered() | readings() | of_vllm() | PROMETHEUS_OWN)


# ---- What is asked for

NOISE = re.compile(
    r'"(?:[^"\\]|\\.)*"'  # strings
    r"|\[[^\]]*\]"  # ranges
    r"|\b(?:by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)"  # lists of labels
    r"|[{,]\s*\w+\s*(?:=~|!~|!=|=)"  # labels in selectors
)
NAME = re.compile(r"(?<![\w.:$])[a-zA-Z_:][\w:]*")
WORDS = {"and", "or", "unless", "bool", "offset", "e9"}


def asked(expression: str) -> set[str]:
    """The metrics in a PromQL expression: names that are neither functions nor labels."""
    bare = NOISE.sub(" ", expression)
    return {
        found.group()
        for found in NAME.finditer(bare)
        if found.group() not in WORDS and not bare[found.end() :].lstrip().startswith("(")
    }


def test_names_are_found_in_expressions() -> None:
    assert asked('sum by (instance, le) (rate(ain_a_bucket{route="/x", b=~"y"}[5m])) / vllm:b > 1e9') == {
        "ain_a_bucket",
        "vllm:b",
    }
    assert asked('absent(up{job="ain"}) or max_over_time(c[$__rate_interval]) and on(instance) d') == {"up", "c", "d"}


def _panels() -> Iterator[dict[str, Any]]:
    for panel in json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]:
        yield panel
        yield from panel.get("panels", [])


def _expressions() -> Iterator[tuple[str, str]]:
    for panel in _panels():
        for target in panel.get("targets", []):
            yield f"dashboard: {panel['title']}", target["expr"]
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    for annotation in dashboard["annotations"]["list"]:
        yield f"dashboard: {annotation['name']}", annotation["expr"]
    for rule in _rules():
        yield f"alert: {rule['alert']}", rule["expr"]


def _rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]


@pytest.mark.parametrize(("where", "expression"), list(_expressions()))
def test_every_expression_asks_for_metrics_that_there_are(where: str, expression: str) -> None:
    names = asked(expression)
    assert names, where
    assert names <= told(), f"{where}: {sorted(names - told())}"


def test_whatever_is_named_elsewhere_in_docker_is_there() -> None:
    """Kubernetes' files have their metrics in annotations and adapters of many shapes: any name in them counts."""
    files = [file for folder in ("kubernetes", "balancers", "monitoring") for file in (DOCKER / folder).rglob("*.*")]
    for file in files:
        text = file.read_text(encoding="utf-8")
        names = set(re.findall(r"\bvllm:[a-z_]+\b|\bain_[a-z_]+_(?:total|bucket|bytes|seconds|state|limit)\b", text))
        bare = {name for name in names if name not in told()}
        # A name may also stand for its family: the histogram without _bucket, or what begins a pattern.
        assert not {name for name in bare if not any(known.startswith(name) for known in told())}, file.name


def test_the_dashboard_shows_every_room() -> None:
    rows = [panel["title"] for panel in _panels() if panel["type"] == "row"]
    assert rows == ["At a glance", "Traffic and errors", "Admission", "Media", "Engine", "Process"]
    shown = {
        name for where, expression in _expressions() if where.startswith("dashboard") for name in asked(expression)
    }
    ours = {name for name in (registered() | readings()) if name.startswith("ain_")}
    unshown = {name for name in ours - shown if not name.endswith(("_sum", "_count"))}
    assert unshown == set(), "a metric that nobody sees"


def test_panels_do_not_overlap_and_have_ids_of_their_own() -> None:
    panels = list(_panels())
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_every_alert_says_what_to_do_about_it() -> None:
    rules = _rules()
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert rule["annotations"]["summary"]


def test_what_compose_mounts_is_there() -> None:
    compose = yaml.safe_load((DOCKER / "compose.monitoring.yaml").read_text(encoding="utf-8"))
    for service in compose["services"].values():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert not source.startswith(".") or (DOCKER / source).exists(), source
    servers = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))["services"]
    (job,) = yaml.safe_load((MONITORING / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    assert set(job["dns_sd_configs"][0]["names"]) <= set(servers)
    assert job["job_name"] == "ain"
