"""Little that unpacks to much, made without packing all of it."""

from __future__ import annotations

import zlib
from typing import Final

MIB: Final = 1 << 20
END: Final = b"\x03\x00"
"""An empty last block."""


def repeated(piece: bytes, times: int) -> bytes:
    """`piece` so many times as zlib packs it, with the right checksum at the end."""
    checksum = zlib.adler32(b"")
    for _ in range(times):
        checksum = zlib.adler32(piece, checksum)
    return b"\x78\xda" + _block(piece) * times + END + checksum.to_bytes(4, "big")


def repeated_gzip(piece: bytes, times: int) -> bytes:
    """The same as gzip packs it; the checksum is wrong, which only who has unpacked all of it can tell."""
    return b"\x1f\x8b\x08" + bytes(6) + b"\xff" + _block(piece) * times + END + bytes(8)


def _block(piece: bytes) -> bytes:
    """Packed on its own: what follows refers to nothing in it, so it can be repeated."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(piece) + packer.flush(zlib.Z_FULL_FLUSH)
