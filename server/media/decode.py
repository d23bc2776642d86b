"""Bytes of a picture file -> an upright RGB picture, with Pillow held to four formats.

Pillow's own decoders and arithmetic are used throughout, so that the pixels are those of the reference (qwen-vl-utils),
which opens its pictures with Pillow. Two things differ on purpose: the EXIF orientation is applied, since people send
photographs as they look at them, and every kind of transparency goes onto white, not RGBA alone.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass

import numpy as np
from PIL import GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, UnidentifiedImageError, WebPImagePlugin

from server.errors import ImageCode, InvalidImage

FORMATS = tuple(
    plugin.format
    for plugin in (
        JpegImagePlugin.JpegImageFile,
        PngImagePlugin.PngImageFile,
        WebPImagePlugin.WebPImageFile,
        GifImagePlugin.GifImageFile,
    )
)
"""The formats that Pillow may try; it knows some 40 others."""
MAX_SCANS = 50
"""Scans of a progressive JPEG; real ones have about 10, and each may cost a pass over the whole picture."""

# Pillow warns or fails by a limit of its own, by way of global state. `DecodeLimits` checks sooner and for each call.
Image.MAX_IMAGE_PIXELS = None

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
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
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """How large a picture may be before it is resized."""

    max_pixels: int = 100_000_000
    """Width times height, as the file's header says. Decoding takes 4 to 12 bytes of memory for each."""

    def __post_init__(self) -> None:
        """Raises ValueError for a limit that would let nothing through."""
        if self.max_pixels < 1:
            raise ValueError("max_pixels must be at least 1")


def decode_picture(data: bytes, limits: DecodeLimits, *, param: str | None = None) -> Image.Image:
    """The first frame of a JPEG, PNG, WEBP or GIF file, upright, in mode RGB, transparency on white.

    Safe to call from several threads. Raises InvalidImage with `param`: empty_image_file,
    unsupported_image_media_type (another format that we recognise), invalid_image_format (nothing that we recognise),
    image_too_large (more pixels than `limits`), image_parse_error (damaged, cut off, or built to be slow). Raises
    MemoryError when the machine has no memory for an allowed picture.
    """

    def refuse(message: str, code: ImageCode) -> InvalidImage:
        return InvalidImage(message, code=code, param=param)

    if not data:
        raise refuse("The picture file is empty.", "empty_image_file")
    if not _OURS.match(data):
        for pattern, name in _OTHERS:
            if pattern.match(data):
                raise refuse(f"The file is {name}: send JPEG, PNG, WEBP or GIF.", "unsupported_image_media_type")
        raise refuse("The file is not a JPEG, PNG, WEBP or GIF picture.", "invalid_image_format")
    damaged = "The picture file is damaged or cut off."
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = image.size
        if width * height > limits.max_pixels:
            message = f"The picture is {width}x{height} pixels, more than the {limits.max_pixels} allowed."
            raise refuse(message, "image_too_large")
        if width * height == 0:
            raise refuse("The picture has no pixels.", "image_parse_error")
        if count_scans(data) > MAX_SCANS:
            raise refuse(f"The JPEG picture has more than {MAX_SCANS} scans.", "image_parse_error")
        image.load()
        return _to_rgb(_upright(image))
    except (InvalidImage, MemoryError):
        raise
    except UnidentifiedImageError:
        raise refuse(damaged, "image_parse_error") from None
    except Exception as error:  # Pillow's decoders raise nearly anything on hostile bytes
        raise refuse(damaged, "image_parse_error") from error


def count_scans(data: bytes) -> int:
    """How many scans the first picture of a JPEG file has; 0 for another format. Stops counting past MAX_SCANS."""
    scans, position = 0, 2
    while data.startswith(b"\xff\xd8") and scans <= MAX_SCANS:
        marker = _MARKER.search(data, position)
        if marker is None or marker[0] == b"\xff\xd9":
            break
        scans += marker[0] == b"\xff\xda"
        start = marker.end()
        position = start + max(2, int.from_bytes(data[start : start + 2], "big"))
    return scans


def _upright(image: Image.Image) -> Image.Image:
    try:
        turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged metadata does not spoil the pixels
        return image
    return image if turn is None else image.transpose(turn)


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
