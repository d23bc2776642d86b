"""uvicorn's HTTP/1.1 protocol with bounds on a request's head, which it reads before any of our code runs."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import sys
import termios
from http import HTTPStatus

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from server.admission.gate import Arrival
from server.errors import ApiError, BadRequest, HeadTooLarge
from server.routes.door import Door, Refusal
from server.telemetry import metrics

TOO_LARGE = "The headers of the request are too large."
MAX_HEAD_BYTES = 1 << 16
"""Of a request's line and headers together; what nginx and most balancers allow at most."""
SEPARATORS = len(b": \r\n")
HEAD_WITHIN_S = 15.0
"""From the connection, or a request's first byte, to the end of its head."""


def bounded_http(stalled_s: float, door: Door | None = None) -> type[BoundedHttp]:
    """The protocol with a limit of its own on how long a client may leave its reply unread, and before a `door`."""
    return type("BoundedHttp", (BoundedHttp,), {"stalled_s": stalled_s, "door": door})


class Refused:
    """Stands where uvicorn keeps the request that a connection is at; what still comes of its body is let go."""

    response_complete = True

    def __init__(self) -> None:
        self.message_event = asyncio.Event()


class BoundedHttp(HttpToolsProtocol):
    """Refuses heads that are too large with 431, and ends connections whose head does not come or whose reply waits.

    A client that reads nothing costs memory and, worse, a place in the engine: once what is buffered for it has not
    moved for `stalled_s`, its connection is cut.
    """

    stalled_s = 60.0
    door: Door | None = None
    _arrival: Arrival | None = None
    """Of the request that the connection is at."""
    _stall_timer: asyncio.TimerHandle | None = None
    """Runs exactly while bytes wait to be read by the client, and nothing more may be written."""

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
        self._end_stall()
        self._end_arrival()
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
        elif (refusal := self._at_door()) is not None:
            self._reply_at_door(refusal)
        else:
            super().on_headers_complete()

    def _at_door(self) -> Refusal | None:
        """Judge a request before anything is begun for it. One that comes behind another is judged by its route."""
        is_first = self.cycle is None or self.cycle.response_complete
        if self.door is None or not is_first or not self.parser.should_keep_alive():
            return None
        met = self.door.meet(self.parser.get_method(), self.url, self.headers)
        if isinstance(met, Arrival):
            self._arrival = self.scope["state"]["arrival"] = met
            return None
        return met

    def _reply_at_door(self, refusal: Refusal) -> None:
        usual = b"".join(b"%b: %b\r\n" % line for line in self.server_state.default_headers)
        self.transport.write(b"%b%b\r\n%b" % (refusal.head, usual, refusal.body))
        self.cycle = Refused()  # type: ignore[assignment]
        self.on_response_complete()

    def _end_arrival(self) -> None:
        if self._arrival is not None:
            self._arrival.close()
            self._arrival = None

    def send_400_response(self, msg: str) -> None:
        """In OpenAI's shape, as every other error."""
        self._refuse(BadRequest(msg, code="invalid_http"))

    def pause_writing(self) -> None:
        super().pause_writing()
        self._begin_stall()

    def resume_writing(self) -> None:
        self._end_stall()
        super().resume_writing()

    def on_response_complete(self) -> None:
        self._end_arrival()
        super().on_response_complete()
        if self.transport.is_closing():  # with what is buffered still to be read
            self._begin_stall()

    def timeout_keep_alive_handler(self) -> None:
        """Nobody has spoken for long: what is still buffered will not be read either."""
        if self.transport.get_write_buffer_size():
            self._cut()
        else:
            super().timeout_keep_alive_handler()

    def _begin_stall(self) -> None:
        self._end_stall()
        self._stall_timer = self.loop.call_later(self.stalled_s, self._cut_if_stalled, self._unread())

    def _cut_if_stalled(self, unread: int) -> None:
        """Cut, unless the client has read some, if only of the megabytes that the kernel keeps for it."""
        if self._unread() < unread:
            self._begin_stall()
        else:
            self._cut()

    def _unread(self) -> int:
        """Bytes on their way to the client."""
        buffered = self.transport.get_write_buffer_size()
        with contextlib.suppress(OSError, ValueError):
            there = self.transport.get_extra_info("socket").fileno()
            buffered += int.from_bytes(fcntl.ioctl(there, termios.TIOCOUTQ, bytes(4)), sys.byteorder)  # SIOCOUTQ
        return buffered

    def _end_stall(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _cut(self) -> None:
        metrics.STALLED.inc()
        self.transport.abort()

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
