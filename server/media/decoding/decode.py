"""Bytes of a picture file -> an upright RGB picture, for the formats that `formats` says become one.

In two phases, so that the size a picture is wanted in can be chosen before its pixels cost anything: `open_picture`
reads the header and refuses what it can, `PictureFile.pixels` decodes.

Pixels at full scale are those of Pillow, with which the reference (qwen-vl-utils) opens its pictures. Two things differ
on purpose: the orientation in EXIF or XMP is applied, since people send photographs as they look at them, and every
kind of transparency goes onto white, not RGBA alone. Plain JPEGs take the shorter way through simplejpeg: libjpeg-turbo
with Pillow's settings, hence the same pixels, without Pillow's copies.

The headers are read here and not by Pillow, whose readers are loops in Python that a file of a million tiny segments
keeps busy for seconds, and which unpack metadata that nobody asked for. Pillow is handed what the picture is made of,
without comments, profiles, previews and texts. HEIC and AVIF are read by libheif and libavif (see `heif`), and TIFF
files have pages (see `tiff`).
"""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from server.errors import InvalidImage
from server.media import formats
from server.media.decoding import heif, tiff
from server.media.decoding.orientation import EXIF, XMP, Orientation
from server.media.limits import DecodeLimits

Pixels = NDArray[np.uint8]
Range = tuple[int, int]
"""Bytes of a file: the first, and the first after it."""

JPEG, PNG = JpegImagePlugin.JpegImageFile.format, PngImagePlugin.PngImageFile.format
WEBP, GIF = WebPImagePlugin.WebPImageFile.format, GifImagePlugin.GifImageFile.format
TIFF = TiffImagePlugin.TiffImageFile.format
BMP, DIB = BmpImagePlugin.BmpImageFile.format, BmpImagePlugin.DibImageFile.format
HEIC, AVIF = "HEIC", "AVIF"
MAX_SCANS = 50
"""Scans of a progressive JPEG; real ones have about 10, and each may cost a pass over the whole picture."""
OVERSAMPLING = 2
"""Both sides of a JPEG that is decoded at a reduced scale keep at least so many times the size it is wanted in.

At 2 the resized picture differs from one decoded in full by less than bicubic differs from Lanczos: 50 dB in
photographs, 40 dB in small print (there 37 between the filters). At 1.5 print falls to 32 dB.
"""
SCALES = (8, 4, 2)
"""Denominators at which libjpeg decodes faster than in full."""
LEAST_SCALE = SCALES[-1]
"""At which a JPEG is decoded that is too large to be decoded in full; a larger one is refused. Twice the side of what
the limit allows: phones' pictures have 108 and 200 megapixels."""
LEAST_BLOCK = 1 << 16
"""Bytes that Pillow hands to its decoders at once, at least."""

# Pillow warns or fails by a limit of its own, by way of global state. `DecodeLimits` checks sooner and for each call.
Image.MAX_IMAGE_PIXELS = None

_DAMAGED: Final = "The picture file is damaged or cut off."


@dataclass(frozen=True, slots=True)
class Header:
    """What a picture file says of itself: its size in pixels as stored, and how to turn it upright.

    `kept` is what the picture is made of, in order; the rest of the file is metadata and rubbish. `plain` marks a JPEG
    that simplejpeg decodes as Pillow does. `scans` is where a JPEG's begin, `components` how many colours it has.
    """

    format: str
    width: int
    height: int
    kept: tuple[Range, ...]
    orientation: int = 1
    plain: bool = False
    scans: int = 0
    components: int = 0


