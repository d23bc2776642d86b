"""A small internet on loopback: names that answer as they are told, web hosts, and traps where nobody may knock.

The server under test asks this name server, over UDP, for every name in `.test` and `.internal`. Public addresses lead
to the web hosts here (see `launcher`), so that URLs look as they do in earnest (`http://good.test/red.png`, port 80)
and yet no packet leaves the machine.
"""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from tests.hostile.certificates import Certificates

PUBLIC: Final = "93.184.215.14"
"""Where `good.test` and most others live. Any public address would do: the launcher lets none be dialled in earnest."""
PUBLIC_V6: Final = "2606:2800:21f:cb07:6820:80da:af6b:8b2c"
DEAD: Final = "93.184.215.15"
"""A public host that refuses every connection."""
STORE: Final = ("10.9.8.7", 9000)
"""The operator's own picture store: a private address, but `store.test:9000` is allowed by name."""

Answers = list[str] | None
"""The addresses of a name; None: there is no such name."""
Page = Callable[["Visit"], None]
"""Writes a whole reply, head and all, as rudely as it likes."""


# ---- Names ------------------------------------------------------------------------------------------


class NameServer:
    """Answers over UDP. An entry is a list of addresses, or is called with the number of the query, from 0."""

    def __init__(self, zone: dict[str, Answers | Callable[[int], Answers]]) -> None:
        self.asked: Counter[str] = Counter()
        """Queries for A records so far, by name."""
        names = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                content, link = self.request
                reply = names._reply(content, zone)
                with contextlib.suppress(OSError):
                    link.sendto(reply, self.client_address)

        self.server = socketserver.ThreadingUDPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port: int = self.server.server_address[1]

    def _reply(self, content: bytes, zone: dict[str, Answers | Callable[[int], Answers]]) -> bytes:
        query = dns.message.from_wire(content)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        wanted = dns.rdatatype.to_text(question.rdtype)
        if wanted == "A":
            self.asked[name] += 1
        entry = zone.get(name)
        addresses = entry(max(0, self.asked[name] - 1)) if callable(entry) else entry
        reply = dns.message.make_response(query)
        if addresses is None:
            reply.set_rcode(dns.rcode.NXDOMAIN)
        else:
            fitting = [address for address in addresses if (":" in address) == (wanted == "AAAA")]
            if fitting:
                reply.answer.append(dns.rrset.from_text(question.name, 0, "IN", wanted, *fitting))
        return reply.to_wire(max_size=65_535)


def turning(*answers: Answers) -> Callable[[int], Answers]:
    """A name that says something else each time, and in the end goes on with the last."""
    return lambda number: answers[min(number, len(answers) - 1)]


_hurried = threading.Event()
"""Set as long as nobody waits for names: who asks for the address has to ask for the other kind after that."""


def late(seconds: float, answers: Answers) -> Callable[[int], Answers]:
    """A name server that takes its time."""

    def answer(_: int) -> Answers:
        _hurried.wait(seconds)
        return answers

    return answer


# ---- Web hosts --------------------------------------------------------------------------------------


@dataclass
class Visit:
    """One request to a web host, as a page sees it."""

    connection: socket.socket
    host: str
    path: str
    closing: threading.Event

    @property
    def query(self) -> str:
        """What stands behind the ?, decoded."""
        return unquote(self.path.partition("?")[2])

    def send(self, content: bytes) -> None:
        self.connection.sendall(content)

    def drip(self, content: bytes, every_s: float = 1.0) -> None:
        """Send byte by byte, until it is all sent or the house closes."""
        for byte in content:
            self.send(bytes([byte]))
            if self.closing.wait(every_s):
                return

    def flood(self, content: bytes, most: int = 1 << 30) -> None:
        """Send the same piece again and again, as long as the other side takes it."""
        for _ in range(most // len(content)):
            if self.closing.is_set():
                return
            self.send(content)

    def wait(self) -> None:
        """Say nothing, for as long as the other side waits."""
        self.connection.settimeout(0.2)
        while not self.closing.is_set():
            try:
                if not self.connection.recv(1024):
                    return
            except TimeoutError:
                continue


class WebHost:
    """A web server on loopback for all names, with or without TLS; what a page writes is sent as it is."""

    def __init__(self, pages: dict[str, Page], context: ssl.SSLContext | None = None) -> None:
        host = self
        self.visits: list[tuple[str, str]] = []
        """(Host header, path) of every request so far."""
        self.closing = threading.Event()

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError, ValueError):
                    self.request.settimeout(30)
                    connection = context.wrap_socket(self.request, server_side=True) if context else self.request
                    with connection:
                        host._serve(connection, pages)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            request_queue_size = 256

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port: int = self.server.server_address[1]

    def _serve(self, connection: socket.socket, pages: dict[str, Page]) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            piece = connection.recv(65_536)
            if not piece:
                return
            head += piece
        lines = head.decode("latin-1").split("\r\n")
        path = lines[0].split(" ")[1]
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        visit = Visit(connection, headers.get("host", ""), path, self.closing)
        self.visits.append((visit.host, path))
        pages.get(path.partition("?")[0], missing)(visit)


