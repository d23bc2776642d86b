"""The first bytes of a file that came along in base64, without decoding all of it."""

from __future__ import annotations

from collections.abc import Sequence

import pybase64

WHITESPACE = b" \t\r\n\f\v"
URL_SAFE = bytes.maketrans(b"-_", b"+/")
"""From the alphabet of URLs to the standard one (RFC 4648, 5 and 4)."""
ESCAPES = ((b"\\/", b"/"), (b"\\u002B", b"+"), (b"\\u002b", b"+"), (b"\\n", b""), (b"\\r", b""), (b"\\t", b""))
"""What JSON may write for characters of base64, and for the white space between them."""
PERCENT = ((b"%2B", b"+"), (b"%2b", b"+"), (b"%2F", b"/"), (b"%2f", b"/"), (b"%3D", b"="), (b"%3d", b"="))


def first_bytes(pieces: Sequence[bytes], size: int, *, base64: bool, escaped: bool = False) -> bytes | None:
    """The first bytes of a file that is here in pieces, about `size` of them, or fewer where much stands between its
    base64.

    None for what is no base64; written for looking, not for telling what is wrong, so it takes every spelling.
    """
    needed = size * 4 // 3 + 4 if base64 else size
    content = _start(pieces, needed + 1)
    head = content[:needed]
    if not base64:
        return head
    is_whole = len(head) == len(content)
    for written, meant in (*(ESCAPES if escaped else ()), *(PERCENT if b"%" in head else ())):
        head = head.replace(written, meant)
    head = head.translate(URL_SAFE, WHITESPACE)
    if not head:
        return b""
    head = head.rstrip(b"=") if is_whole else head.rstrip(b"\\%")  # half of an escape is of no use
    if not is_whole:
        head = head[: len(head) // 4 * 4]
    if not head:
        return None
    try:
        return pybase64.b64decode(head + b"=" * (-len(head) % 4), validate=True)
    except ValueError:
        return None


def _start(pieces: Sequence[bytes], size: int) -> bytes:
    """At least the first `size` bytes, if there are so many."""
    count, found = 0, 0
    while count < len(pieces) and found < size:
        found += len(pieces[count])
        count += 1
    return b"".join(pieces[:count]) if count != 1 else pieces[0]