@dataclass(frozen=True, slots=True)
class PictureFile:
    """A picture file that may be decoded: its header is read, its pixels are not."""

    width: int
    """Pixels across the upright picture."""
    height: int
    _data: bytes
    _header: Header
    _limits: DecodeLimits
    _param: str | None
    _negative: bool = False

    def pixels(self, height: int | None = None, width: int | None = None) -> Pixels:
        """The first frame, upright, as uint8 [H, W, 3] in RGB, C-contiguous, transparency on white. May be read-only.

        `height` and `width` are what it will be resized to. With them, and where the limits allow it, a JPEG comes out
        at 1/2, 1/4 or 1/8 of its size: at the smallest of these that divides its sides without remainder and keeps
        both at least OVERSAMPLING times what is wanted. (With a remainder the last pixel would stand for less than the
        others, and resizing would shift print by a fifth of a pixel: 34 dB.) One that is larger than the limits allow
        is always decoded at a reduced scale.

        Raises InvalidImage (image_parse_error) for a damaged file, and MemoryError when the machine has no memory for
        an allowed picture.
        """
        pixels = self._by_simplejpeg(self._scale(height, width)) if self._header.plain else None
        pixels = self._by_library(self._least_scale) if pixels is None else pixels
        return _turned(~pixels if self._negative else pixels, self._header.orientation)

    @property
    def _least_scale(self) -> int:
        """1, but for a JPEG that is too large to be decoded in full."""
        return 1 if self.width * self.height <= self._limits.max_pixels else LEAST_SCALE

    def _scale(self, height: int | None, width: int | None) -> int:
        if height is None or width is None or not self._limits.scaled_decoding:
            return self._least_scale
        least_height, least_width = OVERSAMPLING * height, OVERSAMPLING * width
        for scale in SCALES:
            whole = self.height % scale == 0 and self.width % scale == 0
            if whole and self.height >= scale * least_height and self.width >= scale * least_width:
                return scale
        return self._least_scale

    def _by_simplejpeg(self, scale: int) -> Pixels | None:
        """The pixels as stored, or None where the file is not quite in order: Pillow decides on such a file."""
        size = math.ceil(self._header.height / scale), math.ceil(self._header.width / scale)
        for data in (self._data, *_mended(self._data, self._header)):
            try:
                pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=size[0], min_width=size[1])
            except ValueError:
                continue
            return pixels if pixels.shape == (*size, 3) else None
        return None

    def _by_library(self, scale: int) -> Pixels:
        header, view = self._header, memoryview(self._data)
        picture = self._data if header.kept == ((0, len(view)),) else b"".join(view[a:b] for a, b in header.kept)
        size = math.ceil(header.width / scale), math.ceil(header.height / scale)
        try:
            image = _LOADERS.get(header.format, _load)(picture, header.format, size)
            if image.size != size:
                raise ValueError("the library reads another size than we do")
            return np.asarray(on_white(image))
        except MemoryError:
            raise
        except Exception as error:  # decoders raise nearly anything on hostile bytes
            raise InvalidImage(_DAMAGED, code="image_parse_error", param=self._param) from error


def open_picture(data: bytes, limits: DecodeLimits, *, param: str | None = None) -> PictureFile:
    """A picture file as far as its header, after every check that needs no pixels.

    Takes a millisecond, and for a hostile file of 20 MB less than half a second.

    Raises InvalidImage with `param`: empty_image_file, unsupported_image_media_type (another format that we recognise),
    invalid_image_format (nothing that we recognise), image_too_large (more pixels than `limits`), image_parse_error
    (damaged, cut off, or built to be slow), invalid_image (a TIFF of several pages, which are no single picture).
    """
    found = formats.recognised(data)
    if found is None:
        raise formats.unknown(data, "image", param)
    if found.picture is None:
        raise formats.misplaced(found, "image", param)
    if found.plugin == TIFF:
        return _only_page(data, limits, param)
    with _refusing(param):
        header = _READERS[found.plugin or found.name](data)
    return _picture_file(data, header, limits, param)


def open_pages(data: bytes, *, param: str | None = None) -> list[tiff.Page]:
    """The pages of a TIFF file, each for `open_page`. Raises InvalidImage, as `open_picture`."""
    with _refusing(param):
        try:
            return tiff.read_pages(data)
        except tiff.NotTiff:
            raise _Refusal(_DAMAGED) from None
        except tiff.CameraRaw:
            message = "The file is a camera's raw picture, and only a preview of it could be shown: send it as a JPEG."
            raise InvalidImage(message, code="unsupported_image_media_type", param=param) from None


def open_page(data: bytes, page: tiff.Page, limits: DecodeLimits, *, param: str | None = None) -> PictureFile:
    """A page of a TIFF file as far as its directory; raises InvalidImage, as `open_picture`."""
    # Pillow knows grey of 16 bits as black on white alone, whatever the file says.
    negative = page.is_negative and page.is_deep
    whole = tiff.file_of(data, page, upright=True, positive=negative)
    header = Header(TIFF, page.width, page.height, ((0, len(whole)),), page.orientation)
    return _picture_file(whole, header, limits, param, negative=negative)


def _only_page(data: bytes, limits: DecodeLimits, param: str | None) -> PictureFile:
    pages = open_pages(data, param=param)
    if len(pages) > 1:
        message = f"The TIFF file has {len(pages)} pages, and here is room for one picture: send a file of one page."
        raise InvalidImage(message, code="invalid_image", param=param)
    return open_page(data, pages[0], limits, param=param)


