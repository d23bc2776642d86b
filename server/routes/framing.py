"""What RFC 9112 asks of a request's head, beyond what the parser looks at.

Where two readers of one connection, a proxy and a server, can understand a request differently, one of them can be
made to see two requests (smuggling), or another host's: everything that is open to doubt is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from server.errors import ApiError, BadRequest, TransferCodingUnknown

VERSIONS = frozenset({"1.0", "1.1"})
HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=:\[\]%-]*")
"""A host and port (RFC 3986, 3.2.2 and 3.2.3), by their letters."""
AT_MOST_ONCE = (b"host", b"authorization", b"content-type")
"""Twice, they would mean what whoever reads them takes: the first, or the last."""

Headers = Sequence[tuple[bytes, bytes]]


def fault_of(method: bytes, version: str, headers: Headers) -> ApiError | None:
    """Why a head is refused, if it is. Names of headers are in lower case.

    The parser itself refuses two lengths, a length beside chunks, and lines that end with anything but CRLF.
    """
    if version not in VERSIONS:
        return _invalid("This server speaks HTTP/1.1.")
    if method == b"CONNECT":
        return _invalid("This server is no proxy: it connects to nobody.")
    names = [name for name, _ in headers]
    for name in AT_MOST_ONCE:
        if names.count(name) > 1:
            return _invalid(f"The request has more than one {name.decode().title()} header.")
    if b"host" in names:
        if not HOST.fullmatch(headers[names.index(b"host")][1]):
            return _invalid("The Host header is no host.")
    elif version == "1.1":
        return _invalid("The request has no Host header.")
    return _coding_fault(version, headers) if b"transfer-encoding" in names else None


def is_chunked(headers: Headers) -> bool:
    """Whether the body of a request without fault comes in chunks."""
    return any(name == b"transfer-encoding" for name, _ in headers)


def body_length(headers: Headers) -> int:
    """Bytes of the body of a request without fault that does not come in chunks (RFC 9112, 6.3)."""
    return next((int(value) for name, value in headers if name == b"content-length"), 0)


def _coding_fault(version: str, headers: Headers) -> ApiError | None:
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    if version == "1.0":
        return _invalid("HTTP/1.0 knows no Transfer-Encoding.")
    if len(codings) > 1 or codings[0].strip().lower() != b"chunked":
        return TransferCodingUnknown("This server knows no Transfer-Encoding but 'chunked'.")
    return None


def _invalid(message: str) -> BadRequest:
    return BadRequest(message, code="invalid_http")
