"""Bytes of a picture file -> an upright RGB picture: JPEG, PNG, WEBP and GIF, nothing else.

In two phases, so that the size a picture is wanted in can be chosen before its pixels cost anything: `open_picture`
reads the header and refuses what it can, `PictureFile.pixels` decodes.

Pixels at full scale are those of Pillow, with which the reference (qwen-vl-utils) opens its pictures. Two things differ
on purpose: the orientation in EXIF or XMP is applied, since people send photographs as they look at them, and every
kind of transparency goes onto white, not RGBA alone. Plain JPEGs take the shorter way through simplejpeg: libjpeg-turbo
with Pillow's settings, hence the same pixels, without Pillow's copies.

The headers are read here and not by Pillow, whose readers are loops in Python that a file of a million tiny segments
keeps busy for seconds, and which unpack metadata that nobody asked for. Pillow is handed what the picture is made of,
without comments, profiles, previews and texts.
"""

from __future__ import annotations

import io
import itertools
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from server.errors import ImageCode, InvalidImage
from server.media.decoding.orientation import EXIF, XMP, Orientation
from server.media.limits import DecodeLimits

Pixels = NDArray[np.uint8]
Range = tuple[int, int]
"""Bytes of a file: the first, and the first after it."""

JPEG, PNG = JpegImagePlugin.JpegImageFile.format, PngImagePlugin.PngImageFile.format
WEBP, GIF = WebPImagePlugin.WebPImageFile.format, GifImagePlugin.GifImageFile.format
MAX_SCANS = 50
"""Scans of a progressive JPEG; real ones have about 10, and each may cost a pass over the whole picture."""
OVERSAMPLING = 2
"""Both sides of a JPEG that is decoded at a reduced scale keep at least so many times the size it is wanted in.

At 2 the resized picture differs from one decoded in full by less than bicubic differs from Lanczos: 50 dB in
photographs, 40 dB in small print (there 37 between the filters). At 1.5 print falls to 32 dB.
"""
SCALES = (8, 4, 2)
"""Denominators at which libjpeg decodes faster than in full."""

# Pillow warns or fails by a limit of its own, by way of global state. `DecodeLimits` checks sooner and for each call.
Image.MAX_IMAGE_PIXELS = None

_OURS = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF.{4}WEBP", re.DOTALL)
_OTHERS = (
    (re.compile(rb"\s*(<\?xml[^>]*>\s*)?(<!--.{0,400}?-->\s*)?<svg", re.IGNORECASE | re.DOTALL), "an SVG drawing"),
    (re.compile(rb"\s*<(!doctype html|html|head|body)", re.IGNORECASE), "an HTML page"),
    (re.compile(rb"%PDF-"), "a PDF document"),
    (re.compile(rb"II\*\0|MM\0\*"), "a TIFF picture"),
    (re.compile(rb"BM.{12}", re.DOTALL), "a BMP picture"),
    (re.compile(rb".{4}ftyp(heic|heix|hevc|mif1|msf1)", re.DOTALL), "a HEIC picture"),
    (re.compile(rb".{4}ftyp(avif|avis)", re.DOTALL), "an AVIF picture"),
    (re.compile(rb".{4}ftyp", re.DOTALL), "an MP4 video"),
    (re.compile(rb"8BPS"), "a Photoshop document"),
    (re.compile(rb"%!PS"), "a PostScript document"),
)
_DAMAGED: Final = "The picture file is damaged or cut off."


@dataclass(frozen=True, slots=True)
class Header:
    """What a picture file says of itself: its size in pixels as stored, and how to turn it upright.

    `kept` is what the picture is made of, in order; the rest of the file is metadata and rubbish. `plain` marks a JPEG
    that simplejpeg decodes as Pillow does.
    """

    format: str
    width: int
    height: int
    kept: tuple[Range, ...]
    orientation: int = 1
    plain: bool = False


