"""Ways to damage a file. Half of them know how files are built, so that the damage gets past the first check."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Sequence
from random import Random
from typing import Literal

NUMBERS = (0, 1, 2, 3, 7, 8, 16, 31, 32, 63, 64, 127, 128, 255, 256, 1023, 32767, 32768, 65535, 65536, 2**24 - 1)
LARGE_NUMBERS = (*NUMBERS, 2**31 - 1, 2**31, 2**32 - 1, 2**32 - 8, 2**63 - 1, 2**64 - 1)
"""Where counters turn over and limits lie."""
WRITTEN_NUMBERS = (
    b"0",
    b"-1",
    b"1",
    b"65535",
    b"65536",
    b"2147483647",
    b"-2147483648",
    b"4294967296",
    b"1e9",
    b".00001",
)
"""The same, as PDF writes them."""
LARGEST = 1 << 20
"""Bytes of a damaged file, so that what is tried are many files and not large ones."""


def damaged(data: bytes, others: Sequence[bytes], chance: Random) -> bytes:
    """`data` after one to six kinds of damage; parts of `others` may get into it."""
    for _ in range(chance.choice((1, 1, 1, 2, 2, 3, 4, 6))):
        way = chance.choice(_GENERAL) if chance.random() < 0.5 else _in_pieces
        data = way(data, others, chance)[:LARGEST] or b"\0"
    return data


# ---- Damage to bytes --------------------------------------------------------------------------------


def _place(data: bytes, chance: Random) -> int:
    # Headers stand at the beginning.
    return chance.randrange(min(len(data), 64)) if chance.random() < 0.3 else chance.randrange(len(data))


def _range(data: bytes, chance: Random) -> tuple[int, int]:
    start = _place(data, chance)
    return start, min(len(data), start + chance.choice((1, 2, 4, 8, 32, 256, len(data))))


def _flip(data: bytes, _others: Sequence[bytes], chance: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        changed[_place(data, chance)] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _overwrite(data: bytes, _others: Sequence[bytes], chance: Random) -> bytes:
    start, end = _range(data, chance)
    filling = chance.choice((bytes(1), b"\xff", chance.randbytes(7)))
    return data[:start] + (filling * (end - start))[: end - start] + data[end:]


def _number(data: bytes, _others: Sequence[bytes], chance: Random) -> bytes:
    start, size = _place(data, chance), chance.choice((1, 2, 3, 4, 8))
    value: int = chance.choice(LARGE_NUMBERS) % (1 << 8 * size)
    return data[:start] + value.to_bytes(size, chance.choice(("big", "little"))) + data[start + size :]


def _written_number(data: bytes, _others: Sequence[bytes], chance: Random) -> bytes:
    found = [match.span() for match in re.finditer(rb"\d+", data)]
    if not found:
        return data
    start, end = chance.choice(found)
    return data[:start] + chance.choice(WRITTEN_NUMBERS) + data[end:]


def _delete(data: bytes, _others: Sequence[bytes], chance: Random) -> bytes:
    start, end = _range(data, chance)
    return data[:start] + data[end:]


def _cut_off(data: bytes, _others: Sequence[bytes], chance: Random) -> bytes:
    return data[: chance.randrange(len(data)) + 1]


def _repeat(data: bytes, _others: Sequence[bytes], chance: Random) -> bytes:
    start, end = _range(data, chance)
    return data[:end] + data[start:end] * chance.choice((1, 2, 10, 1000)) + data[end:]


def _splice(data: bytes, others: Sequence[bytes], chance: Random) -> bytes:
    other = chance.choice(others)
    return data[: _place(data, chance)] + other[_place(other, chance) :]


def _insert(data: bytes, others: Sequence[bytes], chance: Random) -> bytes:
    other, at = chance.choice(others), _place(data, chance)
    start, end = _range(other, chance)
    return data[:at] + other[start:end] + data[at:]


Damage = Callable[[bytes, Sequence[bytes], Random], bytes]
_GENERAL: tuple[Damage, ...] = (
    _flip,
    _overwrite,
    _number,
    _written_number,
    _delete,
    _cut_off,
    _repeat,
    _splice,
    _insert,
)


# ---- Damage to the pieces that a file is made of ----------------------------------------------------


def _in_pieces(data: bytes, others: Sequence[bytes], chance: Random) -> bytes:
    """Drop, double, swap or damage whole pieces, and put the file together again as its format wants it."""
    fitting = next((ways for signature, ways in _FORMATS.items() if signature.match(data)), None)
    if fitting is None:
        return data
    split, join = fitting
    pieces = split(data)
    at, other = chance.randrange(len(pieces)), chance.randrange(len(pieces))
    match chance.randrange(6):
        case 0:
            del pieces[at]
        case 1:
            pieces.insert(other, pieces[at])
        case 2:
            pieces[at], pieces[other] = pieces[other], pieces[at]
        case 3:
            pieces[at:at] = [pieces[at]] * chance.choice((1, 10, 300))
        case _:
            pieces[at] = chance.choice(_GENERAL)(pieces[at] or b"\0", others, chance)
    return join(pieces)


def _plain(pieces: Sequence[bytes]) -> bytes:
    return b"".join(pieces)


def _segments(data: bytes) -> list[bytes]:
    """JPEG: from marker to marker."""
    return re.split(rb"(?=\xff[\xc0-\xcf\xd8-\xfe])", data)


def _chunks(data: bytes) -> list[bytes]:
    """PNG: type and body of each chunk; the first is the signature."""
    pieces, position = [data[:8]], 8
    while position + 8 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        pieces.append(data[position + 4 : position + 8 + length])
        position += 12 + length
    return pieces


def _with_checksums(pieces: Sequence[bytes]) -> bytes:
    signature, *chunks = pieces or [b""]
    whole = [struct.pack(">I", max(0, len(one) - 4)) + one + struct.pack(">I", zlib.crc32(one)) for one in chunks]
    return signature + b"".join(whole)


def _riff(data: bytes) -> list[bytes]:
    """WEBP and AVI: type and body of each chunk on top; the first is the header."""
    pieces, position = [data[:12]], 12
    while position + 8 <= len(data):
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        pieces.append(data[position : position + 4] + data[position + 8 : position + 8 + length])
        position += 8 + length + length % 2
    return pieces


def _with_sizes(pieces: Sequence[bytes]) -> bytes:
    header, *chunks = pieces or [b""]
    body = b"".join(one[:4] + struct.pack("<I", max(0, len(one) - 4)) + one[4:] + bytes(len(one) % 2) for one in chunks)
    return header[:4] + struct.pack("<I", len(body) + 4) + header[8:] + body


def _boxes(data: bytes) -> list[bytes]:
    """MP4, HEIC and AVIF: boxes, with those inside `moov` and the like on their own; their sizes stay as they are."""
    movie = rb"ftyp|moov|mvhd|trak|tkhd|mdia|mdhd|hdlr|minf|stbl|st[a-z]{2}|mdat|edts|elst"
    picture = rb"meta|pitm|iloc|iinf|infe|iref|idat|iprp|ipco|ipma|ispe|pixi|irot|imir|clap|auxC|hvcC|av1C|colr"
    return re.split(rb"(?s)(?=....(?:" + movie + rb"|" + picture + rb"))", data)


def _blocks(data: bytes) -> list[bytes]:
    """GIF: extensions and frames."""
    return re.split(rb"(?=!\xf9\x04|!\xfe|!\xff\x0b|,\0\0)", data)


def _entries(data: bytes) -> list[bytes]:
    """TIFF: the entries of the first directory, and what stands before and behind them."""
    order: Literal["little", "big"] = "little" if data[:1] == b"I" else "big"
    start = int.from_bytes(data[4:8], order) + 2
    end = start + 12 * int.from_bytes(data[start - 2 : start], order)
    return [data[:start], *(data[at : at + 12] for at in range(start, min(end, len(data)), 12)), data[end:]]


def _fields(data: bytes) -> list[bytes]:
    """BMP: the numbers of its headers, and the rest."""
    return [data[:2], *(data[at : at + 4] for at in range(2, 54, 4)), data[54:]]


def _packets(data: bytes) -> list[bytes]:
    """A transport stream."""
    return [data[at : at + 188] for at in range(0, len(data), 188)]


def _codes(data: bytes) -> list[bytes]:
    """An MPEG stream: from start code to start code."""
    return re.split(rb"(?=\0\0\x01[\xb0-\xef])", data)


def _objects(data: bytes) -> list[bytes]:
    """PDF: objects and tokens."""
    return re.split(rb"(?<=endobj\n)|(?=/[A-Z])|(?<= )", data)


_FORMATS: dict[re.Pattern[bytes], tuple[Callable[[bytes], list[bytes]], Callable[[Sequence[bytes]], bytes]]] = {
    re.compile(rb"\xff\xd8"): (_segments, _plain),
    re.compile(rb"\x89PNG"): (_chunks, _with_checksums),
    re.compile(rb"RIFF"): (_riff, _with_sizes),
    re.compile(rb"(?s)....ftyp"): (_boxes, _plain),
    re.compile(rb"GIF8"): (_blocks, _plain),
    re.compile(rb"II\*\0|MM\0\*"): (_entries, _plain),
    re.compile(rb"BM"): (_fields, _plain),
    re.compile(rb"(?s)G.{187}G"): (_packets, _plain),
    re.compile(rb"\0\0\x01\xba"): (_codes, _plain),
    re.compile(rb"%PDF"): (_objects, _plain),
}
