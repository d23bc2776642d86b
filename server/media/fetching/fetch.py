"""Fetch what strangers name by URL: pictures, clips, documents. The only file of this room that opens sockets.

The rules, each of which some server in this field has missed:

- A URL is parsed once. The same parsed URL is checked, dialled, and named in Host and TLS: no second parser can read
  another host into it.
- A name is resolved once for each connection, every answer must be allowed, and exactly a checked address is dialled:
  a name that answers differently the next time gains nothing.
- Redirects are followed by hand, each through the same checks, never from https to http.
- One deadline covers everything from resolving to the last byte, and bytes are counted as they come, not as the server
  announces them. Compressed bodies are refused, so the bytes that count are the bytes that are kept.
- No proxy, cookie, credential or netrc from the environment; no connection is kept for another request.
- Behind a proxy of the operator's it is the proxy that resolves and dials. A name is resolved here all the same, where
  it can be, and refused by its addresses; what the proxy then dials is for the proxy to judge.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import anyio
import anyio.to_thread
import httpcore
import httpx

from server.errors import BadRequest, ImageCode, MediaKind, invalid_media
from server.media.fetching.addresses import AllowList, RefusedAddressError, check_address
from server.media.fetching.freshness import NOTHING, Freshness, read_freshness
from server.media.sources import MAX_URL_LENGTH, NOUNS, Remote, too_large

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host and port -> the addresses it has, best first. Raises OSError where it has none."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_DIALS = 4  # addresses of one host tried in turn
_LOOKUPS = 4  # threads for each fetch: a name server's silence outlives the fetch that asked it
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f\\]")
_LABEL = r"(?!-)[a-z0-9_-]{1,63}(?<!-)"
_HOST_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PLAIN_ENCODINGS = frozenset({"", "identity", "aws-chunked", "binary", "none", "utf-8"})
"""Values of Content-Encoding under which bodies come as they are: what stores keep of how a file was once uploaded."""
_LOOKUP_BEFORE_PROXY_S = 2.0
"""For a name that perhaps only the proxy knows."""
_ACCEPT: dict[MediaKind, bytes] = {
    "image": b"image/jpeg, image/png, image/webp, image/gif, */*;q=0.5",
    "video": b"video/mp4, video/webm, video/*;q=0.9, image/gif, */*;q=0.5",
    "file": b"application/pdf, */*;q=0.5",
}


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """How much, how long and from where pictures are fetched."""

    timeout_s: float = 10.0
    """Seconds for one fetch, from resolving its host to its last byte, redirects included."""
    max_redirects: int = 3
    """Redirects followed for one fetch."""
    allowed_hosts: tuple[str, ...] = ()
    """Hosts, or host:port, that may be fetched from wherever they lead and on any port (or the one named)."""
    allowed_networks: tuple[str, ...] = ()
    """Networks whose addresses may be fetched from although they are not public, such as 10.1.0.0/16."""
    ports: tuple[int, ...] = (80, 443)
    """Ports that may be dialled at hosts the operator did not name."""
    concurrency: int = 32
    """Fetches at once, over all requests; more wait their turn, and their time counts from then."""
    user_agent: str = "ain-server"
    """What is said of who fetches."""
    ca_file: str | None = None
    """Certificates, in PEM, of authorities that are trusted beside the public ones."""
    proxy: str | None = field(default=None, repr=False)
    """An http(s) URL, perhaps with a name and password, of a proxy through which everything is fetched."""

    def __post_init__(self) -> None:
        """Raises ValueError for a limit that would let nothing through."""
        if self.timeout_s <= 0 or self.max_redirects < 0 or self.concurrency < 1:
            raise ValueError("fetch limits must be positive")


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server answered. `body` is None where it says that the bytes asked about still hold (304)."""

    body: bytes | None
    freshness: Freshness


@dataclass(frozen=True, slots=True)
class Order:
    """What to fetch, and within what. `spend` is told the length of each piece as it arrives, and may raise to stop."""

    remote: Remote
    max_bytes: int
    spend: Callable[[int], None]
    validators: Sequence[tuple[bytes, bytes]] = ()
    """Headers that ask for the bytes only if they have changed."""


