"""A client that can offer many times what a server takes, on the same two cores.

Requests go out when they are due, whatever became of those before: on a connection that is idle, or else on a new one.
A reply is looked at no more than it takes to see where it ends, what its status is, and whether it is whole.
"""

from __future__ import annotations

import asyncio
import gc
import re
import resource
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, cast
from urllib.parse import urlsplit

import uvloop

from clients.bench.load import FIRST_TEXT
from tests.drills.load_bodies import Template

Result = TypeVar("Result")

TICK_S: Final = 0.002
"""Requests are sent in bunches of those that are due."""
PROBE_S: Final = 0.2
MOST_CONNECTIONS: Final = 4000
DESCRIPTORS: Final = 16_384
OPENING: Final = 16
"""Connections that are opened at the same time when all are wanted at once."""

LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)
CLOSES = re.compile(rb"\r\nconnection: close", re.IGNORECASE)
RETRY_AFTER = re.compile(rb"\r\nretry-after: [1-9]\d*\r", re.IGNORECASE)
SHOULD_RETRY = re.compile(rb"\r\nx-should-retry: true\r", re.IGNORECASE)
LAST_CHUNK = b"\r\n0\r\n\r\n"


@dataclass(slots=True)
class Asked:
    """One request and what came of it. Moments are those of `time.perf_counter`; 0 is never."""

    kind: str
    streams: bool
    due: float
    sent: float = 0.0
    """The kernel had its last byte."""
    answered: float = 0.0
    """The status line was there."""
    first: float = 0.0
    """The first text of a stream was there."""
    done: float = 0.0
    status: int = 0
    """0 where the connection ended before there was one."""
    whole: bool = False
    """Whether it is an answer with status 200 from its beginning to its end."""
    advised: bool = False
    """Whether a refusal says when and that one may try again."""
    body: bytes = b""
    """Of what is neither an answer nor a 503, for people."""

    @property
    def refused_s(self) -> float:
        """From the last byte sent to the status line; 0 where that came before."""
        return max(0.0, self.answered - self.sent) if self.sent else 0.0

    @property
    def first_s(self) -> float:
        """From when it was due to its first text."""
        return self.first - self.due


class Connection(asyncio.Protocol):
    """A connection that is kept alive, with one request at a time; tells its crowd when the reply has ended."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._transport: asyncio.Transport | None = None
        self._asked: Asked | None = None
        self._got = bytearray()
        self._end = 0
        """Bytes of the whole reply; 0 as long as that is not known, -1 where the last chunk tells."""

    def send(self, pieces: Sequence[bytes], asked: Asked) -> None:
        """Send a request. What cannot be sent at once goes when the server reads on."""
        assert self._transport is not None
        self._asked, self._end = asked, 0
        self._got.clear()
        self._transport.writelines(pieces)
        if not self._transport.get_write_buffer_size():
            asked.sent = time.perf_counter()

    def abort(self) -> None:
        """Go away, in the middle of a reply too."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its base class
        self._transport.set_write_buffer_limits(0)  # then an empty buffer is told of

    def resume_writing(self) -> None:
        if self._asked is not None and not self._asked.sent:
            self._asked.sent = time.perf_counter()

    def data_received(self, data: bytes) -> None:
        asked, got = self._asked, self._got
        if asked is None:
            self.abort()
            return
        got += data
        if not asked.answered:
            asked.answered = time.perf_counter()
        if asked.streams and not asked.first and FIRST_TEXT.search(data):
            asked.first = time.perf_counter()
        if not self._end:
            self._read_head()
        if (self._end > 0 and len(got) >= self._end) or (self._end < 0 and got.endswith(LAST_CHUNK)):
            self._finish(asked)

    def connection_lost(self, exc: Exception | None) -> None:
        asked, self._asked = self._asked, None
        if asked is not None:
            asked.done = time.perf_counter()
            asked.status, asked.whole = 0, False
        self._crowd.lost(self, asked)

    def _read_head(self) -> None:
        end = self._got.find(b"\r\n\r\n")
        if end >= 0:
            length = LENGTH.search(self._got, 0, end + 2)
            self._end = end + 4 + int(length[1]) if length else -1

    def _finish(self, asked: Asked) -> None:
        got, self._asked = self._got, None
        asked.done = time.perf_counter()
        asked.status = int(got[9:12])
        if asked.status == 200:
            asked.whole = b'"finish_reason":"length"' in got and (not asked.streams or b"data: [DONE]" in got[-40:])
        else:
            asked.advised = bool(RETRY_AFTER.search(got) and SHOULD_RETRY.search(got))
            asked.body = b"" if asked.status == 503 else bytes(got)
        if CLOSES.search(got, 0, got.find(b"\r\n\r\n")):
            self.abort()
        else:
            self._crowd.free(self)
        self._crowd.finished(asked)


def _nothing(asked: Asked) -> None:
    return None