@dataclass(frozen=True, slots=True)
class PictureFile:
    """A picture file that may be decoded: its header is read, its pixels are not."""

    width: int
    """Pixels across the upright picture."""
    height: int
    _data: bytes
    _header: Header
    _scaled: bool
    _param: str | None

    def pixels(self, height: int | None = None, width: int | None = None) -> Pixels:
        """The first frame, upright, as uint8 [H, W, 3] in RGB, C-contiguous, transparency on white. May be read-only.

        `height` and `width` are what it will be resized to. With them, and where the limits allow it, a JPEG comes out
        at 1/2, 1/4 or 1/8 of its size: at the smallest of these that divides its sides without remainder and keeps
        both at least OVERSAMPLING times what is wanted. (With a remainder the last pixel would stand for less than the
        others, and resizing would shift print by a fifth of a pixel: 34 dB.)

        Raises InvalidImage (image_parse_error) for a damaged file, and MemoryError when the machine has no memory for
        an allowed picture.
        """
        pixels = self._by_simplejpeg(self._scale(height, width)) if self._header.plain else None
        return _turned(self._by_pillow() if pixels is None else pixels, self._header.orientation)

    def _scale(self, height: int | None, width: int | None) -> int:
        if height is None or width is None or not self._scaled:
            return 1
        least_height, least_width = OVERSAMPLING * height, OVERSAMPLING * width
        for scale in SCALES:
            whole = self.height % scale == 0 and self.width % scale == 0
            if whole and self.height >= scale * least_height and self.width >= scale * least_width:
                return scale
        return 1

    def _by_simplejpeg(self, scale: int) -> Pixels | None:
        """The pixels as stored, or None where the file is not quite in order: Pillow decides on such a file."""
        size = self._header.height // scale, self._header.width // scale
        try:
            pixels: Pixels = simplejpeg.decode_jpeg(self._data, "RGB", min_height=size[0], min_width=size[1])
        except ValueError:
            return None
        return pixels if pixels.shape == (*size, 3) else None

    def _by_pillow(self) -> Pixels:
        header, view = self._header, memoryview(self._data)
        picture = self._data if header.kept == ((0, len(view)),) else b"".join(view[a:b] for a, b in header.kept)
        try:
            with Image.open(io.BytesIO(picture), formats=(header.format,)) as image:
                if image.size != (header.width, header.height):
                    raise ValueError("Pillow reads another size than we do")
                image.decodermaxblock = len(picture)  # in pieces, fill bytes of a JPEG would be read again for each
                image.load()
                return np.asarray(_to_rgb(image))
        except MemoryError:
            raise
        except Exception as error:  # Pillow's decoders raise nearly anything on hostile bytes
            raise InvalidImage(_DAMAGED, code="image_parse_error", param=self._param) from error


def open_picture(data: bytes, limits: DecodeLimits, *, param: str | None = None) -> PictureFile:
    """A JPEG, PNG, WEBP or GIF file as far as its header, after every check that needs no pixels.

    Takes a millisecond, and for a hostile file of 20 MB less than half a second.

    Raises InvalidImage with `param`: empty_image_file, unsupported_image_media_type (another format that we recognise),
    invalid_image_format (nothing that we recognise), image_too_large (more pixels than `limits`), image_parse_error
    (damaged, cut off, or built to be slow).
    """

    def refuse(message: str, code: ImageCode) -> InvalidImage:
        return InvalidImage(message, code=code, param=param)

    if not data:
        raise refuse("The picture file is empty.", "empty_image_file")
    signature = _OURS.match(data)
    if signature is None:
        for pattern, name in _OTHERS:
            if pattern.match(data):
                raise refuse(f"The file is {name}: send JPEG, PNG, WEBP or GIF.", "unsupported_image_media_type")
        raise refuse("The file is not a JPEG, PNG, WEBP or GIF picture.", "invalid_image_format")
    try:
        header = _READERS[signature[0][:4]](data)
    except _Refusal as refusal:
        raise refuse(str(refusal), "image_parse_error") from None
    except (IndexError, struct.error):
        raise refuse(_DAMAGED, "image_parse_error") from None
    width, height = header.width, header.height
    if width * height > limits.max_pixels:
        message = f"The picture is {width}x{height} pixels, more than the {limits.max_pixels} allowed."
        raise refuse(message, "image_too_large")
    if width * height == 0:
        raise refuse("The picture has no pixels.", "image_parse_error")
    if _TURNS[header.orientation][2]:
        width, height = height, width
    return PictureFile(width, height, data, header, limits.scaled_decoding, param)


# ---- Colours and orientation ------------------------------------------------------------------------

_TURNS: Final[dict[int, tuple[int, int, bool]]] = {
    1: (1, 1, False),
    2: (1, -1, False),
    3: (-1, -1, False),
    4: (-1, 1, False),
    5: (1, 1, True),
    6: (-1, 1, True),
    7: (-1, -1, True),
    8: (1, -1, True),
}
"""EXIF orientation -> steps through the rows and columns of the stored picture, and whether they then change places."""