class Fetcher:
    """Fetches under `limits`. Belongs to one event loop; close it with `aclose`.

    `resolver` and `ssl_context` replace the system's resolver and the bundled certificates, for tests and for operators
    with their own certificate authority. Raises ValueError for an allowed host or network, or certificates, that cannot
    be read.
    """

    def __init__(
        self,
        limits: FetchLimits | None = None,
        *,
        resolver: Resolver | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._limits = limits or FetchLimits()
        self._allowed = AllowList.parse(self._limits.allowed_hosts, self._limits.allowed_networks)
        self._slots = anyio.Semaphore(self._limits.concurrency)
        self._vetting = _VettingBackend(self._allowed, resolver or _SystemResolver(_LOOKUPS * self._limits.concurrency))
        trust = ssl_context or _trust(self._limits.ca_file)
        proxy = _proxy(self._limits.proxy, trust)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=trust,
            proxy=proxy,
            max_connections=self._limits.concurrency,
            max_keepalive_connections=0,
            network_backend=self._vetting if proxy is None else httpcore.AnyIOBackend(),
        )

    async def get(self, order: Order) -> Reply:
        """What lies behind an http(s) URL. Its declared content type is ignored: the bytes decide what it is.

        Raises the error of the order's kind, by its code for pictures: invalid_image_url (malformed, or a scheme, port
        or address that is refused), failed_to_download_image (name, connection, TLS, status, encoding, deadline),
        image_file_too_large; and what `order.spend` raises. Messages name neither host nor address.
        """
        remote = order.remote
        async with self._slots:
            try:
                with anyio.fail_after(self._limits.timeout_s):
                    return await self._follow(self._check(remote.url, remote), order)
            except (TimeoutError, httpcore.TimeoutException):
                reason = f"it took longer than {self._limits.timeout_s:g} seconds"
            except RefusedAddressError:
                message = "The URL leads to an address that this server does not fetch from."
                raise _refuse(message, "invalid_image_url", remote) from None
            except _UnknownNameError:
                reason = "the name of its host does not resolve"
            except httpcore.ProxyError:
                reason = "the proxy of this server does not let it through"
            except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
                reason = "its TLS certificate or handshake failed" if _is_tls(error) else "the connection failed"
        raise _failed(reason, remote)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._pool.aclose()

    async def _follow(self, url: httpx.URL, order: Order) -> Reply:
        agent = self._limits.user_agent.encode("latin-1")
        own = [(b"User-Agent", agent), (b"Accept-Encoding", b"identity"), (b"Accept", _ACCEPT[order.remote.kind])]
        for redirects in range(self._limits.max_redirects + 1):
            headers = [(b"Host", url.netloc), *own]
            if redirects == 0:  # validators are of this URL alone: elsewhere the same ETag names other bytes
                headers += order.validators
            if self._limits.proxy is not None:
                await self._vetting.check_before_proxy(url)
            target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
            async with self._pool.stream("GET", target, headers=headers) as response:
                if response.status not in _REDIRECTS:
                    return await self._read(response, order, redirected=redirects > 0)
                location = _header(response, b"location")
            url = self._redirect(url, location, order.remote)
        raise _failed(f"it redirects more than {self._limits.max_redirects} times", order.remote)

    async def _read(self, response: httpcore.Response, order: Order, *, redirected: bool) -> Reply:
        remote = order.remote
        # Where a redirect leads is good for this once: the freshness of what lies there says nothing of the way.
        freshness = NOTHING if redirected else _freshness(response)
        if response.status == 304 and order.validators and not redirected:
            return Reply(None, freshness)
        if response.status != 200:
            raise _failed(f"its server answered with status {response.status}", remote)
        encodings = _header(response, b"content-encoding").lower().split(",")
        if not _PLAIN_ENCODINGS.issuperset(encoding.strip() for encoding in encodings):
            raise _failed("its server sent a compressed body that was not asked for", remote)
        announced = _header(response, b"content-length")
        if announced.isdecimal() and int(announced[:20]) > order.max_bytes:
            raise too_large(remote.kind, order.max_bytes, remote.param)
        body = bytearray()
        async for piece in response.aiter_stream():
            if len(body) + len(piece) > order.max_bytes:
                raise too_large(remote.kind, order.max_bytes, remote.param)
            order.spend(len(piece))
            body += piece
        return Reply(bytes(body), freshness)

    def _redirect(self, url: httpx.URL, location: str, remote: Remote) -> httpx.URL:
        location = location.replace(" ", "%20")
        if not location or len(location) > MAX_URL_LENGTH or _FORBIDDEN.search(location):
            raise _failed("it redirects without naming a valid URL", remote)
        try:
            joined = str(url.join(location))
        except (httpx.InvalidURL, ValueError):
            raise _failed("it redirects without naming a valid URL", remote) from None
        followed = self._check(joined, remote)
        if url.scheme == "https" and followed.scheme != "https":
            raise _refuse("The URL redirects from https to http, which is refused.", "invalid_image_url", remote)
        return followed

    def _check(self, text: str, remote: Remote) -> httpx.URL:
        """The one parse of a URL: refuse what is malformed or not allowed, and return it with a normalised host."""
        text = text.replace(" ", "%20")  # as browsers do; in a host it stays an error
        if len(text) > MAX_URL_LENGTH or _FORBIDDEN.search(text):
            raise _malformed(remote)
        try:
            url = httpx.URL(text)
        except (httpx.InvalidURL, ValueError):
            raise _malformed(remote) from None
        if url.scheme not in ("http", "https"):
            raise _refuse("The URL is not http or https.", "invalid_image_url", remote)
        if "@" in re.split(r"[/?#]", text.partition("://")[2], maxsplit=1)[0]:
            raise _refuse("The URL holds a user name or password, which is refused.", "invalid_image_url", remote)
        host = url.raw_host.decode("ascii").removesuffix(".")
        if not _is_host(host):
            raise _malformed(remote)
        port = url.port if url.port is not None else 443 if url.scheme == "https" else 80
        if port not in self._limits.ports and not self._allowed.has_host(host, port):
            ports = ", ".join(map(str, self._limits.ports))
            raise _refuse(
                f"The URL names a port that this server does not fetch from; allowed: {ports}.",
                "invalid_image_url",
                remote,
            )
        if not 0 < port < 65536:
            raise _malformed(remote)
        return url.copy_with(host=host, fragment=None)


