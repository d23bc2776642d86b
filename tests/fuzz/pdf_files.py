"""PDF files written by hand, small enough to read and to damage."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle

PAGE = b"0 0 200 100"
"""Width and height in points of a page, unless another is asked for."""
PADDING = bytes.fromhex("28bf4e5e4e758a4164004e56fffa01082e2e00b6d0683e802f0ca9fe6453697a")
"""What an empty password is padded with (ISO 32000-1, algorithm 2)."""


def stream(content: bytes, entries: bytes = b"", *, packed: bool = False) -> bytes:
    """A stream object."""
    if packed:
        content, entries = zlib.compress(content), entries + b"/Filter/FlateDecode"
    return b"<<%b/Length %d>>stream\n%b\nendstream" % (entries, len(content), content)


def form(content: bytes, entries: bytes = b"", box: bytes = PAGE) -> bytes:
    """A form XObject: a piece of a page that can be drawn again and again."""
    return stream(content, b"/Type/XObject/Subtype/Form/BBox[%b]%b" % (box, entries))


def assemble(objects: Mapping[int, bytes], trailer: bytes = b"") -> bytes:
    """A file of these objects with its cross-reference table; object 1 is the catalogue."""
    file, places = b"%PDF-1.7\n", {}
    for number, content in objects.items():
        places[number] = len(file)
        file += b"%d 0 obj\n%b\nendobj\n" % (number, content)
    size = max(objects) + 1
    table = b"".join(
        b"%010d 00000 n \n" % places[number] if number in places else b"0000000000 65535 f \n" for number in range(size)
    )
    end = b"trailer<</Size %d/Root 1 0 R%b>>\nstartxref\n%d\n%%%%EOF\n" % (size, trailer, len(file))
    return file + b"xref\n0 %d\n" % size + table + end


def document(
    *pages: bytes,
    box: bytes = PAGE,
    page: bytes = b"",
    catalogue: bytes = b"",
    more: Sequence[bytes] = (),
    trailer: bytes = b"",
) -> bytes:
    """Pages with this content, each with the entries `page`; the objects `more` are numbered from 10."""
    first = 10 + len(more)
    numbers = range(first, first + 2 * len(pages), 2)
    objects = {
        1: b"<</Type/Catalog/Pages 2 0 R%b>>" % catalogue,
        2: b"<</Type/Pages/Count %d/Kids[%b]>>" % (len(pages), b" ".join(b"%d 0 R" % number for number in numbers)),
        **dict(enumerate(more, 10)),
    }
    for number, content in zip(numbers, pages, strict=True):
        head = b"<</Type/Page/Parent 2 0 R/MediaBox[%b]/Contents %d 0 R%b>>" % (box, number + 1, page)
        objects |= {number: head, number + 1: stream(content)}
    return assemble(objects, trailer)


def encrypted(content: bytes, password: bytes = b"") -> bytes:
    """One page under a password for changing it, and perhaps one for reading it (ISO 32000-1, 7.6: RC4, 40 bits)."""
    owner, allowed, name = bytes(range(32)), b"\xfc\xff\xff\xff", bytes(16)
    key = _md5((password + PADDING)[:32] + owner + allowed + name)[:5]
    user = _rc4(key, PADDING)  # algorithm 4
    scrambled = _rc4(_md5(key + (11).to_bytes(3, "little") + b"\0\0")[:10], content)
    rules = b"<</Filter/Standard/V 1/R 2/O<%b>/U<%b>/P -4>>" % (owner.hex().encode(), user.hex().encode())
    trailer = b"/Encrypt %b/ID[<%b><%b>]" % (rules, name.hex().encode(), name.hex().encode())
    return document(scrambled, trailer=trailer)


def locked(rules: bytes = b"/Filter/Standard/V 1/R 2/P -4") -> bytes:
    """One page that nobody can read without a password."""
    hashes = b"/O<%b>/U<%b>" % (b"11" * 32, b"22" * 32)
    return document(b"", trailer=b"/Encrypt<<%b%b>>/ID[<%b><%b>]" % (rules, hashes, b"00" * 16, b"00" * 16))


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()


def _rc4(key: bytes, data: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(data, _key_stream(key), strict=False))


def _key_stream(key: bytes) -> Iterator[int]:
    state, j = list(range(256)), 0
    for i, byte in zip(range(256), cycle(key), strict=False):
        j = (j + state[i] + byte) % 256
        state[i], state[j] = state[j], state[i]
    i = j = 0
    while True:
        i = (i + 1) % 256
        j = (j + state[i]) % 256
        state[i], state[j] = state[j], state[i]
        yield state[(state[i] + state[j]) % 256]