def _turned(pixels: Pixels, orientation: int) -> Pixels:
    if orientation == 1:
        return pixels
    rows, columns, transposed = _TURNS[orientation]
    # Three bytes as one item: half the time of copying them one by one.
    whole = np.ascontiguousarray(pixels).view("V3")[::rows, ::columns, 0]
    return np.ascontiguousarray(whole.T if transposed else whole)[..., None].view(np.uint8)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):  # 16-bit grey: Pillow would clip it at 255 instead of scaling
        deep = np.asarray(image)
        grey = (deep >> 8).astype(np.uint8)
        grey[deep == image.info.get("transparency", -1)] = 255
        return Image.fromarray(grey).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    layered = image.convert("RGBA")
    white = Image.new("RGB", image.size, (255, 255, 255))
    white.paste(layered, mask=layered.getchannel("A"))
    return white


# ---- Headers ----------------------------------------------------------------------------------------

_START_OF_SCAN, _APP0, _APP1, _APP14, _APP15, _COMMENT = 0xDA, 0xE0, 0xE1, 0xEE, 0xEF, 0xFE
_FRAMES = frozenset({*range(0xC0, 0xD0), 0xDE} - {0xC4, 0xC8, 0xCC})
"""Markers of JPEG segments that tell the size: SOF0 to SOF15, and DHP."""
_PLAIN_FRAMES = frozenset({0xC0, 0xC1, 0xC2})
"""Those of pictures in Huffman code: baseline, extended and progressive."""
_SEGMENT = re.compile(rb"\xff([\xc0-\xc7\xc9-\xcf\xda-\xef\xfe])")
"""A marker with a segment, where Pillow looks for one."""
_SEGMENT_OR_END = re.compile(rb"\xff([\xc0-\xc7\xc9-\xcf\xd9-\xef\xfe])")
_SCAN = re.compile(rb"\xff\xda")
_MAX_TABLES = 1 << 16
"""Bytes of a JPEG's header that are no metadata: all tables that the standard allows take 3 KB, the rest is rubbish."""
_PNG_KEPT = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_PNG_TEXTS = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_GIF_BLOCK = re.compile(rb"[!,;]")
_MAX_RUBBISH = 1 << 16
"""Bytes between two blocks of a GIF, where none belong."""
_GRAPHIC_CONTROL = 0xF9


class _Refusal(Exception):
    """Why a file is not worth decoding, in a sentence."""


def _most_pieces(data: bytes) -> int:
    """Into how many segments, chunks or blocks a file may be cut; each costs a step of a loop in Python.

    Real files are cut into pieces of 8 KB and more, with a few hundred small ones.
    """
    return 10_000 + len(data) // 1024


def _too_many_pieces() -> _Refusal:
    return _Refusal("The picture file is cut into more pieces than any real one.")


def _read_jpeg(data: bytes) -> Header:
    """Segments up to the first scan (ISO 10918-1, annex B)."""
    kept: list[Range] = [(0, 2)]
    frame: tuple[int, int, int, int] | None = None
    orientation, spent, start, position = Orientation(), 0, 0, 2
    for _ in range(_most_pieces(data)):
        marker = _SEGMENT.search(data, position, position + _MAX_TABLES)
        if marker is None or spent > _MAX_TABLES:
            raise _Refusal(_DAMAGED)
        start, body = marker.start(), marker.end() + 2
        kind, length = data[start + 1], int.from_bytes(data[marker.end() : body], "big")
        spent += start - position
        position = marker.end() + max(2, length)
        if kind == _START_OF_SCAN:
            break
        if kind == _APP1 and data.startswith(EXIF, body):
            orientation.add_exif(memoryview(data)[body:position])
        elif kind == _APP1 and data.startswith(XMP, body):
            orientation.add_xmp(memoryview(data)[body:position])
        if kind == _COMMENT or (_APP0 < kind <= _APP15 and kind != _APP14):  # APP0 and APP14 tell the colours
            continue
        kept.append((start, position))
        spent += position - start
        if kind in _FRAMES:
            if frame is not None:
                raise _Refusal(_DAMAGED)
            bits, height, width, components = struct.unpack_from(">BHHB", data, body)
            frame = width, height, kind if bits == 8 else 0, components
    else:
        raise _too_many_pieces()
    if frame is None:
        raise _Refusal(_DAMAGED)
    if _has_too_many_scans(data, start):
        raise _Refusal(f"The JPEG picture has more than {MAX_SCANS} scans.")
    width, height, kind, components = frame
    plain = kind in _PLAIN_FRAMES and components in (1, 3)
    return Header(JPEG, width, height, (*kept, (start, len(data))), orientation.value, plain)