class _UnknownNameError(Exception):
    """A host name without addresses."""


class _VettingBackend(httpcore.AsyncNetworkBackend):
    """Opens a connection only to addresses that are allowed, resolving the host exactly once."""

    def __init__(self, allowed: AllowList, resolver: Resolver) -> None:
        self._allowed = allowed
        self._resolver = resolver
        self._dialler = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Raises RefusedAddressError, _UnknownNameError, and what httpcore's own backend raises."""
        addresses = await self._addresses(host, port)
        *earlier, last = addresses[:_MAX_DIALS]
        for address in earlier:
            try:
                return await self._dialler.connect_tcp(address, port, 2.0, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._dialler.connect_tcp(last, port, timeout, local_address, socket_options)

    async def check_before_proxy(self, url: httpx.URL) -> None:
        """Raises RefusedAddressError where a proxy would be asked for what is not allowed, as far as is known here."""
        host, port = url.raw_host.decode("ascii"), url.port or (443 if url.scheme == "https" else 80)
        with anyio.move_on_after(_LOOKUP_BEFORE_PROXY_S), contextlib.suppress(_UnknownNameError):
            await self._addresses(host, port)

    async def _addresses(self, host: str, port: int) -> list[str]:
        """The addresses of a host, every one of which is allowed."""
        answers = [host] if _is_literal(host) else await self._resolve(host, port)
        if self._allowed.has_host(host, port):
            return answers
        return [str(check_address(answer, self._allowed.networks)) for answer in answers]

    async def _resolve(self, host: str, port: int) -> list[str]:
        try:
            answers = list(dict.fromkeys(await self._resolver(host, port)))
        except (OSError, UnicodeError):
            raise _UnknownNameError from None
        if not answers:
            raise _UnknownNameError
        return answers


class _SystemResolver:
    """Asks the system's resolver, in threads of its own: the loop's are few, and slow names would fill them all."""

    def __init__(self, threads: int) -> None:
        self._threads = anyio.CapacityLimiter(threads)

    async def __call__(self, host: str, port: int) -> list[str]:
        found = await anyio.to_thread.run_sync(_lookup, host, port, limiter=self._threads, abandon_on_cancel=True)
        return [str(answer[4][0]) for answer in found]


def _lookup(host: str, port: int) -> list[tuple[Any, ...]]:
    return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))


def _trust(ca_file: str | None) -> ssl.SSLContext:
    context = httpx.create_ssl_context(trust_env=False)
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except OSError as error:  # ssl's own errors are of this kind, too
            raise ValueError(f"the certificates in {ca_file} cannot be read: {error.strerror or error}") from None
    return context


def _proxy(url: str | None, trust: ssl.SSLContext) -> httpcore.Proxy | None:
    if url is None:
        return None
    parsed = httpx.URL(url)
    auth = (unquote(parsed.username), unquote(parsed.password)) if parsed.userinfo else None
    address = httpcore.URL(scheme=parsed.raw_scheme, host=parsed.raw_host, port=parsed.port, target=b"/")
    return httpcore.Proxy(address, auth, ssl_context=trust if parsed.scheme == "https" else None)


def _is_tls(error: BaseException | None) -> bool:
    """Whether TLS lies at the root. httpcore wraps its error, and the pool drops the cause but not the context."""
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__context__
    return error is not None


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_host(host: str) -> bool:
    """A plain address, or a name. Not 2130706433, 0x7f.1, 0177.0.0.1 or 127.1: resolvers read these as addresses."""
    if _is_literal(host):
        return "%" not in host
    return len(host) <= 253 and bool(_HOST_NAME.fullmatch(host)) and not _NUMBER.fullmatch(host.rpartition(".")[2])


def _header(response: httpcore.Response, name: bytes) -> str:
    """All values of a header, joined; empty where it is absent or not text."""
    values = [value for key, value in response.headers if key.lower() == name]
    return b", ".join(values).decode("utf-8", errors="ignore").strip()


def _freshness(response: httpcore.Response) -> Freshness:
    names = ("cache-control", "expires", "date", "age", "etag", "last-modified", "vary")
    said = {name: value for name in names if (value := _header(response, name.encode()))}
    return read_freshness(said, time.monotonic(), time.time())


def _malformed(remote: Remote) -> BadRequest:
    return _refuse("The URL is malformed or names no usable host.", "invalid_image_url", remote)


def _failed(reason: str, remote: Remote) -> BadRequest:
    return _refuse(f"The {NOUNS[remote.kind]} could not be downloaded: {reason}.", "failed_to_download_image", remote)


def _refuse(message: str, code: ImageCode, remote: Remote) -> BadRequest:
    return invalid_media(remote.kind, message, code=code, param=remote.param)
