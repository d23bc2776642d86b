"""HTTP that is too large, too slow, or means two things at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

from tests.e2e.asking import PATH
from tests.hostile.case import Answer, Case, said
from tests.hostile.house import House
from tests.hostile.packing import MIB

HELLO: Final = json.dumps(said("Hello")).encode()
POST: Final = f"POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n".encode()
GET: Final = b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n"


def sized(content: bytes = HELLO, head: bytes = POST) -> bytes:
    return head + b"content-length: %d\r\nconnection: close\r\n\r\n" % len(content) + content


def raw(pieces: bytes, status: int, code: str | None = None) -> Case:
    return Case(lambda house: house.raw(pieces), status, code)


def _chunks(total: int) -> Iterator[bytes]:
    yield POST + b"transfer-encoding: chunked\r\n\r\n"
    for _ in range(total // MIB):
        yield b"100000\r\n" + b" " * MIB + b"\r\n"
    yield b"0\r\n\r\n"


def _tiny_chunks(house: House) -> Answer:
    content = b"".join(b"1\r\n%c\r\n" % byte for byte in HELLO)
    return house.raw(POST + b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n" + content + b"0\r\n\r\n")


def _one_by_one(content: bytes) -> Iterator[bytes]:
    for byte in content:
        yield bytes([byte])


def _slow_head(house: House) -> Answer:
    """A byte every half second, for ever."""
    return house.raw(_one_by_one(GET + b"x: " + b"y" * 1000), pause_s=0.5)


def _slow_body(house: House) -> Answer:
    def pieces() -> Iterator[bytes]:
        yield POST + b"content-length: 1000\r\n\r\n"
        yield from _one_by_one(HELLO)

    return house.raw(pieces(), pause_s=0.5)


def _slow_chunks(house: House) -> Answer:
    def pieces() -> Iterator[bytes]:
        yield POST + b"transfer-encoding: chunked\r\n\r\n"
        for _ in range(1000):
            yield b"1\r\n \r\n"

    return house.raw(pieces(), pause_s=0.5)


CASES: Final[dict[str, Case]] = {
    "too large, announced": raw(POST + b"content-length: 67108865\r\n\r\n", 413, "request_too_large"),
    "too large, asked first": raw(
        POST + b"expect: 100-continue\r\ncontent-length: 67108865\r\n\r\n", 413, "request_too_large"
    ),
    "too large, in chunks": Case(lambda house: house.raw(_chunks(80 * MIB), pause_s=0.001), 413, "request_too_large"),
    "a length of thirty digits": raw(POST + b"content-length: " + b"9" * 30 + b"\r\n\r\n", 400, "invalid_http"),
    "a negative length": raw(POST + b"content-length: -1\r\n\r\n", 400, "invalid_http"),
    "a length in hex": raw(POST + b"content-length: 0x10\r\n\r\n", 400, "invalid_http"),
    "a length with a plus": raw(POST + b"content-length: +10\r\n\r\n", 400, "invalid_http"),
    "two lengths": raw(POST + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello!", 400, "invalid_http"),
    "a length and chunks": raw(
        POST + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400, "invalid_http"
    ),
    "chunks and a length": raw(
        POST + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n", 400, "invalid_http"
    ),
    "a strange encoding": raw(POST + b"transfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400, "invalid_http"),
    "a chunk of no size": raw(POST + b"transfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n", 400, "invalid_http"),
    "a chunk of 16 F": raw(POST + b"transfer-encoding: chunked\r\n\r\n" + b"F" * 17 + b"\r\n", 400, "invalid_http"),
    "tiny chunks": Case(_tiny_chunks, 200),
    "no body": raw(POST + b"connection: close\r\n\r\n", 400, "invalid_json"),
    "a gzip body": raw(
        sized(b"\x1f\x8b" + bytes(100), POST + b"content-encoding: gzip\r\n"), 400, "invalid_content_encoding"
    ),
    "a header of 70 KB": raw(GET + b"x: " + b"y" * 70_000 + b"\r\n\r\n", 431, "invalid_http"),
    "ten thousand headers": raw(GET + b"x: yyyyy\r\n" * 10_000 + b"\r\n", 431, "invalid_http"),
    "an address of 70 KB": raw(b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n", 431, "invalid_http"),
    "headers without end": Case(
        lambda house: house.raw([GET, *([b"x: y\r\n" * 1000] * 1000)], pause_s=0.0005), 431, "invalid_http"
    ),
    "a space before the colon": raw(GET + b"x : y\r\n\r\n", 400, "invalid_http"),
    "a NUL in a header": raw(GET + b"x: \x00\r\n\r\n", 400, "invalid_http"),
    "a bare CR": raw(GET + b"x: a\rb\r\n\r\n", 400, "invalid_http"),
    "TLS": raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), 400, "invalid_http"),
    "another protocol": raw(b"SSH-2.0-OpenSSH_9.9\r\n\r\n", 400, "invalid_http"),
    "HTTP/2 with prior knowledge": raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "invalid_http"),
    "HTTP/9.9": raw(b"GET / HTTP/9.9\r\n\r\n", 400, "invalid_http"),
    "a method nobody knows": raw(b"BREW /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n", 400, "invalid_http"),
    "TRACE": raw(
        b"TRACE /v1/models HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", 405, "method_not_allowed"
    ),
    "CONNECT": raw(
        b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", 400, "invalid_http"
    ),
    "a proxy's address": raw(
        b"GET http://169.254.169.254/ HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", 404, "not_found"
    ),
    "up and out of the folder": raw(
        b"GET /static/../../../etc/passwd HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", 404, "not_found"
    ),
    "a websocket": raw(
        b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade, close\r\n"
        b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\nsec-websocket-version: 13\r\n\r\n",
        200,
    ),
    "another host": raw(
        b"GET /v1/models HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n", 403, "forbidden"
    ),
    "a form of a web page": Case(
        lambda house: house.chat(said("Hello"), {"content-type": "text/plain"}), 400, "invalid_content_type"
    ),
    "two requests at once": raw(sized(b"{}", POST).replace(b"connection: close\r\n", b"") + sized(), 400),
    "a head that comes slowly": Case(_slow_head, 0, waits=True),
    "a body that comes slowly": Case(_slow_body, 408, "request_timeout", waits=True),
    "chunks that come slowly": Case(_slow_chunks, 408, "request_timeout", waits=True),
}
