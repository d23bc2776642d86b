"""Clients for drills: many at once in a thread of their own, each on its own connection, told apart by how they ended.

with Crowd(server) as crowd:
    exchanges = crowd.ask_all([words(number, stream=True) for number in range(32)])
    ...                                                             # something happens to the server
    crowd.wait(exchanges, 60)
    assert all(exchange.outcome == WHOLE for exchange in exchanges)
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, cast
from urllib.parse import urlsplit

import httptools
import httpx
from PIL import Image

from tests.drills.drill import Figure, exactly
from tests.e2e.asking import ENDLESS, PATH, Content, image, text
from tests.serving import Server

WHOLE: Final = "whole"
"""Status 200, and an answer to its end."""
CUT: Final = "cut"
"""A stream that ended with an error frame and [DONE]."""
REFUSED: Final = "503"
"""With Retry-After."""
BROKEN: Final = "broken"
"""The connection ended before the reply did, or the reply is none."""
HANGS: Final = "hangs"
"""Nothing has ended it yet."""

RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER with which a close becomes a reset."""
LOOK_EVERY_S: Final = 0.02
SHOWN: Final = 5
"""So many replies are shown of those that are not as they should be."""


# ---- What is asked

_numbers = itertools.count(1)


def new_numbers(count: int) -> list[int]:
    """Numbers that no other request has, so that the engine has nothing of its prompt from before."""
    return list(itertools.islice(_numbers, count))


def request(content: Content, *, stream: bool, max_tokens: int, **more: Any) -> dict[str, Any]:
    """A request with one user message."""
    messages = [{"role": "user", "content": content}]
    return {"messages": messages, "stream": stream, "max_tokens": max_tokens, "temperature": 0, **more}


def words(number: int, *, stream: bool, max_tokens: int = 400) -> dict[str, Any]:
    """A request of a few words, answered without an end before `max_tokens`; no two numbers have the same prompt."""
    return request(f"{number}. Count to twenty.", stream=stream, max_tokens=max_tokens, **ENDLESS)


