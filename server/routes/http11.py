"""HTTP/1.1 at the socket: uvicorn's protocol with bounds on all that a client can send, in each state it can be in.

    IDLE -> HEAD -> BODY -> ANSWERING -> IDLE       a request after the other
                    BODY -> DRAINING -> IDLE        answered before all of its body had come: the rest is let go
    any -> CLOSING                                  the last reply is written; what still comes is let go

A connection has one timer, of the state that it is in, and takes one request at a time: what comes behind a request
stays unread until that is answered. (Parsed at once, as uvicorn does, a block of heads is a thousand requests.)
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import sys
import termios
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus
from typing import Any

import httptools
import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from server.admission.gate import Arrival
from server.errors import ApiError, BadRequest, HeadTooLarge, TooManyConnections
from server.routes.connections import Connections, Engaged
from server.routes.early_refusal import EarlyRefusal, Refusal, keep_arrival
from server.routes.framing import body_length, fault_of, is_chunked
from server.services import Services
from server.telemetry import metrics

NO_HTTP = "Invalid HTTP request received."
TOO_LARGE = "The headers of the request are too large."
TOO_MUCH_FRAMING = "The body's chunks take more for themselves than they carry."
END_OF_HEAD = b"\r\n\r\n"

MAX_HEAD_BYTES = 1 << 16
"""Of a request's line and headers together; what nginx and most balancers allow at most."""
MAX_BLANK_BYTES = 64
"""Of empty lines before a request, which RFC 9112 (2.2) would have us skip."""
MAX_FRAMING_BYTES = 1 << 16
"""What chunks may take for themselves beyond as much as they carry: sizes, extensions, and trailers."""
MAX_DRAINED_BYTES = 128 << 20
"""Of a body that nobody wants any more: twice the largest one."""

HEAD_WITHIN_S = 15.0
"""From the connection, or a request's first byte, to the end of its head."""
BODY_GRACE_S = 5.0
"""What a body may take beyond its own limit: the routes, which know that limit, answer first."""
DRAINED_WITHIN_S = 15.0
"""For the rest of a body whose request has been answered."""
CLOSED_WITHIN_S = 2.0
"""From the last reply until a client that may still be sending hangs up; hanging up on it would lose it the reply."""
LOOK_AGAIN_S = 0.5
"""Between two looks whether a client that has finished sending still listens."""
IPPROTO_TCP, TCP_INFO, TCP_CLOSE = 6, 11, 7
"""Of linux' in.h, tcp.h and tcp_states.h."""


class State(Enum):
    """Where a connection is."""

    IDLE = "idle"
    HEAD = "head"
    BODY = "body"
    ANSWERING = "answering"
    DRAINING = "draining"
    CLOSING = "closing"


ENGAGED = {
    State.IDLE: Engaged.NOT,
    State.HEAD: Engaged.ASKING,
    State.BODY: Engaged.BUSY,
    State.ANSWERING: Engaged.BUSY,
    State.DRAINING: Engaged.NOT,
    State.CLOSING: Engaged.NOT,
}


@dataclass(frozen=True, slots=True)
class Bounds:
    """What an operator can set."""

    stalled_s: float = 60.0
    """How long a client may leave its reply unread."""
    body_s: float = 60.0
    """How long a body may take to come."""


def bounded_http(services: Services, most_connections: int) -> type[BoundedHttp]:
    """The protocol of one server; `most_connections` holds where its settings name no number."""
    settings = services.settings
    connections = Connections(settings.max_connections or most_connections, settings.max_connections_per_address)
    bounds = Bounds(settings.stalled_timeout_s, settings.body_timeout_s)
    return type(
        "BoundedHttp", (BoundedHttp,), {"bounds": bounds, "all": connections, "early_refusal": EarlyRefusal(services)}
    )


class _Line:
    """The transport as uvicorn may use it: it closes the way the connection wants."""

    __slots__ = ("close", "is_closing", "write")

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = close


class Refused:
    """Stands where uvicorn keeps the request that a connection is at; what still comes of its body is let go."""

    response_complete = True

    def __init__(self) -> None:
        self.message_event = asyncio.Event()


