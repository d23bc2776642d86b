"""The server's own log: one line an event, to the stream that a person or a collector reads. Never any content.

As text, or as JSON with one object a line:

    {"time": "2026-11-23T09:41:07.312+00:00", "level": "info", "logger": "ain.access", "message": "POST ...",
     "request_id": "req-...", "trace_id": "...", "method": "POST", "route": "/v1/chat/completions", "status": 200,
     "seconds": 0.412}
"""

from __future__ import annotations

import logging
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from pythonjsonlogger.orjson import OrjsonFormatter

from server.telemetry import traces

FORMAT = "%(asctime)s %(levelname)-7s %(message)s"
ROOTS = ("ain", "server", "uvicorn")
"""The loggers of this project and of its HTTP server; the engine's write to its own file."""

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the request that the running task works on; empty outside of requests."""


def configure_logs(level: str, stream: TextIO, log_format: Literal["text", "json"] = "text") -> None:
    """Send the server's log to `stream`, from `level` upwards."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Json() if log_format == "json" else _Text(FORMAT))
    handler.addFilter(RequestFilter())
    for name in ROOTS:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level.upper())
        logger.propagate = False
    # What uvicorn says of every start and stop is said by the console.
    logging.getLogger("uvicorn").setLevel(max(logging.WARNING, logging.getLogger(ROOTS[0]).level))
    # A disk that is full, a pipe that nobody reads any more: the line is lost, and nothing is said of it. Told on
    # stderr, it would fill the engine's log instead.
    logging.raiseExceptions = False


class RequestFilter(logging.Filter):
    """Lets everything through, with the ids of the request and of the trace that it belongs to."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id.get()
        record.trace_id = traces.trace_id()
        return True


class _Text(logging.Formatter):
    """Lines for people, with the request's id at the end, unless the message names it itself."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's own name
        line = super().formatMessage(record)
        given = getattr(record, "request_id", "")
        return line if not given or given in record.message else f"{line} {given}"


class _Json(OrjsonFormatter):
    """One object a line; what is empty is left out."""

    def __init__(self) -> None:
        super().__init__(["message", "request_id", "trace_id"], rename_fields={"exc_info": "exception"})

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        """Begin with when, how bad and who; then what python-json-logger finds, the fields given as `extra` last."""
        when = datetime.fromtimestamp(record.created, tz=UTC)
        log_data["time"] = when.isoformat(timespec="milliseconds")
        log_data["level"] = record.levelname.lower()
        log_data["logger"] = record.name
        super().add_fields(log_data, record, message_dict)

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        """Leave out ids that there are none of."""
        return {name: value for name, value in log_data.items() if value not in ("", None)}
