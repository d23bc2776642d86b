"""One trace from the client's span, through the server's rooms, into the engine."""

from __future__ import annotations

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.collector import Collector, attributes
from tests.e2e.asking import PATH, Client
from tests.waiting import eventually

pytestmark = pytest.mark.e2e

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SENT_WITHIN_S = 15.0
"""Spans are sent in batches, some seconds apart."""


def test_a_trace_goes_from_the_client_into_the_engine(client: Client, collector: Collector) -> None:
    body = client.body("Count to three.", max_tokens=8)
    reply = client.http.post(PATH, json=body, headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
    assert reply.status_code == 200
    wanted = {f"POST {PATH}", "admission", "media", "prompt", "engine", "llm_request"}
    assert eventually(lambda: wanted <= {span.name for span in _ours(collector)}, SENT_WITHIN_S)
    spans = {span.name: span for span in _ours(collector)}
    assert spans[f"POST {PATH}"].parent_span_id.hex() == PARENT
    assert spans["llm_request"].parent_span_id == spans["engine"].span_id
    assert attributes(spans["engine"])["gen_ai.usage.output_tokens"] == reply.json()["usage"]["completion_tokens"]
    assert "Count to" not in str(list(spans.values())), "a trace tells nothing of what was said"


def _ours(collector: Collector) -> list[Span]:
    return [span for span in collector.spans if span.trace_id.hex() == TRACE]
