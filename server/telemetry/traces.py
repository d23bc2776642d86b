"""Traces, from route to engine, for rooms that know no OpenTelemetry.

    with traces.span("media", pictures=3) as span:
        ...
        span.set(tokens=1260)

Off, which they are until `start`, a span is one object that does nothing, and OpenTelemetry is not even imported;
`otlp.py` holds what happens when they are on. A span belongs to the running task and to the tasks and threads that are
started inside of it. Attributes are counts and names of kinds, never any content: no text, no URL, no error message.

What a room calls `input_tokens` arrives as `gen_ai.usage.input_tokens`: `otlp.NAMES` holds OpenTelemetry's names, and
what is not there gets the prefix `ain.`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from server.telemetry.otlp import Tracing

Attribute = str | bool | int | float | list[str]

FLUSH_WITHIN_S = 1.5
"""How long the end of the server waits for a collector."""


class Span:
    """A piece of a request's work. This one, the one there is when traces are off, does nothing."""

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def active(self) -> AbstractContextManager[object]:
        """Have what the block starts be inside of this span, which goes on afterwards, unless the block fails.

        For a span that outlives its task: whoever has it last calls `end`.
        """
        return self

    def set(self, **attributes: Attribute) -> None:
        """Add what has become known."""

    def answered(self, route: str, status: int, error: str = "") -> None:
        """Tell what became of an HTTP request; `error` is the kind of what went wrong, where `status` does not say."""

    def end(self) -> None:
        """End a span that was not entered as a context, or is over before it. Safe to call twice."""

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits; empty when traces are off."""
        return ""

    def headers(self) -> Mapping[str, str] | None:
        """W3C headers that make what receives them a child of this span; None when traces are off."""
        return None


OFF = Span()
current: ContextVar[Span] = ContextVar("current_span", default=OFF)
_tracing: Tracing | None = None


def span(name: str, **attributes: Attribute) -> Span:
    """A child of the running span: a context manager, or something to `end` where it outlives the task."""
    return OFF if _tracing is None else _tracing.span(name, attributes)


def request_span(method: str, path: str, header: Callable[[str], str | None]) -> Span:
    """The span of an HTTP request, in the trace that its `traceparent` header names, or in a new one."""
    return OFF if _tracing is None else _tracing.request_span(method, path, header)


def trace_id() -> str:
    """The trace that the running task belongs to; empty where there is none."""
    return current.get().trace_id


def trace_headers() -> Mapping[str, str] | None:
    """`traceparent`, and `tracestate` where there is one, of the running span; None when traces are off."""
    return current.get().headers()


def start(endpoint: str | None, *, version: str, sample_ratio: float = 1.0) -> None:
    """Send traces to an OTLP/HTTP collector from now on, such as http://collector:4318; None leaves them off.

    Blocking: imports OpenTelemetry, which takes some tenths of a second.
    """
    if endpoint is None:
        return
    from server.telemetry.otlp import Tracing, exporter_to

    use(Tracing(exporter_to(endpoint), version=version, sample_ratio=sample_ratio))


def use(tracing: Tracing | None) -> None:
    """Make spans by `tracing` from now on; None turns them off."""
    global _tracing
    _tracing = tracing


def stop(within_s: float = FLUSH_WITHIN_S) -> None:
    """Turn traces off and send what is left, for at most `within_s` seconds: a collector may be slow, or gone."""
    tracing = _tracing
    use(None)
    if tracing is None:
        return
    # In a thread that dies with the process, since the SDK's own shutdown may wait for half a minute.
    last = threading.Thread(target=tracing.flush, name="last-traces", daemon=True)
    last.start()
    last.join(within_s)
    if last.is_alive():
        tracing.abandon()
