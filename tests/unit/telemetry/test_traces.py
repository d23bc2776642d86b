from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from server.telemetry import traces
from server.telemetry.otlp import Reporting, Tracing

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1"}
NOT_SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-00"}


class Sent:
    """What has been sent, once traces have stopped."""

    def __init__(self, sample_ratio: float = 1.0) -> None:
        self._exporter = InMemorySpanExporter()
        self._spans: Sequence[ReadableSpan] | None = None
        traces.use(Tracing(self._exporter, version="1", sample_ratio=sample_ratio))

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        traces.stop(10)
        if self._spans is None:
            self._spans = self._exporter.get_finished_spans()
        return {span.name: span for span in self._spans}


@pytest.fixture
def sent() -> Iterator[Sent]:
    yield Sent()
    traces.stop(10)


def request(headers: Mapping[str, str] | None = None, method: str = "POST", path: str = "/v1/x") -> traces.Span:
    return traces.request_span(method, path, (headers or {}).get)


def facts(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def parent_of(span: ReadableSpan) -> int:
    assert span.parent is not None
    return span.parent.span_id


# ---- Off


def test_off_a_span_is_one_object_that_does_nothing() -> None:
    with traces.span("engine", model="m", input_tokens=3) as span:
        span.set(output_tokens=4)
        assert span is traces.OFF
        with span.active():
            pass
        assert request(SAMPLED) is traces.OFF
        assert traces.trace_headers() is None
        assert traces.trace_id() == ""
    span.answered("/v1/x", 200)
    span.end()


def test_off_a_span_costs_next_to_nothing() -> None:
    began = time.thread_time()
    for _ in range(20_000):
        with traces.span("engine", model="m"):
            pass
    assert (time.thread_time() - began) / 20_000 < 5e-6  # 0.2 us on a quiet machine


def test_off_opentelemetry_is_not_imported() -> None:
    code = "import sys; from server.telemetry import traces; traces.start(None, version='1'); print(*sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert not [name for name in answer.stdout.split() if name.startswith("opentelemetry")]


# ---- A request's span


def test_a_request_is_a_child_of_its_traceparent(sent: Sent) -> None:
    with request(SAMPLED) as span:
        assert traces.trace_id() == TRACE
        span.answered("/v1/things/{id}", 200)
    (span_,) = sent.spans.values()
    assert span_.name == "POST /v1/things/{id}"
    assert span_.kind is SpanKind.SERVER
    assert f"{span_.context.trace_id:032x}" == TRACE
    assert f"{parent_of(span_):016x}" == PARENT
    assert span_.context.trace_state.to_header() == "vendor=1"
    assert facts(span_) == {
        "http.request.method": "POST",
        "http.route": "/v1/things/{id}",
        "http.response.status_code": 200,
        "url.path": "/v1/x",
        "url.scheme": "http",
    }
    assert span_.status.status_code is StatusCode.UNSET
    assert span_.resource.attributes["service.name"] == "ain-server"


@pytest.mark.parametrize("header", ["", "x", f"00-{'0' * 32}-{PARENT}-01", f"ff-{TRACE}-{PARENT}-01", "00-" + "é" * 60])
def test_a_traceparent_that_is_none_begins_a_trace_of_its_own(sent: Sent, header: str) -> None:
    with request({"traceparent": header}):
        assert traces.trace_id() not in {TRACE, "", "0" * 32}
    assert next(iter(sent.spans.values())).parent is None


def test_what_strangers_make_up_is_bounded(sent: Sent) -> None:
    with request(method="BREW", path="/" + "x" * 5000) as span:
        span.answered("", 404)
    span_ = sent.spans["HTTP"]
    assert facts(span_)["http.request.method"] == "_OTHER"
    assert len(facts(span_)["url.path"]) == 200
    assert "http.route" not in facts(span_)


@pytest.mark.parametrize(
    ("status", "error", "expected", "failed"),
    [(400, "", None, False), (503, "", "503", True), (0, "client_gone", "client_gone", False)],
)
def test_a_request_fails_where_the_server_is_at_fault(
    sent: Sent, status: int, error: str, expected: str | None, failed: bool
) -> None:
    with request() as span:
        span.answered("/x", status, error)
    span_ = sent.spans["POST /x"]
    assert facts(span_).get("http.response.status_code") == (status or None)
    assert facts(span_).get("error.type") == expected
    assert span_.status.is_ok is not failed


# ---- Spans inside of it


def test_rooms_names_become_opentelemetrys(sent: Sent) -> None:
    with traces.span("engine", model="ain", input_tokens=7) as span:
        span.set(output_tokens=3, finish_reasons=["stop"], pictures=2)
    assert facts(sent.spans["engine"]) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "ain",
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.response.finish_reasons": ("stop",),
        "ain.pictures": 2,
    }


