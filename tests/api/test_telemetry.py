"""What a running server tells those who watch it: its log as JSON, its traces, and /metrics under load."""

from __future__ import annotations

import io
import json
import logging
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from server import __version__
from server.core import Event, GenerationRequest
from server.engine.scripted import Script
from server.telemetry import traces
from server.telemetry.logs import ROOTS, configure_logs
from tests.api.house import CHAT, RED, House, body, image_url, plain
from tests.collector import Collector, attributes
from tests.waiting import eventually

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
HEADERS = {"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "the-one"}


@contextmanager
def tracing(endpoint: str) -> Iterator[None]:
    """Traces go to `endpoint` while the block runs; ending takes no longer than it may."""
    traces.start(endpoint, version=__version__)
    try:
        yield
    finally:
        began = time.monotonic()
        traces.stop()
        assert time.monotonic() - began < 20  # the SDK alone would wait for 30


@pytest.fixture
def engine_with_a_span(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that has a span of its own, inside of whatever runs when it is asked."""
    generate = house.engine.generate

    async def traced(request: GenerationRequest) -> AsyncIterator[Event]:
        with traces.span("probe", model="demo") as span:
            async for event in generate(request):
                yield event
            span.set(output_tokens=4)

    monkeypatch.setattr(house.engine, "generate", traced)


# ---- Traces


@pytest.mark.usefixtures("engine_with_a_span")
@pytest.mark.parametrize("stream", [False, True])
def test_a_request_with_a_traceparent_arrives_as_one_trace(house: House, stream: bool) -> None:
    with Collector().open() as collector:
        with tracing(collector.endpoint):
            assert house.post(body("my secret words", temperature=7)).status_code == 400
            assert house.post(body("my secret words", stream=stream), headers=HEADERS).status_code == 200
            assert house.http.get("/health").status_code == 200
            assert house.http.get("/metrics").status_code == 200
            assert eventually(lambda: house.at_rest)
        assert collector.services == {"ain-server"}
        ours = [span for span in collector.spans if span.trace_id.hex() == TRACE]
        assert {"POST " + CHAT, "probe"} <= {span.name for span in ours}
        (root,) = (span for span in ours if span.name == "POST " + CHAT)
        assert root.kind == Span.SPAN_KIND_SERVER
        assert root.parent_span_id.hex() == PARENT
        assert attributes(root) == {
            "http.request.method": "POST",
            "http.route": CHAT,
            "http.response.status_code": 200,
            "url.path": CHAT,
            "url.scheme": "http",
        }
        ids = {span.span_id for span in ours}
        assert all(span.parent_span_id in ids for span in ours if span is not root), "nothing hangs in the air"
        probe = collector.named("probe")
        assert attributes(probe)["gen_ai.request.model"] == "demo"
        assert attributes(probe)["gen_ai.usage.output_tokens"] == 4
        assert root.start_time_unix_nano <= probe.start_time_unix_nano <= probe.end_time_unix_nano
        assert probe.end_time_unix_nano <= root.end_time_unix_nano
        assert not [span for span in collector.spans if "health" in span.name or "metrics" in span.name]
        assert "secret" not in str(collector.spans)


@pytest.mark.parametrize("stream", [False, True])
def test_every_room_has_its_span(house: House, stream: bool) -> None:
    request = body([image_url(plain(RED)), {"type": "text", "text": "my secret"}], stream=stream)
    with Collector().open() as collector:
        with tracing(collector.endpoint):
            assert house.post(request, headers=HEADERS).status_code == 200
            assert eventually(lambda: house.at_rest)
        root = collector.named("POST " + CHAT)
        rooms = sorted(
            (span for span in collector.spans if span is not root), key=lambda span: span.start_time_unix_nano
        )
        assert [span.name for span in rooms] == ["admission", "media", "prompt", "engine"]
        assert all(span.parent_span_id == root.span_id for span in rooms)
        for early, late in pairwise(rooms):
            assert early.end_time_unix_nano <= late.start_time_unix_nano
        engine = attributes(rooms[-1])
        assert engine["gen_ai.operation.name"] == "chat"
        assert engine["gen_ai.usage.input_tokens"] == len(house.last_request.prompt.token_ids)
        assert engine["gen_ai.usage.output_tokens"] == 4
        assert "secret" not in str(collector.spans)


def test_refusals_and_failures_are_in_their_spans(house: House) -> None:
    with Collector().open() as collector:
        with tracing(collector.endpoint):
            house.post({})
            house.http.get("/nowhere/at/all")
            house.engine.script = Script(stall_after=0)
            with house.raw_chat(body()):
                assert eventually(lambda: house.engine.running == 1)
            assert eventually(lambda: house.at_rest)
        found = {attributes(span).get("http.response.status_code", 0): span for span in collector.spans}
        assert {400, 404, 0} <= set(found)
        assert found[404].name == "GET"
        assert attributes(found[0])["error.type"] == "client_gone"


def _closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def gone() -> Iterator[str]:
    yield _closed_port()


@contextmanager
def silent() -> Iterator[str]:
    """Takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("collector", [gone, silent])
def test_a_collector_that_is_gone_or_silent_harms_nothing(
    house: House, caplog: pytest.LogCaptureFixture, collector: Callable[[], Any]
) -> None:
    slowest = 0.0
    with collector() as endpoint, caplog.at_level("DEBUG"), tracing(endpoint):
        end = time.monotonic() + 4  # two batches are sent in that time
        while time.monotonic() < end:
            began = time.monotonic()
            assert house.ask().status_code == 200
            slowest = max(slowest, time.monotonic() - began)
    assert slowest < 5
    told = [record for record in caplog.records if "trace" in record.getMessage() or "opentelemetry" in record.name]
    assert len(told) <= 1, "the log is not filled with it"


# ---- The log


@contextmanager
def json_log() -> Iterator[io.StringIO]:
    loggers = [logging.getLogger(name) for name in ROOTS]
    kept = [(logger, logger.handlers, logger.level, logger.propagate) for logger in loggers]
    raises = logging.raiseExceptions
    stream = io.StringIO()
    configure_logs("info", stream, "json")
    try:
        yield stream
    finally:
        logging.raiseExceptions = raises
        for logger, handlers, level, propagate in kept:
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)


def test_the_access_line_is_an_object_with_fields(house: House) -> None:
    with json_log() as written, Collector().open() as collector, tracing(collector.endpoint):
        assert house.post(body("my secret words"), headers=HEADERS).status_code == 200
        assert eventually(lambda: "the-one" in written.getvalue())
        (line,) = (json.loads(line) for line in written.getvalue().splitlines())
    assert 0 < line.pop("seconds") < 10
    assert line.pop("time")
    assert line.pop("message").startswith(f"POST {CHAT} 200 ")
    assert line == {
        "level": "info",
        "logger": "ain.access",
        "request_id": "the-one",
        "trace_id": TRACE,
        "method": "POST",
        "route": CHAT,
        "status": 200,
    }


def test_a_failure_is_logged_with_its_request(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(type(house.services), "require_model", fail)
    with json_log() as written:
        assert house.post(body(), headers=HEADERS).status_code == 500
        assert eventually(lambda: len(written.getvalue().splitlines()) == 2)
        failure, access = (json.loads(line) for line in written.getvalue().splitlines())
    assert failure["exception"].endswith("RuntimeError: a bug")
    assert failure["request_id"] == access["request_id"] == "the-one"