class BoundedHttp(HttpToolsProtocol):
    """Answers what is no request with an error, and ends connections that take too long or too much.

    A client that reads nothing costs memory and, worse, a place in the engine: once what is buffered for it has not
    moved for `stalled_s`, its connection is cut.
    """

    bounds = Bounds()
    all: Connections
    early_refusal: EarlyRefusal | None = None

    _arrival: Arrival | None = None
    """Of the request that the connection is at."""
    _stall_timer: asyncio.TimerHandle | None = None
    """Runs exactly while bytes wait to be read by the client, and nothing more may be written."""

    _state = State.IDLE
    _entered = True
    """Whether its timer has still to be set."""
    _timer: asyncio.TimerHandle | None = None
    _within_s = HEAD_WITHIN_S
    """For the next request's first byte."""

    _unread = b""
    """What has come behind a request that is not answered."""
    _head_bytes = 0
    _last_of_head = b""
    """The last three bytes of a head that is not complete: its end may come in two pieces."""
    _blank_bytes = 0
    _parsed = False
    """Whether the parser has seen the head's end."""
    _left: int | None = None
    """Bytes of the body that have still to come; None where it comes in chunks."""
    _body_bytes = 0
    _framing_bytes = 0
    """All that chunks took for themselves."""
    _silent_bytes = 0
    """Of those, what has come since the body's last byte: trailers, or a chunk's extension."""
    _drained_bytes = 0

    # ---- The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._socket = transport
        self.transport = _Line(transport, self._close)  # type: ignore[assignment]
        self._within_s = HEAD_WITHIN_S
        try:
            self.all.admit(self, self.client[0] if self.client else "")
        except TooManyConnections as error:
            self._turn_away(error)
        self._set_timer()

    def _turn_away(self, error: ApiError) -> None:
        metrics.TURNED_AWAY.inc()
        if self.all.refuse(self):
            self._refuse(error)
        else:
            self._socket.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._enter(State.CLOSING)
        self._stop_timer()
        self._end_stall()
        self._end_arrival()
        self._let_go_of_head()
        self.all.remove(self)
        super().connection_lost(exc)

    def give_way(self) -> None:
        """End at once, for another connection."""
        metrics.GAVE_WAY.inc()
        self._let_go_of_head()
        self._socket.abort()

    def eof_received(self) -> bool:  # type: ignore[override]  # uvicorn's says None, asyncio's either
        """A client that has said all may still be listening; one whose request is not whole has gone."""
        if self._state is not State.ANSWERING or self.scope["http_version"] != "1.1":
            return False
        self.cycle.keep_alive = False
        # To a socket that is closed, and not only half of it, any byte brings back a reset. These two mean nothing:
        # clients pass interim replies over (RFC 9110, 15.2), and a chunk's size may begin with zeros (RFC 9112, 7.1).
        if not self.cycle.response_started:
            self._socket.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        elif self.cycle.chunked_encoding:
            self._socket.write(b"0")
        self.loop.call_later(LOOK_AGAIN_S, self._look_for_reset)
        return True

    def _look_for_reset(self) -> None:
        if self._socket.is_closing():
            return
        if _tcp_state(self._socket) == TCP_CLOSE:
            self._socket.abort()
        else:
            self.loop.call_later(LOOK_AGAIN_S, self._look_for_reset)

    # ---- States and their time

    def _enter(self, state: State) -> None:
        self._state = state
        self._entered = True

    def _set_timer(self) -> None:
        """Give the state that was entered its time. Called last: of states that are passed through nobody hears."""
        if not self._entered:
            return
        self._entered = False
        self._stop_timer()
        self.all.place(self, ENGAGED[self._state])
        if (seconds := self._time()) is not None:
            self._timer = self.loop.call_later(seconds, self._late)

    def _time(self) -> float | None:
        match self._state:
            case State.IDLE:
                return self._within_s
            case State.HEAD:
                return HEAD_WITHIN_S
            case State.BODY:
                return self.bounds.body_s + BODY_GRACE_S
            case State.DRAINING:
                return DRAINED_WITHIN_S
            case State.CLOSING:
                return CLOSED_WITHIN_S
            case State.ANSWERING:
                return None  # the routes know when, and the timer of what is left unread

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        if self._socket.get_write_buffer_size():  # nobody has spoken for long: this will not be read either
            self._cut()
        elif self._state in {State.IDLE, State.HEAD}:
            self._socket.close()
        else:
            self._socket.abort()

    def _close(self) -> None:
        """End once the client has read what was written. One that still sends would be reset, and lose it."""
        if self._state is State.BODY and not self._socket.is_closing():
            self._linger()
        elif self._state is not State.CLOSING:
            self._socket.close()

    def _linger(self) -> None:
        self._enter(State.CLOSING)
        self._drained_bytes = 0
        with contextlib.suppress(OSError, RuntimeError):
            self._socket.resume_reading()
            self._socket.write_eof()
        self._set_timer()

    # ---- What comes

    def data_received(self, data: bytes) -> None:
        self._read(self._unread + data)
        self._set_timer()

    def _read(self, data: bytes) -> None:
        self._unread = b""
        while data and not self._socket.is_closing():
            match self._state:
                case State.IDLE | State.HEAD:
                    data = self._read_head(data)
                case State.BODY | State.DRAINING:
                    data = self._read_body(data)
                case State.ANSWERING:
                    self._unread, data = data, b""
                    self._socket.pause_reading()
                case State.CLOSING:
                    self._drain(len(data))
                    data = b""

    def _read_head(self, data: bytes) -> bytes:
        """Take what belongs to a head; returns the rest."""
        if self._state is State.IDLE:
            data = self._begin_head(data)
        seen = self._last_of_head + data
        end = seen.find(END_OF_HEAD)
        taken = len(data) if end < 0 else end + len(END_OF_HEAD) - len(self._last_of_head)
        self._hold_head(taken)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(HeadTooLarge(TOO_LARGE))
            return b""
        self._last_of_head = seen[-len(END_OF_HEAD) + 1 :]
        self._feed(data[:taken])
        if end >= 0:
            self._let_go_of_head()
            if not self._parsed:
                self._refuse_nonsense()
        return data[taken:]

    def _begin_head(self, data: bytes) -> bytes:
        rest = data.lstrip(b"\r\n")
        self._blank_bytes += len(data) - len(rest)
        if self._blank_bytes > MAX_BLANK_BYTES:
            self._refuse_nonsense()
            return b""
        if rest:
            self._enter(State.HEAD)
            self._blank_bytes = 0
            self._last_of_head, self._parsed = b"", False
        return rest

    def _hold_head(self, size: int) -> None:
        self._head_bytes += size
        self.all.hold_head(size)

    def _let_go_of_head(self) -> None:
        self.all.hold_head(-self._head_bytes)
        self._head_bytes = 0

    def _read_body(self, data: bytes) -> bytes:
        """Take what belongs to a body; returns the rest."""
        if self._left is None:
            self._read_chunks(data)
            return b""
        part, rest = data[: self._left], data[self._left :]
        self._left -= len(part)
        if self._drain_if_unwanted(len(part)):
            self._feed(part)
        return rest

    def _read_chunks(self, data: bytes) -> None:
        if not self._drain_if_unwanted(len(data)):
            return
        before = self._body_bytes
        self._feed(data)
        framing = len(data) - (self._body_bytes - before)
        self._framing_bytes += framing
        self._silent_bytes = self._silent_bytes + framing if self._body_bytes == before else 0
        if self._state in {State.BODY, State.DRAINING} and (
            self._silent_bytes > MAX_FRAMING_BYTES or self._framing_bytes > MAX_FRAMING_BYTES + self._body_bytes
        ):
            self._refuse(BadRequest(TOO_MUCH_FRAMING, code="invalid_http"))

    def _drain_if_unwanted(self, size: int) -> bool:
        return self._state is not State.DRAINING or self._drain(size)

    def _drain(self, size: int) -> bool:
        """Let bytes go, within bounds; False once they are too many."""
        self._drained_bytes += size
        if self._drained_bytes > MAX_DRAINED_BYTES:
            self._socket.abort()
            return False
        return True

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._read_without_offer()
        except httptools.HttpParserError:
            if self._state in {State.HEAD, State.BODY, State.DRAINING}:
                self._refuse_nonsense()
            else:
                self._end_after_reply()

    def _read_without_offer(self) -> None:
        """Parse the head once more without the offer of another protocol, of which the parser would wait to hear.

        A server that makes no use of an Upgrade reads on as if there were none (RFC 9110, 7.8).
        """
        line = b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        rest = b"".join(b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade")
        self.parser = httptools.HttpRequestParser(self)
        self._feed(line + rest + b"\r\n")

    def _end_after_reply(self) -> None:
        """What came behind a body in chunks is let go: where that body ended is known to nobody but the parser.

        A client that sent another request there finds the connection closed, and sends it anew (RFC 9112, 9.3.2).
        """
        if self._state is State.ANSWERING:
            self.cycle.keep_alive = False
        else:
            self._socket.close()

    # ---- What the parser finds

    def on_message_begin(self) -> None:
        if self._state is not State.HEAD:
            raise RuntimeError("what comes behind a body in chunks is not read")
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._state is State.HEAD:  # trailers are no headers (RFC 9110, 6.5.1)
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if fault := fault_of(self.parser.get_method(), self.parser.get_http_version(), self.headers):
            self._parsed = True
            self._refuse(fault)
            return
        if self.parser.should_upgrade():
            return
        self._parsed = True
        self._body_bytes = self._framing_bytes = self._silent_bytes = self._drained_bytes = 0
        self._left = None if is_chunked(self.headers) else body_length(self.headers)
        self._enter(State.BODY)
        if (refusal := self._at_door()) is not None:
            self._reply_at_door(refusal)
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._state is State.BODY:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._state is State.BODY:
            self._enter(State.ANSWERING)
            super().on_message_complete()
        elif self._state is State.DRAINING:
            self._rest()

    def _rest(self) -> None:
        self._within_s = self.timeout_keep_alive
        self._enter(State.IDLE)

    # ---- The reply

    def _at_door(self) -> Refusal | None:
        """Judge a request before anything is begun for it."""
        if self.early_refusal is None or not self.parser.should_keep_alive():
            return None
        met = self.early_refusal.meet(self.parser.get_method(), self.url, self.headers)
        if isinstance(met, Arrival):
            self._arrival = met
            keep_arrival(self.scope, met)  # type: ignore[arg-type]
            return None
        return met

    def _reply_at_door(self, refusal: Refusal) -> None:
        usual = b"".join(b"%b: %b\r\n" % line for line in self.server_state.default_headers)
        self._socket.write(b"%b%b\r\n%b" % (refusal.head, usual, refusal.body))
        self.cycle = Refused()  # type: ignore[assignment]
        self.on_response_complete()

    def _end_arrival(self) -> None:
        if self._arrival is not None:
            self._arrival.close()
            self._arrival = None

    def on_response_complete(self) -> None:
        """The reply is written: on to the next request, as soon as this one has come to its end."""
        self.server_state.total_requests += 1
        self._end_arrival()
        if self._socket.is_closing():  # with what is buffered still to be read
            self._begin_stall()
        elif self._state is State.BODY:
            self.flow.resume_reading()
            self._enter(State.DRAINING)
        elif self._state is State.ANSWERING:
            self.flow.resume_reading()
            self._rest()
            if self._unread:
                self.loop.call_soon(self._read_on)
        self._set_timer()

    def _read_on(self) -> None:
        if not self._socket.is_closing():
            self._socket.resume_reading()
            self._read(self._unread)
            self._set_timer()

    def _refuse_nonsense(self) -> None:
        self._refuse(BadRequest(NO_HTTP, code="invalid_http"))

    def _refuse(self, error: ApiError) -> None:
        """Answer without the app, and close: nothing that still comes can be understood."""
        if self._state is State.CLOSING or self._socket.is_closing():
            return
        if self._state is State.DRAINING:  # it has its reply
            self._linger()
            return
        if self._state is State.BODY:
            self._abandon()
            if self.cycle.response_started:
                self._socket.abort()
                return
        body = orjson.dumps(error.body())
        lines = "".join(f"{name}: {value}\r\n" for name, value in {**error.headers(), "connection": "close"}.items())
        head = (
            f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n{lines}\r\n"
        )
        self._socket.write(head.encode() + body)
        self._linger()

    def _abandon(self) -> None:
        """Tell the route that reads a body that no more of it will come, and that nobody hears it."""
        self.cycle.disconnected = True
        self.cycle.message_event.set()

    # ---- Replies that are not read

    def pause_writing(self) -> None:
        super().pause_writing()
        self._begin_stall()

    def resume_writing(self) -> None:
        self._end_stall()
        super().resume_writing()

    def _begin_stall(self) -> None:
        self._end_stall()
        self._stall_timer = self.loop.call_later(self.bounds.stalled_s, self._cut_if_stalled, self._buffered())

    def _cut_if_stalled(self, buffered: int) -> None:
        """Cut, unless the client has read some, if only of the megabytes that the kernel keeps for it."""
        if self._buffered() < buffered:
            self._begin_stall()
        else:
            self._cut()

    def _buffered(self) -> int:
        """Bytes on their way to the client."""
        buffered = self._socket.get_write_buffer_size()
        with contextlib.suppress(OSError, ValueError):
            there = self._socket.get_extra_info("socket").fileno()
            buffered += int.from_bytes(fcntl.ioctl(there, termios.TIOCOUTQ, bytes(4)), sys.byteorder)  # SIOCOUTQ
        return buffered

    def _end_stall(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _cut(self) -> None:
        metrics.STALLED.inc()
        self._socket.abort()


def _tcp_state(transport: asyncio.Transport) -> int:
    """The state of a connection as the kernel sees it (tcp(7), TCP_INFO); TCP_CLOSE where there is none."""
    with contextlib.suppress(OSError, ValueError):
        there: Any = transport.get_extra_info("socket")
        return int(there.getsockopt(IPPROTO_TCP, TCP_INFO, 1)[0])
    return TCP_CLOSE
