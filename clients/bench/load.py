"""A client that costs almost nothing: whole requests are written to sockets, and replies are kept unread till later.

On a machine of two cores the client, the server's front end and the engine share them. What the client uses is measured
(`client_cpu_s`), and is a small part of a core: each reply is parsed by httptools, in C, and its JSON is looked at only
when the clock has stopped.
"""

from __future__ import annotations

import asyncio
import gc
import json
import re
import time
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

import httptools
import uvloop

FIRST_TEXT = re.compile(rb'"content": ?"[^"]')
"""The first chunk of a stream with anything in it; both servers send one with an empty text first."""
WITHIN_S = 300.0
"""One reply may take so long."""


@dataclass(slots=True)
class Reply:
    """What came back for one request; times in seconds since it was due."""

    status: int = 0
    body: bytearray = field(default_factory=bytearray)
    first: float = 0.0
    """To the first text of a stream."""
    complete: float = 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a reply says. Equal answers to equal requests: the servers did the same work."""

    status: int
    prompt_tokens: int
    completion_tokens: int
    text: str


@dataclass(frozen=True, slots=True)
class Load:
    """How a list of requests went."""

    replies: tuple[Reply, ...]
    seconds: float
    client_cpu_s: float

    @property
    def answers(self) -> tuple[Answer, ...]:
        """What each reply says, in the order of the requests."""
        return tuple(read(reply) for reply in self.replies)


def at_once(address: str, requests: Sequence[bytes], concurrency: int) -> Load:
    """Keep `concurrency` requests under way until all are answered.

    Raises:
        ConnectionError, TimeoutError: the server closed a connection or took too long.
    """
    return _timed(_at_once(address, requests, concurrency))


def paced(address: str, requests: Sequence[bytes], per_second: float) -> Load:
    """Send a request every so often, whether or not those before are answered; times count from when it was due.

    Raises:
        ConnectionError, TimeoutError: as `at_once`.
    """
    return _timed(_paced(address, requests, per_second))


def _timed(work: Coroutine[Any, Any, list[Reply]]) -> Load:
    gc.collect()
    gc.disable()  # hundreds of megabytes of requests are not to be looked through meanwhile
    try:
        began, cpu = time.perf_counter(), time.process_time()
        replies = uvloop.run(work)
        return Load(tuple(replies), time.perf_counter() - began, time.process_time() - cpu)
    finally:
        gc.enable()


async def _at_once(address: str, requests: Sequence[bytes], concurrency: int) -> list[Reply]:
    replies: list[Reply] = [Reply() for _ in requests]
    left = iter(zip(requests, replies, strict=True))

    async def ask_on(connection: Connection) -> None:
        for request, reply in left:
            await connection.ask(request, reply, time.perf_counter())

    connections = [await connect(address) for _ in range(min(concurrency, len(requests)))]
    await asyncio.gather(*(ask_on(connection) for connection in connections))
    for connection in connections:
        connection.close()
    return replies


async def _paced(address: str, requests: Sequence[bytes], per_second: float) -> list[Reply]:
    idle: list[Connection] = []
    start = time.perf_counter()

    async def ask(request: bytes, reply: Reply, due: float) -> None:
        connection = idle.pop() if idle else await connect(address)
        await connection.ask(request, reply, due)
        idle.append(connection)

    replies: list[Reply] = [Reply() for _ in requests]
    tasks: list[asyncio.Task[None]] = []
    for number, (request, reply) in enumerate(zip(requests, replies, strict=True)):
        due = start + number / per_second
        await asyncio.sleep(due - time.perf_counter())
        tasks.append(asyncio.create_task(ask(request, reply, due)))
    await asyncio.gather(*tasks)
    for connection in idle:
        connection.close()
    return replies


async def connect(address: str) -> Connection:
    """A new connection to `http://HOST:PORT`."""
    where = urlsplit(address)
    _, connection = await asyncio.get_running_loop().create_connection(
        Connection, str(where.hostname), int(where.port or 80)
    )
    return connection


class Connection(asyncio.Protocol):
    """One connection that is kept alive, with one request at a time."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._reply = Reply()
        self._due = 0.0
        self._done: asyncio.Future[None] | None = None

    async def ask(self, request: bytes, reply: Reply, due: float) -> None:
        """Send a whole request and fill in its reply.

        Raises:
            ConnectionError: the server closed the connection.
            TimeoutError: there was no whole reply in time.
        """
        if self._transport is None or self._transport.is_closing():
            raise ConnectionError("the server closed a connection that it should have kept alive")
        self._reply, self._due = reply, due
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        async with asyncio.timeout(WITHIN_S):
            await self._done

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its base class

    def data_received(self, data: bytes) -> None:
        if not self._reply.first and FIRST_TEXT.search(data):
            self._reply.first = time.perf_counter() - self._due
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(ConnectionError(f"the server closed a connection in the middle of a reply: {exc}"))

    # ---- httptools calls these

    def on_body(self, data: bytes) -> None:
        """A piece of the body has come."""
        self._reply.body += data

    def on_message_complete(self) -> None:
        """The whole reply has come."""
        self._reply.status = self._parser.get_status_code()
        self._reply.complete = time.perf_counter() - self._due
        if self._done is not None and not self._done.done():
            self._done.set_result(None)


# ---- Reading what came


def read(reply: Reply) -> Answer:
    """What a reply says, whole or streamed; an error's text is its body."""
    body = bytes(reply.body)
    if reply.status != 200:
        return Answer(reply.status, 0, 0, body.decode(errors="replace")[:300])
    documents = list(_events(body)) if body.startswith(b"data:") else [json.loads(body)]
    usage: dict[str, int] = {}
    text = ""
    for document in documents:
        usage = document.get("usage") or usage
        for choice in document.get("choices", ()):
            text += (choice.get("message") or choice.get("delta") or {}).get("content") or ""
    return Answer(reply.status, usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0), text)


def _events(body: bytes) -> Iterator[dict[str, Any]]:
    for line in body.splitlines():
        if line.startswith(b"data: {"):
            yield json.loads(line[len(b"data: ") :])


def differing(ours: Iterable[Answer], theirs: Iterable[Answer]) -> int:
    """How many answers to the same requests were not the same."""
    return sum(one != other for one, other in zip(ours, theirs, strict=True))
