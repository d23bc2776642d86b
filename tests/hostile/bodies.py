"""What a web host may answer instead of a picture."""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Callable
from typing import Final

from PIL import Image

from tests.e2e.asking import encoded
from tests.hostile.case import URL, Case, answered, refused, shown
from tests.hostile.internet import Page, Visit
from tests.hostile.packing import MIB, repeated_gzip

RED: Final = encoded(Image.new("RGB", (56, 56), (250, 0, 0)), "PNG")
JPEG: Final = encoded(Image.new("RGB", (56, 56), (250, 0, 0)), "JPEG")
HTML: Final = b"<!DOCTYPE html><html><body><script>alert(1)</script></body></html>"
OK: Final = b"HTTP/1.1 200 OK\r\n"


def whole(content: bytes, *headers: str, status: str = "200 OK") -> Page:
    """A reply with an honest length."""
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(content)}", "connection: close", *headers]
    reply = "\r\n".join(lines).encode() + b"\r\n\r\n" + content
    return lambda visit: visit.send(reply)


def as_is(content: bytes) -> Page:
    return lambda visit: visit.send(content)


def packed_bomb(visit: Visit) -> None:
    """A gigabyte of zeros, in one megabyte."""
    content = repeated_gzip(bytes(MIB), 1024)
    visit.send(OK + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(content) + content)


def drip(visit: Visit) -> None:
    """One byte a second; many such hosts do not keep step."""
    visit.closing.wait(random.random())
    visit.send(OK + b"content-type: image/png\r\ncontent-length: %d\r\n\r\n" % len(RED))
    visit.drip(RED)


def drip_head(visit: Visit) -> None:
    visit.drip(OK + b"content-length: 9\r\n\r\n")


def drip_headers(visit: Visit) -> None:
    visit.send(OK)
    for number in range(1000):
        visit.send(b"x-%d: y\r\n" % number)
        if visit.closing.wait(0.2):
            return


def silent(visit: Visit) -> None:
    visit.wait()


def stalled(visit: Visit) -> None:
    visit.send(OK + b"content-length: %d\r\n\r\n" % len(RED) + RED[:-1])
    visit.wait()


def endless(visit: Visit) -> None:
    visit.send(OK + b"content-type: image/png\r\n\r\n" + RED)
    visit.flood(b"\x00" * 65_536)


def endless_chunks(visit: Visit) -> None:
    visit.send(OK + b"transfer-encoding: chunked\r\n\r\n")
    visit.flood(b"10000\r\n" + b"\x00" * 65_536 + b"\r\n")


def endless_tiny_chunks(visit: Visit) -> None:
    visit.send(OK + b"transfer-encoding: chunked\r\n\r\n")
    visit.flood(b"1\r\n\x00\r\n" * 4096)


def endless_chunk_size(visit: Visit) -> None:
    visit.send(OK + b"transfer-encoding: chunked\r\n\r\n")
    visit.flood(b"0" * 65_536)


def endless_trailers(visit: Visit) -> None:
    visit.send(OK + b"transfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n")
    visit.flood(b"x: y\r\n" * 4096)


def endless_headers(visit: Visit) -> None:
    visit.send(OK)
    visit.flood(b"x: y\r\n" * 4096)


def endless_header(visit: Visit) -> None:
    visit.send(OK + b"x: ")
    visit.flood(b"y" * 65_536)


def endless_continue(visit: Visit) -> None:
    visit.flood(b"HTTP/1.1 100 Continue\r\n\r\n" * 1024)


def endless_blank_lines(visit: Visit) -> None:
    visit.flood(b"\r\n" * 8192)


def lying_length(length: bytes) -> Page:
    return as_is(OK + b"content-length: " + length + b"\r\nconnection: close\r\n\r\n" + RED)


