"""The size of a picture from its first bytes, for guessing what a request will cost. Nothing is decoded.

Only what stands near the beginning, and nothing that could go wrong: whoever decodes looks for itself.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from server.media import formats

PNG_SIZE = struct.Struct(">16x2I")
"""Width and height in the IHDR chunk, which comes first (PNG specification, 5.6 and 11.2.2)."""
JPEG_START = 2
JPEG_SEGMENT = struct.Struct(">xBH")
"""Marker and length of a segment (ITU-T T.81, B.1.1.4)."""
JPEG_FRAME = struct.Struct(">5x2H")
"""Height and width in the segment that begins a frame (T.81, B.2.2)."""
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers that begin a frame: SOF0 to SOF15, apart from DHT, JPG and DAC, which lie between."""
GIF_SIZE = struct.Struct("<6x2H")
"""Of the logical screen (GIF89a, 18)."""
FILE_HEADER, OLD_DIB = 14, 12
"""Bytes of a bitmap file's header; of the oldest header behind it, whose numbers are short."""
SIZE_BOX = re.compile(rb"ispe\0\0\0\0(.{8})", re.DOTALL)
"""`ispe` of HEIF (ISO 23008-12, 6.5.3): width and height of a picture, of its tiles and of its previews."""
MAX_TIFF_ENTRIES = 200


def size_in_header(head: bytes) -> tuple[int, int] | None:
    """Width and height in pixels, as stored; None where the head does not tell."""
    found = formats.recognised(head)
    reader = found and READERS.get(found.plugin or found.name)
    if not reader:
        return None
    try:
        width, height = reader(head)
    except (struct.error, ValueError):  # it ends too early
        return None
    return (width, height) if width > 0 and height > 0 else None


def _jpeg(head: bytes) -> tuple[int, int]:
    position = JPEG_START
    while True:
        marker, length = JPEG_SEGMENT.unpack_from(head, position)
        if marker in FRAMES:
            height, width = JPEG_FRAME.unpack_from(head, position)
            return width, height
        position += 2 + length


def _png(head: bytes) -> tuple[int, int]:
    width, height = PNG_SIZE.unpack_from(head)
    return width, height


def _gif(head: bytes) -> tuple[int, int]:
    width, height = GIF_SIZE.unpack_from(head)
    return width, height


def _webp(head: bytes) -> tuple[int, int]:
    """RFC 9649: the size is in the first chunk, of which there are three kinds."""
    match head[12:16]:
        case b"VP8X":
            low_width, high_width, low_height, high_height = struct.unpack_from("<HBHB", head, 24)
            return (high_width << 16 | low_width) + 1, (high_height << 16 | low_height) + 1
        case b"VP8L":
            (bits,) = struct.unpack_from("<I", head, 21)
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case _:
            width, height = struct.unpack_from("<HH", head, 26)
            return width & 0x3FFF, height & 0x3FFF


def _bmp(head: bytes) -> tuple[int, int]:
    return _dib(head[FILE_HEADER:])


def _dib(head: bytes) -> tuple[int, int]:
    (size,) = struct.unpack_from("<I", head)
    width, height = struct.unpack_from("<HH" if size == OLD_DIB else "<ii", head, 4)
    return width, abs(height)


def _tiff(head: bytes) -> tuple[int, int]:
    """Of the first page, where its directory stands at the beginning (TIFF 6.0, section 2)."""
    order = "<" if head[:2] == b"II" else ">"
    (at,) = struct.unpack_from(order + "I", head, 4)
    (count,) = struct.unpack_from(order + "H", head, at)
    sides: dict[int, int] = {}
    for entry in range(at + 2, at + 2 + 12 * min(count, MAX_TIFF_ENTRIES), 12):
        tag, kind = struct.unpack_from(order + "HH", head, entry)
        if tag in (256, 257):
            (sides[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), head, entry + 8)
    return sides.get(256, 0), sides.get(257, 0)


def _heif(head: bytes) -> tuple[int, int]:
    sizes = [struct.unpack(">II", box[1]) for box in SIZE_BOX.finditer(head)]
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    return width, height


READERS: dict[str, Callable[[bytes], tuple[int, int]]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "GIF": _gif,
    "WEBP": _webp,
    "BMP": _bmp,
    "DIB": _dib,
    "TIFF": _tiff,
    "HEIC": _heif,
    "AVIF": _heif,
}
"""By Pillow's name for the format, or ours where Pillow has none."""
