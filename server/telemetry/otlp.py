"""What is behind `traces.py` when traces are on: OpenTelemetry's SDK, and its exporter over OTLP/HTTP.

Imported only when the server is told to send traces. The SDK's own variables hold as well: OTEL_SERVICE_NAME,
OTEL_RESOURCE_ATTRIBUTES, OTEL_EXPORTER_OTLP_HEADERS, OTEL_EXPORTER_OTLP_CERTIFICATE and their kind.

A collector that is slow or gone costs nothing but its spans: they wait in a queue of `QUEUE`, whose oldest go first.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import Token
from types import TracebackType
from typing import Self

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from server.telemetry import metrics
from server.telemetry.traces import Attribute, Span, current

log = logging.getLogger(__name__)

QUEUE = 4096
"""Spans that may wait to be sent, about 2 KiB each."""
BATCH = 512
SEND_EVERY_MS = 2000
SEND_WITHIN_S = 5.0
PATH_LENGTH = 200
"""Characters of a path: strangers may send long ones."""

NAMES = {
    "model": "gen_ai.request.model",
    "max_tokens": "gen_ai.request.max_tokens",
    "choices": "gen_ai.request.choice.count",
    "streamed": "gen_ai.request.stream",
    "response_id": "gen_ai.response.id",
    "finish_reasons": "gen_ai.response.finish_reasons",
    "first_token_seconds": "gen_ai.response.time_to_first_chunk",
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "cached_tokens": "gen_ai.usage.cache_read.input_tokens",
    "error": "error.type",
}
"""OpenTelemetry's names for what rooms tell of a span."""

GIVEN: Mapping[str, Mapping[str, Attribute]] = {
    "engine": {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "vllm"},
}
"""What every span of a name has."""

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"})
"""The others become `_OTHER`, as the HTTP conventions say: strangers may make methods up."""


class Tracing:
    """Makes spans and hands them to an exporter, from a thread of its own."""

    def __init__(self, exporter: SpanExporter, *, version: str, sample_ratio: float = 1.0) -> None:
        """`sample_ratio` is the share of requests traced where their `traceparent` does not decide it."""
        resource = Resource({"service.name": "ain-server", "service.version": version})
        self._exporter = exporter
        self._processor = BatchSpanProcessor(
            exporter, max_queue_size=QUEUE, max_export_batch_size=BATCH, schedule_delay_millis=SEND_EVERY_MS
        )
        provider = TracerProvider(
            resource=resource.merge(OTELResourceDetector().detect()),
            sampler=ParentBased(TraceIdRatioBased(sample_ratio)),
            shutdown_on_exit=False,  # it would wait for half a minute
        )
        provider.add_span_processor(self._processor)
        self._tracer = provider.get_tracer("ain-server", version)
        self._propagator = TraceContextTextMapPropagator()

    def span(self, name: str, attributes: Mapping[str, Attribute]) -> Span:
        """A child of the running span."""
        parent = current.get()
        context = parent.context if isinstance(parent, LiveSpan) else Context()
        return LiveSpan(
            self._tracer.start_span(name, context, attributes={**GIVEN.get(name, {}), **_named(attributes)})
        )

    def request_span(self, method: str, path: str, header: Callable[[str], str | None]) -> Span:
        """The span of an HTTP request; `header` looks one of its headers up."""
        method = method if method in METHODS else "_OTHER"
        carrier = {name: value for name in self._propagator.fields if (value := header(name))}
        attributes = {"http.request.method": method, "url.path": path[:PATH_LENGTH], "url.scheme": "http"}
        context = self._propagator.extract(carrier, Context())
        started = self._tracer.start_span(_http_name(method), context, trace.SpanKind.SERVER, attributes)
        return RequestSpan(started, method)

    def flush(self) -> None:
        """Send what is left; then nothing is sent any more. May take half a minute."""
        self._processor.shutdown()  # type: ignore[no-untyped-call]

    def abandon(self) -> None:
        """Have a `flush` that takes too long give up."""
        self._exporter.shutdown()


class LiveSpan(Span):
    """A span of the SDK's, with the context that makes others its children."""

    __slots__ = ("_span", "_token", "context")

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self.context = trace.set_span_in_context(span, Context())
        self._token: Token[Span] | None = None

    def __enter__(self) -> Self:
        self._token = current.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace_: TracebackType | None
    ) -> None:
        if self._token is not None:
            # A generator may be closed by another task than the one that began it; its context ends with that one.
            with contextlib.suppress(ValueError):
                current.reset(self._token)
        if kind is not None:
            self._fail(kind.__name__)
        self.end()

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        token = current.set(self)
        try:
            yield
        except BaseException as error:
            self._fail(type(error).__name__)
            self.end()
            raise
        finally:
            current.reset(token)

    def set(self, **attributes: Attribute) -> None:
        self._span.set_attributes(_named(attributes))

    def end(self) -> None:
        if self._span.is_recording():  # no longer, once it has ended
            self._span.end()

    @property
    def trace_id(self) -> str:
        return trace.format_trace_id(self._span.get_span_context().trace_id)

    def headers(self) -> Mapping[str, str]:
        about = self._span.get_span_context()
        parent = f"00-{about.trace_id:032x}-{about.span_id:016x}-{about.trace_flags:02x}"
        state = about.trace_state.to_header()
        return {"traceparent": parent, "tracestate": state} if state else {"traceparent": parent}

    def _fail(self, kind: str) -> None:
        """The kind alone: an error's message may hold what a user wrote."""
        self._span.set_attribute("error.type", kind)
        self._span.set_status(trace.StatusCode.ERROR)


class RequestSpan(LiveSpan):
    """The span of an HTTP request, by OpenTelemetry's conventions for servers."""

    __slots__ = ("_method",)

    def __init__(self, span: trace.Span, method: str) -> None:
        super().__init__(span)
        self._method = method

    def answered(self, route: str, status: int, error: str = "") -> None:
        self._span.update_name(_http_name(self._method, route))
        if route:
            self._span.set_attribute("http.route", route)
        if status:
            self._span.set_attribute("http.response.status_code", status)
        if error:
            self._span.set_attribute("error.type", error)
        if status >= 500:  # below, it is the client who is at fault, and its span that has failed
            self._fail(error or str(status))


def _named(attributes: Mapping[str, Attribute]) -> dict[str, Attribute]:
    return {NAMES.get(name) or f"ain.{name}": value for name, value in attributes.items()}


def _http_name(method: str, route: str = "") -> str:
    name = "HTTP" if method == "_OTHER" else method
    return f"{name} {route}" if route else name


# ---- Sending


def exporter_to(endpoint: str) -> SpanExporter:
    """Sends spans to a collector; `endpoint` is its address without the path /v1/traces."""
    # The SDK tells of every batch that it cannot send, several times: `_Reporting` says it once.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    return Reporting(OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=SEND_WITHIN_S))


class Reporting(SpanExporter):
    """Passes spans on, and says once when they no longer arrive, and once when they do again."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._arriving = True
        self._closed = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        arriving = result is SpanExportResult.SUCCESS
        if not arriving:
            metrics.SPANS_LOST.inc(len(spans))
        if arriving != self._arriving and not self._closed:
            self._arriving = arriving
            if arriving:
                log.info("traces arrive at the collector again")
            else:
                log.warning("traces do not arrive at the collector; they are dropped until they do")
        return result

    def shutdown(self) -> None:
        """Safe to call twice, and while a batch is on its way, which it ends."""
        if not self._closed:
            self._closed = True
            self._exporter.shutdown()