PAGES: Final[dict[str, Page]] = {
    "/red.png": whole(RED, "content-type: image/png"),
    "/as-text": whole(RED, "content-type: text/html"),
    "/as-png": whole(JPEG, "content-type: image/png"),
    "/without-length": as_is(OK + b"connection: close\r\n\r\n" + RED),
    "/in-chunks": as_is(OK + b"transfer-encoding: chunked\r\n\r\n%x\r\n" % len(RED) + RED + b"\r\n0\r\n\r\n"),
    "/with-a-cookie": whole(RED, "set-cookie: a=b; domain=test", "strict-transport-security: max-age=9", "refresh: 0"),
    "/drip": drip,
    "/drip-head": drip_head,
    "/drip-headers": drip_headers,
    "/silent": silent,
    "/stalled": stalled,
    "/endless": endless,
    "/endless-chunks": endless_chunks,
    "/endless-tiny-chunks": endless_tiny_chunks,
    "/endless-chunk-size": endless_chunk_size,
    "/endless-trailers": endless_trailers,
    "/endless-headers": endless_headers,
    "/endless-header": endless_header,
    "/endless-continue": endless_continue,
    "/endless-blank-lines": endless_blank_lines,
    "/bomb": packed_bomb,
    "/gzip": whole(gzip.compress(RED), "content-encoding: gzip"),
    "/deflate": whole(zlib.compress(RED), "content-encoding: deflate"),
    "/gzip-twice": whole(gzip.compress(gzip.compress(RED)), "content-encoding: gzip, gzip"),
    "/identity-then-gzip": whole(gzip.compress(RED), "content-encoding: identity", "content-encoding: gzip"),
    "/unnamed-gzip": whole(gzip.compress(RED)),
    "/html": whole(HTML, "content-type: image/png"),
    "/json": whole(b'{"image": "none"}', "content-type: image/png"),
    "/svg": whole(b'<svg xmlns="http://www.w3.org/2000/svg"/>', "content-type: image/png"),
    "/empty": whole(b""),
    "/half": whole(RED[: len(RED) // 2]),
    "/no-content": as_is(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "/partial": whole(RED, status="206 Partial Content"),
    "/not-modified": as_is(b"HTTP/1.1 304 Not Modified\r\n\r\n"),
    "/unauthorized": whole(b"", 'www-authenticate: Basic realm="give me"', status="401 Unauthorized"),
    "/error": whole(HTML, status="500 Internal Server Error"),
    "/status-999": whole(RED, status="999 Whatever"),
    "/huge": lying_length(b"1099511627776"),
    "/huger": lying_length(b"9" * 30),
    "/negative": lying_length(b"-1"),
    "/not-a-number": lying_length(b"many"),
    "/two-lengths": as_is(OK + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello!"),
    "/short": lying_length(b"%d" % (len(RED) + 1)),
    "/bad-chunk": as_is(OK + b"transfer-encoding: chunked\r\n\r\nzz\r\n" + RED),
    "/negative-chunk": as_is(OK + b"transfer-encoding: chunked\r\n\r\n-1\r\n" + RED),
    "/huge-chunk": as_is(OK + b"transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n" + RED),
    "/no-http": as_is(b"220 mail.good.test ESMTP\r\n"),
    "/old-http": as_is(RED),
    "/http-9": as_is(b"HTTP/9.9 200 OK\r\n\r\n"),
    "/bare-head": as_is(b"HTTP/1.1 200 OK\r\n"),
    "/header-with-nul": as_is(OK + b"x: \x00\r\ncontent-length: 0\r\n\r\n"),
    "/folded-header": as_is(OK + b"content-length: 0\r\n x: y\r\n\r\n"),
    "/hang-up": lambda visit: None,
    "/upgrade": as_is(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"),
}


def _failed(path: str, *, waits: bool = False) -> Case:
    return refused(shown(f"http://good.test{path}"), "failed_to_download_image", URL, waits=waits)


def _refused(path: str, code: str, *, waits: bool = False) -> Case:
    return refused(shown(f"http://good.test{path}"), code, URL, waits=waits)


def _answered(path: str) -> Case:
    return answered(shown(f"http://good.test{path}"))


def _tls(host: str) -> Case:
    return refused(shown(f"https://{host}/red.png"), "failed_to_download_image", URL)


CASES: Final[dict[str, Case]] = {
    "a picture called text": _answered("/as-text"),
    "a JPEG called PNG": _answered("/as-png"),
    "without a length": _answered("/without-length"),
    "in chunks": _answered("/in-chunks"),
    "with a cookie": _answered("/with-a-cookie"),
    "over TLS": answered(shown("https://good.test/red.png")),
    "one byte a second": _failed("/drip", waits=True),
    "its head a byte a second": _failed("/drip-head", waits=True),
    "its headers one by one": _failed("/drip-headers", waits=True),
    "nothing at all": _failed("/silent", waits=True),
    "all but the last byte": _failed("/stalled", waits=True),
    "without end": _refused("/endless", "image_file_too_large"),
    "chunks without end": _refused("/endless-chunks", "image_file_too_large"),
    "tiny chunks without end": _failed("/endless-tiny-chunks", waits=True),
    "a chunk's size without end": _failed("/endless-chunk-size"),
    "trailers without end": _failed("/endless-trailers"),
    "headers without end": _failed("/endless-headers"),
    "a header without end": _failed("/endless-header"),
    "interim replies without end": _failed("/endless-continue", waits=True),
    "blank lines without end": _failed("/endless-blank-lines"),
    "a gzip bomb": _failed("/bomb"),
    "gzip": _failed("/gzip"),
    "deflate": _failed("/deflate"),
    "gzip twice": _failed("/gzip-twice"),
    "identity and gzip": _failed("/identity-then-gzip"),
    "gzip that is not named": _refused("/unnamed-gzip", "invalid_image_format"),
    "HTML as an image": _refused("/html", "unsupported_image_media_type"),
    "JSON as an image": _refused("/json", "invalid_image_format"),
    "SVG as a PNG": _refused("/svg", "unsupported_image_media_type"),
    "an empty body": _refused("/empty", "empty_image_file"),
    "half a picture": _refused("/half", "image_parse_error"),
    "status 204": _failed("/no-content"),
    "status 206": _failed("/partial"),
    "status 304": _failed("/not-modified"),
    "status 401": _failed("/unauthorized"),
    "status 404": _failed("/missing"),
    "status 500": _failed("/error"),
    "status 999": _failed("/status-999"),
    "a terabyte, it says": _refused("/huge", "image_file_too_large"),
    "a length of thirty digits": _failed("/huger"),
    "a negative length": _failed("/negative"),
    "a length in words": _failed("/not-a-number"),
    "two lengths": _failed("/two-lengths"),
    "one byte short": _failed("/short"),
    "a chunk of no size": _failed("/bad-chunk"),
    "a negative chunk": _failed("/negative-chunk"),
    "a huge chunk, it says": _failed("/huge-chunk"),
    "a mail server": _failed("/no-http"),
    "a bare picture": _failed("/old-http"),
    "HTTP/9.9": _refused("/http-9", "empty_image_file"),
    "half a head": _failed("/bare-head"),
    "a NUL in a header": _failed("/header-with-nul"),
    "a folded header": _failed("/folded-header"),
    "a host that hangs up": _failed("/hang-up"),
    "another protocol": _failed("/upgrade"),
    "a host that refuses": refused(shown("http://dead.test/red.png"), "failed_to_download_image", URL),
    "TLS for another name": _tls("elsewhere.test"),
    "TLS out of date": _tls("expired.test"),
    "TLS of no authority": _tls("self-signed.test"),
    "TLS to a bare address": _tls("93.184.215.14"),
    "TLS at a plain port": refused(shown("https://good.test:80/red.png"), "failed_to_download_image", URL, waits=True),
    "plain HTTP at a TLS port": refused(shown("http://good.test:443/red.png"), "failed_to_download_image", URL),
}


def slow_host_urls(number: int) -> list[str]:
    """URLs at so many hosts that each send a byte a second."""
    make: Callable[[int], str] = "http://slow-{}.test/drip".format
    return [make(index) for index in range(number)]