def _has_too_many_scans(data: bytes, start: int) -> bool:
    """Whether the JPEG picture whose first scan begins at `start` has more than MAX_SCANS."""
    # Coded pixels never look like a marker, so this takes a millisecond and in nearly every file counts scans alone.
    if sum(1 for _ in itertools.islice(_SCAN.finditer(data, start), MAX_SCANS + 1)) <= MAX_SCANS:
        return False
    scans, position = 0, start
    for _ in range(_most_pieces(data)):
        marker = _SEGMENT_OR_END.search(data, position)
        if marker is None or marker[1] == b"\xd9":
            return False
        scans += marker[1] == b"\xda"
        if scans > MAX_SCANS:
            return True
        position = marker.end() + max(2, int.from_bytes(data[marker.end() : marker.end() + 2], "big"))
    raise _too_many_pieces()


def _read_png(data: bytes) -> Header:
    """Chunks (https://www.w3.org/TR/png-3/#5Chunk-layout). Those of animations go, so the default picture stays."""
    kept: list[Range] = [(0, 8)]
    orientation, position = Orientation(), 8
    if data[12:16] != b"IHDR":
        raise _Refusal(_DAMAGED)
    width, height = struct.unpack_from(">II", data, 16)
    chunk = struct.Struct(">I4s").unpack_from
    for _ in range(_most_pieces(data)):
        if position + 8 > len(data):
            break  # cut off; perhaps behind the last row
        length, kind = chunk(data, position)
        start, position = position, position + 12 + length
        if kind in _PNG_KEPT:
            if kept[-1][1] == start:
                kept[-1] = kept[-1][0], position
            else:
                kept.append((start, position))
            if kind == b"IEND":
                break
        elif kind == b"eXIf":
            orientation.add_exif(memoryview(data)[start + 8 : start + 8 + length])
        elif kind in _PNG_TEXTS:
            orientation.add_png_text(kind, memoryview(data)[start + 8 : start + 8 + length])
    else:
        raise _too_many_pieces()
    return Header(PNG, width, height, tuple(kept), orientation.value)


def _read_webp(data: bytes) -> Header:
    """RIFF chunks (RFC 9649): the size is in the first, EXIF behind the pixels."""
    first = data[12:16]
    if first == b"VP8X":
        low_width, high_width, low_height, high_height = struct.unpack_from("<HBHB", data, 24)
        width, height = (high_width << 16 | low_width) + 1, (high_height << 16 | low_height) + 1
    elif first == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif first == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    else:
        raise _Refusal(_DAMAGED)
    orientation, position = Orientation(), 12
    for _ in range(_most_pieces(data)):
        if position + 8 > len(data):
            break
        kind, length = struct.unpack_from("<4sI", data, position)
        if kind == b"EXIF":
            orientation.add_exif(memoryview(data)[position + 8 : position + 8 + length])
        elif kind == b"XMP ":
            orientation.add_xmp(memoryview(data)[position + 8 : position + 8 + length])
        position += 8 + length + length % 2
    else:
        raise _too_many_pieces()
    return Header(WEBP, width, height, ((0, len(data)),), orientation.value)


def _read_gif(data: bytes) -> Header:
    """Blocks up to the first frame (https://www.w3.org/Graphics/GIF/spec-gif89a.txt).

    A frame may reach beyond its screen: Pillow then enlarges the picture.
    """
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position = 13 + _palette_bytes(flags)
    kept: list[Range] = [(0, position)]
    pieces = _most_pieces(data)
    while pieces > 0:
        block = _GIF_BLOCK.search(data, position, position + _MAX_RUBBISH)
        if block is None or block[0] == b";":
            raise _Refusal(_DAMAGED)
        start = block.start()
        if block[0] == b",":
            left, top, across, down = struct.unpack_from("<4H", data, start + 1)
            kept.append((start, len(data)))
            return Header(GIF, max(width, left + across), max(height, top + down), tuple(kept))
        position = start + 2
        while data[position] and pieces > 0:
            position += data[position] + 1
            pieces -= 1
        pieces -= 1
        position += 1
        if data[start + 1] == _GRAPHIC_CONTROL and data[start + 2] >= 4:  # tells which colour is transparent
            kept.append((start, position))
    raise _too_many_pieces()


def _palette_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


_READERS: Final[dict[bytes, Callable[[bytes], Header]]] = {
    b"\xff\xd8\xff": _read_jpeg,
    b"\x89PNG": _read_png,
    b"RIFF": _read_webp,
    b"GIF8": _read_gif,
}


def sample(kind: str) -> bytes:
    """A small file of a format, by Pillow's name for it; of GIF with two frames."""
    target = io.BytesIO()
    first, second = Image.new("RGB", (64, 64), "red"), Image.new("RGB", (64, 64), "blue")
    more = {"save_all": True, "append_images": [second], "duration": 500} if kind == "GIF" else {}
    first.save(target, kind, **more)
    return target.getvalue()