@dataclass
class Crowd:
    """Connections to one server, as many as are wanted at once."""

    address: str
    finished: Callable[[Asked], None] = _nothing
    """Told of each reply that has ended, however it did."""
    opened: int = 0
    too_many: int = 0
    """Requests that were not sent since there were too many connections."""
    _idle: list[Connection] = field(default_factory=list)
    _all: set[Connection] = field(default_factory=set)
    _opening: set[asyncio.Task[None]] = field(default_factory=set)

    async def open(self, count: int) -> None:
        """Have so many connections idle."""
        gate = asyncio.Semaphore(OPENING)

        async def one() -> None:
            async with gate:
                self._idle.append(await self._connect())

        await asyncio.gather(*(one() for _ in range(count)))

    def ask(self, template: Template, number: int, due: float) -> Asked:
        """Send a request now; what comes of it is filled in."""
        asked = Asked(template.kind, template.streams, due)
        if self._idle:
            self._idle.pop().send(template.numbered(number), asked)
        elif len(self._all) + len(self._opening) < MOST_CONNECTIONS:
            task = asyncio.ensure_future(self._ask_anew(template.numbered(number), asked))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)
        else:
            self.too_many += 1
        return asked

    def free(self, connection: Connection) -> None:
        """A connection's reply has ended."""
        self._idle.append(connection)

    def lost(self, connection: Connection, asked: Asked | None) -> None:
        """A connection has ended, perhaps in the middle of a reply."""
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if asked is not None:
            self.finished(asked)

    def close(self) -> None:
        """End all connections, in the middle of replies too."""
        self.finished = _nothing
        for task in self._opening:
            task.cancel()
        for connection in list(self._all):
            connection.abort()

    async def _ask_anew(self, pieces: Sequence[bytes], asked: Asked) -> None:
        try:
            connection = await self._connect()
        except OSError:
            asked.done = time.perf_counter()
            self.finished(asked)
            return
        connection.send(pieces, asked)

    async def _connect(self) -> Connection:
        where = urlsplit(self.address)
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: Connection(self), str(where.hostname), int(where.port or 80)
        )
        self._all.add(connection)
        self.opened += 1
        return connection


@dataclass(frozen=True, slots=True)
class Load:
    """What was asked between `began` and `ended`, and what was heard meanwhile."""

    asked: tuple[Asked, ...]
    began: float
    ended: float
    client_cpu_s: float

    def within(self, settle_s: float) -> Load:
        """The same without the first seconds; replies belong to the time in which they ended."""
        start = self.began + settle_s
        return Load(
            tuple(one for one in self.asked if start <= one.done < self.ended), start, self.ended, self.client_cpu_s
        )

    @property
    def seconds(self) -> float:
        """How long it was."""
        return self.ended - self.began

    @property
    def goodput(self) -> float:
        """Whole answers a second."""
        return sum(one.whole for one in self.asked) / self.seconds

    def with_status(self, *statuses: int) -> list[Asked]:
        """Those that ended with one of these."""
        return [one for one in self.asked if one.done and one.status in statuses]


async def keep_asking(
    address: str, templates: Sequence[Template], concurrency: int, seconds: float, numbers: Iterator[int]
) -> Load:
    """Closed loop: so many requests are under way at any time; each one that ends is followed by the next."""
    asked: list[Asked] = []
    crowd = Crowd(address)
    await crowd.open(concurrency)
    began, cpu = time.perf_counter(), time.process_time()

    def next_one(_: Asked | None = None) -> None:
        number = next(numbers)
        asked.append(crowd.ask(templates[number % len(templates)], number, time.perf_counter()))

    crowd.finished = next_one
    for _ in range(concurrency):
        next_one()
    await asyncio.sleep(seconds)
    crowd.close()
    ended = time.perf_counter()
    await asyncio.sleep(0)
    return Load(tuple(asked), began, ended, time.process_time() - cpu)


async def offer(
    address: str, templates: Sequence[Template], per_second: float, seconds: float, numbers: Iterator[int]
) -> Load:
    """Open loop: so many requests a second, whatever becomes of them."""
    asked: list[Asked] = []
    crowd = Crowd(address)
    began, cpu = time.perf_counter(), time.process_time()
    while (spent := time.perf_counter() - began) < seconds:
        while len(asked) < spent * per_second:
            number, due = next(numbers), began + len(asked) / per_second
            asked.append(crowd.ask(templates[number % len(templates)], number, due))
        await asyncio.sleep(TICK_S)
    crowd.close()
    ended = time.perf_counter()
    await asyncio.sleep(0)
    return Load(tuple(asked), began, ended, time.process_time() - cpu)


@dataclass(slots=True)
class Probes:
    """What somebody who looks at the server every now and then has seen at one path."""

    path: str
    seconds: list[float] = field(default_factory=list)
    wrong: int = 0
    """Replies that were not 200, or did not come."""


async def probe(address: str, path: str, seconds: float) -> Probes:
    """Look all the time, with a pause after each reply."""
    seen, end = Probes(path), time.perf_counter() + seconds
    where = urlsplit(address)
    question = f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode()
    reader, writer = await asyncio.open_connection(where.hostname, where.port, limit=1 << 24)
    while time.perf_counter() < end:
        began = time.perf_counter()
        writer.write(question)
        head = await reader.readuntil(b"\r\n\r\n")
        length = LENGTH.search(head)
        await (reader.readexactly(int(length[1])) if length else reader.readuntil(LAST_CHUNK))
        seen.seconds.append(time.perf_counter() - began)
        seen.wrong += not head.startswith(b"HTTP/1.1 200")
        await asyncio.sleep(PROBE_S)
    writer.close()
    return seen


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a client to its end, without pauses for memory that nobody needs any more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, DESCRIPTORS)), hard))
    gc.collect()
    gc.disable()
    try:
        return uvloop.run(work)
    finally:
        gc.enable()
