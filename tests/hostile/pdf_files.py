"""Makes PDF files out of objects written by hand."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from typing import Final

from tests.hostile.packing import MIB, repeated

FONT: Final = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"
WORDS: Final = b"BT /F 24 Tf 20 40 Td (Hello) Tj ET"
A6: Final = b"[0 0 298 420]"


def stream(content: bytes, entries: bytes = b"") -> bytes:
    return b"<< /Length %d %b >>\nstream\n%b\nendstream" % (len(content), entries, content)


def packed(content: bytes, times: int = 1) -> bytes:
    """A stream packed so many times."""
    for _ in range(times):
        content = zlib.compress(content, 9)
    return stream(content, b"/Filter [" + b"/FlateDecode " * times + b"]")


def many(piece: bytes, mebibytes: int) -> bytes:
    """A packed stream of so many MiB of one piece."""
    whole = piece * (MIB // len(piece))
    return stream(repeated(whole, mebibytes), b"/Filter /FlateDecode")


def written(objects: Mapping[int, bytes], trailer: bytes = b"") -> bytes:
    """A file with a right table of its objects; object 1 is the catalogue."""
    content = b"%PDF-1.7\n"
    places = {}
    for number, one in objects.items():
        places[number] = len(content)
        content += b"%d 0 obj\n%b\nendobj\n" % (number, one)
    size = max(objects) + 1
    table = len(content)
    content += b"xref\n0 %d\n0000000000 65535 f \n" % size
    for number in range(1, size):
        content += b"%010d 00000 %b \n" % (places.get(number, 0), b"n" if number in places else b"f")
    return content + b"trailer\n<< /Size %d /Root 1 0 R %b >>\nstartxref\n%d\n%%%%EOF\n" % (size, trailer, table)


def page(
    contents: bytes = WORDS,
    *,
    box: bytes = A6,
    resources: bytes = b"/Font << /F 9 0 R >>",
    more: bytes = b"",
    catalogue: bytes = b"",
    others: Mapping[int, bytes] | None = None,
    packed_contents: bytes | None = None,
    trailer: bytes = b"",
) -> bytes:
    """A PDF of one page; `more` stands in the page, `catalogue` in the catalogue."""
    objects = {
        1: b"<< /Type /Catalog /Pages 2 0 R %b >>" % catalogue,
        2: b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        3: b"<< /Type /Page /Parent 2 0 R /MediaBox %b /Contents 4 0 R /Resources << %b >> %b >>"
        % (box, resources, more),
        4: stream(contents) if packed_contents is None else packed_contents,
        9: FONT,
        **(others or {}),
    }
    return written(objects, trailer)


def pages(count: int, box: bytes = A6) -> bytes:
    """A PDF of so many pages, each with its number."""
    kids = b" ".join(b"%d 0 R" % (10 + 2 * number) for number in range(count))
    objects = {
        1: b"<< /Type /Catalog /Pages 2 0 R >>",
        2: b"<< /Type /Pages /Kids [%b] /Count %d >>" % (kids, count),
        9: FONT,
    }
    for number in range(count):
        contents = b"BT /F 24 Tf 20 40 Td (%d) Tj ET" % number
        one = b"<< /Type /Page /Parent 2 0 R /MediaBox %b /Contents %d 0 R /Resources << /Font << /F 9 0 R >> >> >>"
        objects[10 + 2 * number] = one % (box, 11 + 2 * number)
        objects[11 + 2 * number] = stream(contents)
    return written(objects)


def tree(kids: Sequence[bytes], count: int) -> bytes:
    """A PDF whose tree of pages is as it is told; object 3 is a right page."""
    return written(
        {
            1: b"<< /Type /Catalog /Pages 2 0 R >>",
            2: b"<< /Type /Pages /Kids [%b] /Count %d >>" % (b" ".join(kids), count),
            3: b"<< /Type /Page /Parent 2 0 R /MediaBox %b >>" % A6,
            5: b"<< /Type /Pages /Parent 2 0 R /Kids [2 0 R 5 0 R] /Count 9 >>",
        }
    )


# ---- Encryption: PDF 32000-1, 7.6.3, revision 2 (40 bits) ----------------------------------------------

PADDING: Final = bytes.fromhex("28bf4e5e4e758a4164004e56fffa01082e2e00b6d0683e802f0ca9fe6453697a")


def encrypted(password: bytes) -> bytes:
    """One page, behind a password for its reader; the empty one opens by itself."""
    padded = (password + PADDING)[:32]
    owner = _rc4(hashlib.md5(padded, usedforsecurity=False).digest()[:5], padded)
    identity = b"0123456789abcdef"
    permissions = (0xFFFFFFFC).to_bytes(4, "little")
    key = hashlib.md5(padded + owner + permissions + identity, usedforsecurity=False).digest()[:5]
    user = _rc4(key, PADDING)
    content = _rc4(hashlib.md5(key + b"\4\0\0\0\0", usedforsecurity=False).digest()[:10], WORDS)
    trailer = b"/Encrypt 8 0 R /ID [<%b> <%b>]" % (identity.hex().encode(), identity.hex().encode())
    entry = b"<< /Filter /Standard /V 1 /R 2 /O <%b> /U <%b> /P -4 >>"
    return page(content, others={8: entry % (owner.hex().encode(), user.hex().encode())}, trailer=trailer)


def _rc4(key: bytes, content: bytes) -> bytes:
    state = list(range(256))
    other = 0
    for index in range(256):
        other = (other + state[index] + key[index % len(key)]) % 256
        state[index], state[other] = state[other], state[index]
    result = bytearray()
    index = other = 0
    for byte in content:
        index = (index + 1) % 256
        other = (other + state[index]) % 256
        state[index], state[other] = state[other], state[index]
        result.append(byte ^ state[(state[index] + state[other]) % 256])
    return bytes(result)