def missing(visit: Visit) -> None:
    visit.send(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")


# ---- Traps ------------------------------------------------------------------------------------------


class Traps:
    """Listeners on loopback that must never be reached by the server; `caught` says who was."""

    def __init__(self) -> None:
        self.caught: list[str] = []
        self._listeners: list[socket.socket] = []
        self.free_port = self._listen("127.0.0.1", 0)
        """Of a trap that URLs inside files may name; 80 and 443 need privileges that not everyone has."""
        for address in ("127.0.0.1", "127.1.2.3", "::1"):
            for port in (80, 443, self.free_port if address != "127.0.0.1" else 22):
                with contextlib.suppress(OSError):
                    self._listen(address, port)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="traps")
        self._thread.start()

    @property
    def where(self) -> list[str]:
        """The addresses and ports of all traps."""
        return ["{}:{}".format(*listener.getsockname()[:2]) for listener in self._listeners]

    def close(self) -> None:
        self._closing.set()
        self._thread.join()
        for listener in self._listeners:
            listener.close()

    def _listen(self, address: str, port: int) -> int:
        listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        try:
            listener.bind((address, port))
        except OSError:
            listener.close()
            raise
        listener.listen()
        listener.setblocking(False)
        self._listeners.append(listener)
        return int(listener.getsockname()[1])

    def _watch(self) -> None:
        while not self._closing.wait(0.05):
            for listener in self._listeners:
                with contextlib.suppress(BlockingIOError):
                    visitor, _ = listener.accept()
                    visitor.close()
                    self.caught.append("{}:{}".format(*listener.getsockname()[:2]))


# ---- All of it --------------------------------------------------------------------------------------


@dataclass
class Internet:
    """Names, hosts and traps, and what the server is told of them."""

    names: NameServer
    plain: WebHost
    secure: WebHost
    store: WebHost
    traps: Traps
    folder: Path
    certificates: Certificates
    routes: dict[tuple[str, int], int] = field(default_factory=dict)
    """Addresses that may be dialled, and the port on loopback where each of them leads."""

    @property
    def book(self) -> Path:
        """Where the launcher writes down every address that is dialled, before it is."""
        return self.folder / "dialled"

    def describe(self) -> Path:
        """A file that tells the launcher about this internet."""
        routes = [[address, port, real] for (address, port), real in self.routes.items()]
        known: dict[str, Any] = {"names": self.names.port, "routes": routes, "book": str(self.book)}
        path = self.folder / "internet.json"
        path.write_text(json.dumps({**known, "authority": str(self.certificates.authority)}))
        return path

    def let_go(self) -> None:
        """Whoever still waits for a host has what there is."""
        for host in (self.plain, self.secure, self.store):
            host.closing.set()
            host.closing = threading.Event()
        _hurried.set()

    def hold(self) -> None:
        """From now on hosts and name servers keep waiting who asks them, as is their way."""
        _hurried.clear()

    def dialled(self) -> list[tuple[str, int]]:
        """Every address and port dialled so far, in order."""
        if not self.book.exists():
            return []
        lines = self.book.read_text().splitlines()
        return [(address, int(port)) for address, _, port in (line.rpartition(" ") for line in lines)]

    def forbidden(self) -> list[tuple[str, int]]:
        """What was dialled and must not have been."""
        return [place for place in self.dialled() if place not in self.routes]


@contextlib.contextmanager
def open_internet(
    folder: Path, zone: dict[str, Answers | Callable[[int], Answers]], pages: dict[str, Page]
) -> Iterator[Internet]:
    """An internet that runs for the length of the block; `folder` holds what it writes."""
    certificates = Certificates(folder)
    names = NameServer(zone)
    hosts = WebHost(pages), WebHost(pages, certificates.context()), WebHost(pages)
    plain, secure, store = hosts
    traps = Traps()
    internet = Internet(names, plain, secure, store, traps, folder, certificates)
    with closed_port() as nobody:
        internet.routes = {
            (PUBLIC, 80): plain.port,
            (PUBLIC, 443): secure.port,
            (PUBLIC_V6, 80): plain.port,
            (DEAD, 80): nobody,
            STORE: store.port,
        }
        servers = (names.server, *(host.server for host in hosts))
        threads = [threading.Thread(target=server.serve_forever, args=(0.05,)) for server in servers]
        for thread in threads:
            thread.start()
        try:
            yield internet
        finally:
            for host in hosts:
                host.closing.set()
            for server in servers:
                server.shutdown()
                server.server_close()
            for thread in threads:
                thread.join()
            traps.close()


@contextlib.contextmanager
def closed_port() -> Iterator[int]:
    """A port at which nobody listens and that nobody else is given."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield int(reserved.getsockname()[1])
