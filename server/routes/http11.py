"""uvicorn's HTTP/1.1 protocol with bounds on a request's head, which it reads before any of our code runs."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from server.errors import ApiError, BadRequest, HeadTooLarge

TOO_LARGE = "The headers of the request are too large."
MAX_HEAD_BYTES = 1 << 16
"""Of a request's line and headers together; what nginx and most balancers allow at most."""
SEPARATORS = len(b": \r\n")
HEAD_WITHIN_S = 15.0
"""From the connection, or a request's first byte, to the end of its head."""


class BoundedHttp(HttpToolsProtocol):
    """Refuses heads that are too large with 431, and ends connections whose head does not come."""

    _head_bytes = 0
    """Bytes received of a head that is not complete."""
    _header_bytes = 0
    """Bytes of the headers parsed so far."""
    _head_timer: asyncio.TimerHandle | None = None
    """Runs exactly while a head is being read."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._begin_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._head_timer is None:
            return
        self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(HeadTooLarge(TOO_LARGE))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._begin_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value) + SEPARATORS
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._end_head()
        self._head_bytes = 0
        if self._header_bytes + len(self.url) > MAX_HEAD_BYTES:
            self._refuse(HeadTooLarge(TOO_LARGE))
        else:
            super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """In OpenAI's shape, as every other error."""
        self._refuse(BadRequest(msg, code="invalid_http"))

    def _begin_head(self) -> None:
        self._end_head()
        self._header_bytes = 0
        self._head_timer = self.loop.call_later(HEAD_WITHIN_S, self.transport.close)

    def _end_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, error: ApiError) -> None:
        """Answer without the app, and close: nothing that still comes can be understood."""
        self._end_head()
        if self.transport.is_closing():
            return
        body = orjson.dumps(error.body())
        head = (
            f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
