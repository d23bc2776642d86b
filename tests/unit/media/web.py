"""A small web on loopback for tests of what fetches from it: servers, and a resolver that says what each test wants."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from server.media.fetching.fetch import Fetcher, FetchLimits

BODY = bytes(range(256)) * 40
CERTIFICATES = ssl.create_default_context()  # reading them takes longer than most of these tests
Respond = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


class Site:
    """A server on loopback that records the heads of the requests it gets."""

    def __init__(self, respond: Respond) -> None:
        self.respond = respond
        self.requests: list[bytes] = []
        self.port = 0
        self._visits: set[asyncio.Task[None]] = set()

    def welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visit = asyncio.ensure_future(self._handle(reader, writer))
        self._visits.add(visit)
        visit.add_done_callback(self._visits.discard)

    async def aclose(self) -> None:
        """Leave nobody waiting."""
        for visit in self._visits:
            visit.cancel()
        await asyncio.gather(*self._visits, return_exceptions=True)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.requests.append(head)
            await self.respond(head, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    @property
    def url(self) -> str:
        return f"http://site.test:{self.port}"


@asynccontextmanager
async def serving(respond: Respond, tls: ssl.SSLContext | None = None) -> AsyncIterator[Site]:
    site = Site(respond)
    server = await asyncio.start_server(site.welcome, "127.0.0.1", 0, ssl=tls)
    site.port = server.sockets[0].getsockname()[1]
    try:
        yield site
    finally:
        server.close()
        await site.aclose()


@asynccontextmanager
async def proxying(to: Site, *, refusing: bool = False) -> AsyncIterator[Site]:
    """A proxy that knows every name, and dials `to` whatever it is asked for; its requests are those of clients."""

    async def welcome(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        site.requests.append(head)
        if refusing:
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", to.port)
        if head.startswith(b"CONNECT "):
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            far_writer.write(head)
        try:
            await asyncio.gather(_pass_on(reader, far_writer), _pass_on(far_reader, writer))
        finally:
            far_writer.close()
            writer.close()

    site = Site(answer())
    visits: set[asyncio.Task[None]] = set()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visit = asyncio.ensure_future(welcome(reader, writer))
        visits.add(visit)

    server = await asyncio.start_server(begin, "127.0.0.1", 0)
    site.port = server.sockets[0].getsockname()[1]
    try:
        yield site
    finally:
        server.close()
        for visit in visits:
            visit.cancel()
        await asyncio.gather(*visits, return_exceptions=True)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(1 << 16):
        writer.write(piece)
        await writer.drain()
    writer.close()


def answer(body: bytes = BODY, *headers: str, status: str = "200 OK") -> Respond:
    async def respond(head: bytes, writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
        writer.write("\r\n".join(lines).encode() + body)
        await writer.drain()

    return respond


def redirect(location: str, status: str = "302 Found", *headers: str) -> Respond:
    return answer(b"", f"Location: {location}", *headers, status=status)


def paths(**responds: Respond) -> Respond:
    """Another answer for each path of one segment; the first where there is no other."""

    async def respond(head: bytes, writer: asyncio.StreamWriter) -> None:
        path = head.split(b" ")[1].decode().strip("/")
        await responds.get(path, next(iter(responds.values())))(head, writer)

    return respond


class Names:
    """A resolver made of a table; a name may answer differently each time it is asked."""

    def __init__(self, **answers: Sequence[Sequence[str]]) -> None:
        self.answers = {name.replace("_", "."): list(rounds) for name, rounds in answers.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        if host not in self.answers:
            raise OSError("no such name")
        rounds = self.answers[host]
        return rounds.pop(0) if len(rounds) > 1 else rounds[0]


@asynccontextmanager
async def fetching(
    site: Site | None = None, names: Names | None = None, context: ssl.SSLContext | None = CERTIFICATES, **limits: Any
) -> AsyncIterator[Fetcher]:
    """A fetcher for which loopback is an allowed network, unless `limits` says otherwise."""
    settings: dict[str, Any] = {"allowed_networks": ("127.0.0.1",), "timeout_s": 60.0}
    if site is not None:
        settings["ports"] = (site.port,)
    fetcher = Fetcher(
        FetchLimits(**(settings | limits)),
        resolver=names or Names(site_test=[["127.0.0.1"]]),
        ssl_context=context,
    )
    try:
        yield fetcher
    finally:
        await fetcher.aclose()
