"""`python -m server`, whose internet is the one of the tests.

Three things are replaced, all below the server's own code: the system's resolver for names in `.test` and `.internal`,
the dialling of a connection (written down, and led to loopback where the tests have a host for the address), and the
certificate authorities trusted. What the server decides with them is its own.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import httpcore
import httpx

INTERNET: Final = "HOSTILE_INTERNET"
"""The variable that names the description of the internet."""
ZONES: Final = (".test", ".internal")
PATIENCE_S: Final = 30.0

Found = list[tuple[Any, ...]]
"""As `getaddrinfo` has it."""


def resolver(names: int, system: Callable[..., Found]) -> Callable[..., Found]:
    """`socket.getaddrinfo`, but for names of the tests, which the server on port `names` is asked for."""

    def getaddrinfo(host: Any, port: Any, *how: Any, **options: Any) -> Found:
        if not isinstance(host, str) or not host.lower().removesuffix(".").endswith(ZONES):
            return system(host, port, *how, **options)
        found: Found = [
            (family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))
            for wanted, family in (("A", socket.AF_INET), ("AAAA", socket.AF_INET6))
            for address in _ask(names, host, wanted)
        ]
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return found

    return getaddrinfo


def _ask(names: int, host: str, wanted: str) -> list[str]:
    reply = dns.query.udp(dns.message.make_query(host, wanted), "127.0.0.1", PATIENCE_S, names)
    if reply.rcode() != dns.rcode.NOERROR:
        return []
    return [
        str(record) for answer in reply.answer for record in answer if answer.rdtype == dns.rdatatype.from_text(wanted)
    ]


def dialler(routes: dict[tuple[str, int], int], book: Path) -> type[httpcore.AsyncNetworkBackend]:
    """httpcore's own way to connect, with a book of where to."""
    written = os.open(book, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    class Dialler(httpcore.AnyIOBackend):
        async def connect_tcp(
            self,
            host: str,
            port: int,
            timeout: float | None = None,
            local_address: str | None = None,
            socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
        ) -> httpcore.AsyncNetworkStream:
            os.write(written, f"{host} {port}\n".encode())
            real = routes.get((host, port))
            place = (host, port) if real is None else ("127.0.0.1", real)
            return await super().connect_tcp(*place, timeout, local_address, socket_options)

    return Dialler


def trusting(authority: str, context: Callable[..., ssl.SSLContext]) -> Callable[..., ssl.SSLContext]:
    """`httpx.create_ssl_context`, with one authority more."""

    def create(*args: Any, **options: Any) -> ssl.SSLContext:
        made = context(*args, **options)
        made.load_verify_locations(authority)
        return made

    return create


def move_in(described: str) -> None:
    """Replace this process' internet by the one described in a file."""
    internet = json.loads(Path(described).read_text())
    routes = {(address, port): real for address, port, real in internet["routes"]}
    socket.getaddrinfo = resolver(internet["names"], socket.getaddrinfo)  # type: ignore[assignment]
    httpcore.AnyIOBackend = dialler(routes, Path(internet["book"]))  # type: ignore[assignment,misc]
    httpx.create_ssl_context = trusting(internet["authority"], httpx.create_ssl_context)


if __name__ == "__main__":  # processes that the engine spawns import this module again
    from server.cli import main

    move_in(os.environ[INTERNET])
    raise SystemExit(main())
