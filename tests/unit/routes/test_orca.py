"""What a replica tells a balancer of its load: the two formats that Envoy and vLLM share."""

from __future__ import annotations

import json
import math

import pytest

from server.routes.orca import Load, load_report

LOAD = Load(0.5, 12.3, {"kv_cache_usage_perc": 0.25, "num_requests_waiting": 3})


def test_text_is_pairs_with_commas_between_them() -> None:
    assert load_report("TEXT", LOAD) == (
        "TEXT application_utilization=0.5, rps_fractional=12.3, named_metrics.kv_cache_usage_perc=0.25, "
        "named_metrics.num_requests_waiting=3"
    )


def test_json_is_the_report_as_protocol_buffers_write_it() -> None:
    report = load_report("JSON", LOAD)
    assert report is not None
    assert report.startswith("JSON ")
    assert json.loads(report.removeprefix("JSON ")) == {
        "application_utilization": 0.5,
        "rps_fractional": 12.3,
        "named_metrics": {"kv_cache_usage_perc": 0.25, "num_requests_waiting": 3},
    }


@pytest.mark.parametrize("wanted", ["text", " Text ", "json", "JSON "])
def test_the_format_is_read_as_vllm_reads_it_in_any_case(wanted: str) -> None:
    assert load_report(wanted, LOAD) == load_report(wanted.strip().upper(), LOAD)


@pytest.mark.parametrize("wanted", [None, "", "BIN", "TEXT JSON", "yes"])
def test_nothing_is_sent_to_who_did_not_ask_in_a_known_format(wanted: str | None) -> None:
    assert load_report(wanted, LOAD) is None


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf, -0.1])
def test_a_number_that_a_balancer_would_refuse_is_left_out(value: float | None) -> None:
    named = {"kv_cache_usage_perc": value} if value is not None else {}
    assert load_report("TEXT", Load(value, 2.0, named)) == "TEXT rps_fractional=2"
    report = load_report("JSON", Load(value, 2.0, named))
    assert report is not None
    assert json.loads(report.removeprefix("JSON ")) == {"rps_fractional": 2.0, "named_metrics": {}}


def test_a_server_that_knows_nothing_sends_nothing() -> None:
    assert load_report("TEXT", Load()) is None
    assert load_report("JSON", Load(math.nan)) is None


def test_numbers_are_short() -> None:
    assert load_report("TEXT", Load(1 / 3, 0.0)) == "TEXT application_utilization=0.333333, rps_fractional=0"
    assert load_report("JSON", Load(1 / 3)) == 'JSON {"application_utilization":0.333333,"named_metrics":{}}'
