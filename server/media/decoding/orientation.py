"""How a picture file asks to be turned: in EXIF, in XMP, or in EXIF as old ImageMagick wrote it into PNG files.

Read as Pillow's `ImageOps.exif_transpose` reads them, which is how vLLM's server turns pictures: the EXIF data count if
they name an orientation, otherwise XMP does. Damaged metadata does not spoil a picture.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import Final

EXIF: Final = b"Exif\0\0"
"""Before EXIF data in a JPEG, and in front of it in other files whose writers had it from there."""
XMP: Final = b"http://ns.adobe.com/xap/1.0/\0"
"""Before XMP data in a JPEG (XMP specification, part 3, 1.1.3)."""
XMP_KEYWORD: Final = b"XML:com.adobe.xmp\0"
"""The same in an iTXt chunk of a PNG (1.1.5)."""
RAW_PROFILES: Final = (b"Raw profile type exif\0", b"Raw profile type APP1\0")
"""The texts of a PNG in which ImageMagick keeps EXIF data in hexadecimal (its coders/png.c)."""
KEYWORD: Final = 80
"""Bytes of a keyword and what ends it, at most (PNG specification, 11.3.3)."""
MAX_TEXT: Final = 1 << 18
"""Bytes of metadata that are looked through, unpacked; the orientation stands at their beginning."""
MAX_TEXTS: Final = 4
"""Texts of a PNG that are looked through; each may unpack to a thousand times its size."""
_ORIENTATION: Final = 0x0112
_SHORT, _LONG = 3, 4
_IN_XMP = re.compile(rb"tiff:Orientation(?:=[\"']|>)([0-9])")
_HEAD_OF_PROFILE = re.compile(rb"\s*[A-Za-z0-9]{1,20}\s+[0-9]{1,12}\s")
"""Before the digits: the profile's name and how many bytes it has."""


class Orientation:
    """Gathers what a file says of its orientation, in the order in which it says so: the first of a kind counts."""

    def __init__(self) -> None:
        self._exif: int | None = None
        self._xmp: int | None = None
        self._texts = 0

    @property
    def value(self) -> int:
        """From 1 (upright) to 8, as EXIF counts."""
        return self._exif or self._xmp or 1

    def add_exif(self, data: bytes | memoryview) -> None:
        """EXIF data, with or without their prefix."""
        if self._exif is None:
            self._exif = read_orientation(data)

    def add_xmp(self, data: bytes | memoryview) -> None:
        """An XMP packet."""
        if self._xmp is None:
            found = _IN_XMP.search(data[:MAX_TEXT])
            self._xmp = int(found[1]) if found and b"1" <= found[1] <= b"8" else None

    def add_png_text(self, kind: bytes, data: memoryview) -> None:
        """A chunk of a PNG, tEXt, zTXt or iTXt, that may hold one or the other."""
        keyword = bytes(data[:KEYWORD]).partition(b"\0")[0] + b"\0"
        text = data[len(keyword) :]
        known = keyword == XMP_KEYWORD if kind == b"iTXt" else keyword in RAW_PROFILES
        if not known or self._texts == MAX_TEXTS:
            return
        self._texts += 1
        if kind == b"iTXt":
            self.add_xmp(_text_of_itxt(text))
        else:
            self.add_exif(_bytes_of_profile(_unpacked(text[1:]) if kind == b"zTXt" else bytes(text[:MAX_TEXT])))


def read_orientation(exif: bytes | memoryview) -> int | None:
    """The orientation in the first directory of EXIF data (TIFF 6.0, section 2); None where there is none.

    1 where it is not from 1 to 8.
    """
    tiff = exif[len(EXIF) :] if bytes(exif[: len(EXIF)]) == EXIF else exif
    try:
        order = {b"II": "<", b"MM": ">"}[bytes(tiff[:2])]
        directory: int = struct.unpack_from(f"{order}I", tiff, 4)[0]
        entries: int = struct.unpack_from(f"{order}H", tiff, directory)[0]
        entry = struct.Struct(f"{order}HHI").unpack_from
        for at in range(directory + 2, directory + 2 + 12 * entries, 12):
            tag, kind, count = entry(tiff, at)
            if tag == _ORIENTATION and count == 1 and kind in (_SHORT, _LONG):
                value: int = struct.unpack_from(order + ("H" if kind == _SHORT else "I"), tiff, at + 8)[0]
                return value if 1 <= value <= 8 else 1
    except (KeyError, struct.error):
        pass
    return None


def _text_of_itxt(data: memoryview) -> bytes:
    """What stands behind the keyword: whether it is packed, how, a language, the keyword in it, and then the text."""
    fields = bytes(data[2:MAX_TEXT]).split(b"\0", 2)
    text = fields[2] if len(fields) == 3 else b""
    return _unpacked(memoryview(text)) if bytes(data[:1]) == b"\1" else text


def _bytes_of_profile(text: bytes) -> bytes:
    head = _HEAD_OF_PROFILE.match(text)
    if head is None:
        return b""
    digits = text[head.end() :].translate(None, b" \r\n")
    try:
        return bytes.fromhex(digits[: len(digits) // 2 * 2].decode("ascii"))
    except ValueError:
        return b""


def _unpacked(data: memoryview) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, MAX_TEXT)
    except zlib.error:
        return b""
