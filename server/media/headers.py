"""The size of a picture from its first bytes, for guessing what a request will cost. Nothing is decoded.

Only what is nearly all that comes, JPEG and PNG, and nothing that could go wrong: whoever decodes looks for itself.
"""

from __future__ import annotations

import struct

PNG = b"\x89PNG\r\n\x1a\n"
PNG_SIZE = struct.Struct(">16x2I")
"""Width and height in the IHDR chunk, which comes first (PNG specification, 5.6 and 11.2.2)."""
JPEG = b"\xff\xd8"
JPEG_SEGMENT = struct.Struct(">xBH")
"""Marker and length of a segment (ITU-T T.81, B.1.1.4)."""
JPEG_FRAME = struct.Struct(">5x2H")
"""Height and width in the segment that begins a frame (T.81, B.2.2)."""
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers that begin a frame: SOF0 to SOF15, apart from DHT, JPG and DAC, which lie between."""


def size_in_header(head: bytes) -> tuple[int, int] | None:
    """Width and height in pixels, as stored; None where the head does not tell."""
    try:
        if head.startswith(PNG):
            width, height = PNG_SIZE.unpack_from(head)
        elif head.startswith(JPEG):
            height, width = _jpeg_frame(head)
        else:
            return None
    except struct.error:  # it ends too early
        return None
    return (width, height) if width and height else None


def _jpeg_frame(head: bytes) -> tuple[int, int]:
    position = len(JPEG)
    while True:
        marker, length = JPEG_SEGMENT.unpack_from(head, position)
        if marker in FRAMES:
            height, width = JPEG_FRAME.unpack_from(head, position)
            return height, width
        position += 2 + length