async def test_spans_of_tasks_and_threads_are_children_of_what_started_them(sent: Sent) -> None:
    def prompt() -> None:
        with traces.span("prompt"):
            pass

    async def work() -> None:
        with traces.span("media"):
            await asyncio.to_thread(prompt)
        with traces.span("engine"):
            await asyncio.sleep(0)

    with request(SAMPLED) as span:
        await asyncio.create_task(work())
        span.answered("/x", 200)
    assert traces.current.get() is traces.OFF
    spans = sent.spans
    assert {f"{span_.context.trace_id:032x}" for span_ in spans.values()} == {TRACE}
    root = spans["POST /x"].context.span_id
    assert [parent_of(spans[name]) for name in ("media", "engine")] == [root, root]
    assert parent_of(spans["prompt"]) == spans["media"].context.span_id


async def test_requests_side_by_side_do_not_mix(sent: Sent) -> None:
    async def work(number: int) -> bool:
        with request({"traceparent": f"00-{number:032x}-{PARENT}-01"}):
            await asyncio.sleep(0)
            with traces.span("media"):
                await asyncio.sleep(0)
                return traces.trace_id() == f"{number:032x}"

    assert all(await asyncio.gather(*(asyncio.create_task(work(number)) for number in range(1, 50))))


async def test_a_generator_that_another_task_closes_ends_its_span(sent: Sent) -> None:
    async def events() -> AsyncIterator[int]:
        with traces.span("engine"):
            yield 1
            yield 2

    stream = events()
    assert await asyncio.create_task(anext(stream)) == 1  # type: ignore[arg-type]
    await stream.aclose()  # type: ignore[attr-defined]
    assert facts(sent.spans["engine"])["error.type"] == "GeneratorExit"


def test_a_span_may_end_by_word(sent: Sent) -> None:
    with request():
        span = traces.span("engine")
        assert traces.current.get() is not span
        span.end()
        span.end()
        span.set(output_tokens=1)  # too late, and harmless
    assert parent_of(sent.spans["engine"]) == sent.spans["POST"].context.span_id


def test_a_span_that_outlives_its_task_is_active_where_it_is_told_to_be(sent: Sent) -> None:
    with request():
        span = traces.span("engine")
        with span.active():
            assert traces.trace_headers() == span.headers()
        assert traces.current.get() is not span
        span.set(output_tokens=1)
        span.end()
        failed = traces.span("other")
        with pytest.raises(ValueError, match="x"), failed.active():
            raise ValueError("x")
    assert facts(sent.spans["engine"])["gen_ai.usage.output_tokens"] == 1
    assert facts(sent.spans["other"]) == {"error.type": "ValueError"}


def test_an_error_is_named_and_its_message_kept_back(sent: Sent) -> None:
    with pytest.raises(ValueError, match="my secret"), traces.span("prompt"):
        raise ValueError("my secret words")
    span = sent.spans["prompt"]
    assert facts(span) == {"error.type": "ValueError"}
    assert not span.status.is_ok
    assert not span.events
    assert "secret" not in span.to_json()


def test_headers_lead_on_to_the_engine(sent: Sent) -> None:
    with request(SAMPLED), traces.span("engine"):
        headers = traces.trace_headers()
    assert headers == {
        "traceparent": f"00-{TRACE}-{sent.spans['engine'].context.span_id:016x}-01",
        "tracestate": "vendor=1",
    }


# ---- Sampling


def test_the_client_decides_what_is_sampled_else_the_ratio() -> None:
    sent = Sent(sample_ratio=0.0)
    with request(SAMPLED) as span:
        span.answered("/asked", 200)
    with request() as span, traces.span("engine"):
        span.answered("/by-chance", 200)
        headers = traces.trace_headers() or {}
    assert int(headers["traceparent"][-2:], 16) & 1 == 0, "what follows is not sampled either"
    assert list(sent.spans) == ["POST /asked"]

    sent = Sent(sample_ratio=1.0)
    with request(NOT_SAMPLED) as span:
        span.answered("/refused", 200)
    assert list(sent.spans) == []


# ---- Collectors that are slow or gone


class Slow(SpanExporter):
    def __init__(self) -> None:
        self.answers = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.answers.wait(8)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None: ...


def test_the_end_does_not_wait_for_a_slow_collector() -> None:
    slow = Slow()
    traces.use(Tracing(slow, version="1"))
    with traces.span("engine"):
        pass
    began = time.monotonic()
    traces.stop()
    assert time.monotonic() - began < 4
    assert traces.span("engine") is traces.OFF
    slow.answers.set()


class Broken(SpanExporter):
    def __init__(self) -> None:
        self.result = SpanExportResult.FAILURE
        self.closed = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return self.result

    def shutdown(self) -> None:
        self.closed += 1


def test_a_collector_that_is_gone_is_told_of_once_and_so_is_its_return(caplog: pytest.LogCaptureFixture) -> None:
    broken = Broken()
    exporter = Reporting(broken)
    with caplog.at_level(logging.INFO, "server"):
        for _ in range(5):
            exporter.export(())
        broken.result = SpanExportResult.SUCCESS
        for _ in range(5):
            exporter.export(())
        broken.result = SpanExportResult.FAILURE
        exporter.shutdown()
        exporter.shutdown()
        exporter.export(())
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert broken.closed == 1