def _picture_file(
    data: bytes, header: Header, limits: DecodeLimits, param: str | None, *, negative: bool = False
) -> PictureFile:
    width, height = header.width, header.height
    most = limits.max_pixels * (LEAST_SCALE**2 if header.plain and limits.scaled_decoding else 1)
    if width * height > most:
        message = f"The picture is {width}x{height} pixels, more than the {most} allowed."
        raise InvalidImage(message, code="image_too_large", param=param)
    if width * height == 0:
        raise InvalidImage("The picture has no pixels.", code="image_parse_error", param=param)
    if _TURNS[header.orientation][2]:
        width, height = height, width
    return PictureFile(width, height, data, header, limits, param, negative)


@contextlib.contextmanager
def _refusing(param: str | None) -> Iterator[None]:
    """What a reader of headers raises becomes the refusal that a client is told."""
    try:
        yield
    except _Refusal as refusal:
        raise InvalidImage(str(refusal), code="image_parse_error", param=param) from None
    except (IndexError, struct.error, heif.NotHeif):
        raise InvalidImage(_DAMAGED, code="image_parse_error", param=param) from None


# ---- Pixels -----------------------------------------------------------------------------------------


def _load(picture: bytes, plugin: str, size: tuple[int, int]) -> Image.Image:
    """The pixels by Pillow; of a JPEG at the scale that gives `size`."""
    image = Image.open(io.BytesIO(picture), formats=(plugin,))
    if plugin == JPEG and image.size != size:
        image.draft(None, (image.width // LEAST_SCALE, image.height // LEAST_SCALE))
    # In small pieces, fill bytes of a JPEG would be read again for each; and WebP hands over all its pixels in these.
    image.decodermaxblock = max(len(picture), LEAST_BLOCK)
    image.load()
    return image


def _load_png(picture: bytes, plugin: str, size: tuple[int, int]) -> Image.Image:
    """As `_load`, but for a transparent colour of 16 bits, which Pillow looks for among samples of 8: it is white."""
    image = Image.open(io.BytesIO(picture), formats=(plugin,))
    transparent = image.info.get("transparency")
    if not isinstance(image, PngImagePlugin.PngImageFile) or not isinstance(transparent, tuple) or not image.tile:
        return _load(picture, plugin, size)
    if image.tile[0].args != _DEEP[0]:
        return _load(picture, plugin, size)
    halves = []
    for part in _DEEP:
        image = Image.open(io.BytesIO(picture), formats=(plugin,))
        image.tile = [image.tile[0]._replace(args=part)]
        image.load()
        halves.append(np.asarray(image))
    high, low = halves
    colour = np.array(transparent)
    white = ((high == colour >> 8) & (low == colour & 0xFF)).all(-1)
    return Image.fromarray(np.where(white[..., None], np.uint8(255), high))


def _load_webp(picture: bytes, plugin: str, size: tuple[int, int]) -> Image.Image:
    """As `_load`; libwebp's two canvases and Pillow's copy of one, 12 bytes a pixel, are let go at once."""
    image = _load(picture, plugin, size)
    if isinstance(image, WebPImagePlugin.WebPImageFile):
        image.__dict__.pop("_decoder", None)
        image.fp = None
    return image


_LOADERS: Final[dict[str, Callable[[bytes, str, tuple[int, int]], Image.Image]]] = {
    PNG: _load_png,
    WEBP: _load_webp,
    HEIC: heif.load_heic,
    AVIF: heif.load_avif,
}
"""How the pixels of a format are loaded, where not as `_load` does."""


def _mended(data: bytes, header: Header) -> Iterator[bytes]:
    """A JPEG whose end is missing but whose pixels may all be there, with an end; nothing where they cannot be.

    Whether they are, who decodes it sees: coded pixels that end too early are told of. That scans of a progressive
    picture are missing is not, so each must have refined every coefficient to its last bit (ISO 10918-1, G.1.1.1.1).
    """
    if b"\xff\xd9" in data[header.scans :]:
        return
    left: dict[int, set[int]] = {}
    for scan in _SCAN.finditer(data, header.scans):
        at = scan.end() + 2
        count = data[at] if at < len(data) else 0
        parts = data[at + 1 : at + 1 + 2 * count + 3]
        if not 1 <= count <= 4 or len(parts) < 2 * count + 3:
            return
        first, last, bits = parts[-3:]
        for component in parts[: 2 * count : 2]:
            left.setdefault(component, set(range(64)))
            if bits & 15 == 0:
                left[component].difference_update(range(first, last + 1))
    if len(left) == header.components and not any(left.values()):
        yield data + b"\xff\xd9"


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


def on_white(image: Image.Image) -> Image.Image:
    """The image in RGB, with white behind what is transparent."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16"):  # grey: Pillow would clip it at 255 instead of scaling
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
_DEEP = ("RGB;16B", "RGB;16L")
"""Pillow's words for taking the first and the second byte of samples of 16 bits."""
_PNG_KEPT = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_PNG_TEXTS = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_APNG_KEPT = _PNG_KEPT | {b"acTL", b"fcTL", b"fdAT"}
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
    return Header(
        JPEG, width, height, (*kept, (start, len(data))), orientation.value, plain, scans=start, components=components
    )


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


def _read_png(data: bytes, kept_kinds: frozenset[bytes] = _PNG_KEPT) -> Header:
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
        if kind in kept_kinds:
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


@dataclass(frozen=True, slots=True)
class AnimatedParts:
    """An animated picture before any of its frames is decoded.

    `data` is the file without metadata, `seconds` how long each frame is shown, as the file has it; `hidden` counts the
    frames of Pillow's count before the first of these.
    """

    data: bytes
    width: int
    height: int
    seconds: tuple[float, ...]
    hidden: int = 0


def animated_parts(data: bytes, found: formats.Format, *, param: str | None = None) -> AnimatedParts:
    """What a PNG or WebP file says of its frames; no seconds where it is a still picture.

    Raises InvalidImage, as `open_picture`.
    """
    with _refusing(param):
        return _ANIMATED[found.plugin](data)


def _animated_png(data: bytes) -> AnimatedParts:
    """https://www.w3.org/TR/png-3/#apng-frame-based-animation"""
    header = _read_png(data, _APNG_KEPT)
    file = b"".join(data[start:end] for start, end in header.kept)
    seconds: list[float] = []
    hidden, position = 1, 8
    while position + 8 <= len(file):
        length, kind = struct.unpack_from(">I4s", file, position)
        if kind == b"IDAT" and seconds:  # what stands before it is the first frame
            hidden = 0
        if kind == b"fcTL":
            numerator, denominator = struct.unpack_from(">HH", file, position + 8 + 20)
            seconds.append(numerator / (denominator or 100))
        position += 12 + length
    is_animated = b"acTL" in file[: file.find(b"IDAT")]
    return AnimatedParts(file, header.width, header.height, tuple(seconds) if is_animated else (), hidden)


def _animated_webp(data: bytes) -> AnimatedParts:
    """RFC 9649, 2.7.1.1."""
    header = _read_webp(data)
    seconds: list[float] = []
    position = 12
    while position + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, position)
        if kind == b"ANMF":
            low, high = struct.unpack_from("<HB", data, position + 8 + 12)
            seconds.append((high << 16 | low) / 1000)
        position += 8 + length + length % 2
    return AnimatedParts(data, header.width, header.height, tuple(seconds))


_ANIMATED: Final[dict[str, Callable[[bytes], AnimatedParts]]] = {PNG: _animated_png, WEBP: _animated_webp}


def _palette_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _read_bmp(data: bytes) -> Header:
    """By Pillow, which reads some 100 bytes and the palette of a bitmap, and no more."""
    plugin = BMP if data[:2] == b"BM" else DIB
    try:
        with Image.open(io.BytesIO(data), formats=(plugin,)) as image:
            return Header(plugin, *image.size, ((0, len(data)),))
    except (OSError, ValueError, SyntaxError, KeyError):
        raise _Refusal("The bitmap is damaged, or of a kind that is not supported.") from None


def _read_heic(data: bytes) -> Header:
    return Header(HEIC, *heif.size_of_heic(data), ((0, len(data)),))


def _read_avif(data: bytes) -> Header:
    width, height, orientation = heif.size_of_avif(data)
    return Header(AVIF, width, height, ((0, len(data)),), orientation)


_READERS: Final[dict[str, Callable[[bytes], Header]]] = {
    JPEG: _read_jpeg,
    PNG: _read_png,
    WEBP: _read_webp,
    GIF: _read_gif,
    BMP: _read_bmp,
    DIB: _read_bmp,
    HEIC: _read_heic,
    AVIF: _read_avif,
}
"""By the format's plugin, or by its name where Pillow has none."""
