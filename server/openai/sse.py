"""Server-sent events: the only place that writes `data:`."""

from __future__ import annotations

import orjson

from server.errors import ApiError

DONE = b"data: [DONE]\n\n"
PING = b": ping\n\n"
"""A comment, which clients skip (HTML standard, 9.2.6): it only shows that the connection lives."""


def frame(payload: bytes) -> bytes:
    """One event; `payload` is JSON without line breaks."""
    return b"data: " + payload + b"\n\n"


def error_frame(error: ApiError) -> bytes:
    """An error in mid-stream: the body an HTTP reply would have had, without `choices`."""
    return frame(orjson.dumps(error.body()))