def about_picture(number: int, *, stream: bool, max_tokens: int = 400) -> dict[str, Any]:
    """The same with a small picture; no two numbers have the same."""
    picture = Image.new("RGB", (112, 112), (number % 256, number // 256 % 256, 99))
    content = [image(picture), text("Describe this image.")]
    return request(content, stream=stream, max_tokens=max_tokens, **ENDLESS)


def long_prompt(number: int, *, stream: bool, max_tokens: int = 40) -> dict[str, Any]:
    """The same with a prompt of some 3,000 tokens, of which no other number's has the beginning."""
    return request(f"{number}. " + "Count to twenty. " * 240, stream=stream, max_tokens=max_tokens, **ENDLESS)


def raw_request(server: Server, body: Mapping[str, Any]) -> bytes:
    """The bytes of a request, head and body."""
    content = json.dumps({"model": server.model, **body}).encode()
    head = f"POST {PATH} HTTP/1.1\r\nhost: {urlsplit(server.address).netloc}\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(content)}\r\n\r\n".encode() + content


# ---- What comes back


class Exchange(asyncio.Protocol):
    """One request on a connection of its own, and all that came back for it. Times are those of time.monotonic."""

    def __init__(self, server: Server, body: Mapping[str, Any]) -> None:
        self.streamed = bool(body["stream"])
        self.asked = time.monotonic()
        self.begun = math.inf
        """When the first byte of the reply's body came."""
        self.ended = math.inf
        """When the reply was complete, or the connection was lost."""
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.failure = ""
        """Why there is no whole reply."""
        self.over = threading.Event()
        self._request = raw_request(server, body)
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None

    @property
    def outcome(self) -> str:
        """How it ended: one of the constants above, or another status."""
        if not self.over.is_set():
            return HANGS
        if self.failure:
            return BROKEN
        if self.status == 503 and "retry-after" in self.headers:
            return REFUSED
        if self.status != 200:
            return str(self.status)
        return self._outcome_of_stream() if self.streamed else self._outcome_of_answer()

    @property
    def has_text(self) -> bool:
        """Whether words of an answer have come."""
        return b'"content":"' in self.body.replace(b'"content":""', b"")

    @property
    def error_code(self) -> str:
        """That of a reply that is an error."""
        return str(json.loads(self.body)["error"]["code"])

    def vanish(self, *, reset: bool) -> None:
        """Go away at once, with a farewell or with none. In the thread of the connection only."""
        if self._transport is not None:
            if reset:
                self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self._transport.abort()

    def give_up(self, failure: str) -> None:
        """Nothing more comes."""
        self.failure = failure
        self._end()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.over.is_set():
            self.give_up(f"the connection was lost: {exc}")

    # ---- httptools calls these

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header has come."""
        self.headers[name.decode().lower()] = value.decode()

    def on_body(self, data: bytes) -> None:
        """A piece of the body has come."""
        self.begun = min(self.begun, time.monotonic())
        self.body += data

    def on_message_complete(self) -> None:
        """The whole reply has come."""
        self.status = self._parser.get_status_code()
        self._end()
        if self._transport is not None:
            self._transport.close()

    def _end(self) -> None:
        self.ended = time.monotonic()
        self.over.set()

    def _outcome_of_answer(self) -> str:
        reason = json.loads(self.body)["choices"][0]["finish_reason"]
        return WHOLE if reason in ("stop", "length") else BROKEN

    def _outcome_of_stream(self) -> str:
        frames = [line.removeprefix(b"data: ") for line in self.body.split(b"\n\n") if line.startswith(b"data: ")]
        if len(frames) < 2 or frames[-1] != b"[DONE]":
            return BROKEN
        last = json.loads(frames[-2])
        if "error" in last:
            return CUT
        return WHOLE if last["choices"][0]["finish_reason"] else BROKEN


class Crowd:
    """Any number of clients, in a thread of their own, so that a drill goes on meanwhile."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="crowd", daemon=True)

    def __enter__(self) -> Crowd:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def ask(self, body: Mapping[str, Any]) -> Exchange:
        """Send a request; returns at once."""
        exchange = Exchange(self._server, body)
        asyncio.run_coroutine_threadsafe(self._open(exchange), self._loop)
        return exchange

    def ask_all(self, bodies: Iterable[Mapping[str, Any]]) -> list[Exchange]:
        """Send requests; returns at once."""
        return [self.ask(body) for body in bodies]

    def answer(self, body: Mapping[str, Any], within_s: float = 60.0) -> Exchange:
        """Send a request, and wait for its end."""
        exchange = self.ask(body)
        exchange.over.wait(within_s)
        return exchange

    def vanish(self, exchanges: Sequence[Exchange]) -> None:
        """Have these clients go away in the same moment, every second one with a reset; returns once they are gone."""

        async def go() -> None:
            for number, exchange in enumerate(exchanges):
                exchange.vanish(reset=number % 2 == 1)

        asyncio.run_coroutine_threadsafe(go(), self._loop).result()

    async def _open(self, exchange: Exchange) -> None:
        try:
            await self._loop.create_connection(lambda: exchange, *address_of(self._server))
        except OSError as error:
            exchange.give_up(f"no connection: {error}")


def address_of(server: Server) -> tuple[str, int]:
    """Host and port."""
    where = urlsplit(server.address)
    return str(where.hostname), int(where.port or 0)


def wait(exchanges: Sequence[Exchange], within_s: float) -> None:
    """Return once all have ended; those that have not by then are told apart as HANGS."""
    end = time.monotonic() + within_s
    for exchange in exchanges:
        exchange.over.wait(max(0.0, end - time.monotonic()))


def await_begun(exchanges: Sequence[Exchange], within_s: float = 60.0) -> None:
    """Return once the answer of each has begun.

    Raises:
        AssertionError: that takes too long.
    """
    if math.isinf(seconds_until(lambda: all(exchange.has_text for exchange in exchanges), within_s)):
        raise AssertionError(f"not all streams have begun within {within_s:g} s: {outcomes(exchanges)}")


def outcomes(exchanges: Iterable[Exchange]) -> dict[str, int]:
    """How often each outcome is there."""
    return dict(Counter(exchange.outcome for exchange in exchanges))


def none_but(name: str, exchanges: Iterable[Exchange], *allowed: str) -> Figure:
    """How many of them had another outcome than these: 0 is the mark. Shows some of those."""
    others = [exchange for exchange in exchanges if exchange.outcome not in allowed]
    for one in others[:SHOWN]:
        times = f"begun after {one.begun - one.asked:.2f} s, ended after {one.ended - one.asked:.2f} s"
        print(f"{name}: {one.outcome}, {times}; {one.failure or bytes(one.body[-300:])!r}", file=sys.stderr)
    return exactly(name, len(others), 0)


# ---- What the server says of itself


class Probe:
    """Looks at a server often, on one connection."""

    def __init__(self, server: Server) -> None:
        self._http = httpx.Client(base_url=server.address, timeout=30, trust_env=False)

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def is_ready(self) -> bool:
        """Whether /health/ready says so; False also where nothing answers."""
        try:
            return self._http.get("/health/ready").status_code == 200
        except httpx.TransportError:
            return False

    def metrics(self) -> dict[str, float]:
        """Every metric by its name, summed over its labels."""
        found: Counter[str] = Counter()
        for line in self._http.get("/metrics").text.splitlines():
            if not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                found[name.partition("{")[0]] += float(value)  # type: ignore[assignment]  # any number will do
        return dict(found)

    def await_idle(self, within_s: float = 60.0) -> None:
        """Return once nothing is under way.

        Raises:
            AssertionError: that takes too long.
        """
        if math.isinf(seconds_until(self._is_idle, within_s)):
            raise AssertionError(f"the server was not idle within {within_s:g} s: {self.metrics()}")

    def _is_idle(self) -> bool:
        now = self.metrics()
        return not any(now.get(name, 0) for name in ("ain_requests_inside", "vllm:num_requests_running"))


def seconds_until(holds: Callable[[], bool], within_s: float) -> float:
    """How long it takes until `holds`; infinite where it does not within that time."""
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > within_s:
            return math.inf
        time.sleep(LOOK_EVERY_S)
    return time.monotonic() - began
