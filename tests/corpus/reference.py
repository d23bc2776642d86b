"""What Pillow, libheif, pypdfium2 and PyAV read in a file: the size of what it shows, and a picture's pixels."""

from __future__ import annotations

import contextlib
import io
import logging
from dataclasses import dataclass
from typing import Any, Final

import av
import numpy as np
import pillow_heif
import pypdfium2
from PIL import Image, ImageOps

DPI: Final = 150
POINTS: Final = 72
MOST_PIXELS: Final = 25_000_000
"""Of a picture whose pixels are compared, and of a page before it is drawn at fewer dots an inch."""

logging.getLogger("pypdfium2").setLevel(logging.ERROR)


@dataclass(frozen=True)
class Seen:
    """What a reference sees in a file. `kind` is that of the part which the file belongs into."""

    kind: str
    sizes: tuple[tuple[int, int], ...]
    """Width and height of the picture, of each page, or of a clip's frames."""
    pixels: np.ndarray[Any, Any] | None = None
    """Of a picture that is not too large: upright, over white."""


def seen(data: bytes) -> Seen | None:
    """None where none of them reads the file."""
    for read in (_document, _picture, _clip):
        with contextlib.suppress(Exception):  # each library has errors of its own, and any of them says no
            if (found := read(data)) is not None:
                return found
    return None


def _picture(data: bytes) -> Seen | None:
    if data[4:8] == b"ftyp":
        image: Image.Image = _heif(data)
    else:
        image = Image.open(io.BytesIO(data))
    if image.format == "TIFF" and getattr(image, "n_frames", 1) > 1:
        return Seen("file", tuple(_upright_sizes(image)))
    image.seek(0)
    if image.width * image.height > MOST_PIXELS:
        image.load()
        return Seen("image", (ImageOps.exif_transpose(image).size,))
    upright = ImageOps.exif_transpose(image)
    layered = upright.convert("RGBA")
    white = Image.new("RGB", upright.size, "white")
    white.paste(layered, mask=layered.getchannel("A"))
    return Seen("image", (upright.size,), np.asarray(white))


def _heif(data: bytes) -> Image.Image:
    try:
        return pillow_heif.open_heif(io.BytesIO(data)).to_pillow()
    except (ValueError, RuntimeError, SyntaxError):
        return Image.open(io.BytesIO(data), formats=("AVIF",))


def _upright_sizes(image: Image.Image) -> list[tuple[int, int]]:
    sizes = []
    for number in range(image.n_frames):  # type: ignore[attr-defined]
        image.seek(number)
        image.load()
        sizes.append(image.size)
    return sizes


def _document(data: bytes) -> Seen | None:
    if b"%PDF-" not in data[:1024]:
        return None
    with pypdfium2.PdfDocument(data) as document:
        sizes = []
        for page in document:
            width, height = page.get_size()
            scale = min(DPI / POINTS, (MOST_PIXELS / (width * height)) ** 0.5)
            sizes.append((max(1, round(width * scale)), max(1, round(height * scale))))
        return Seen("file", tuple(sizes))


def _clip(data: bytes) -> Seen | None:
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.best("video")
        frame = next(container.decode(stream))
        width, height = frame.width, frame.height
        if frame.rotation % 180:
            width, height = height, width
        return Seen("video", ((width, height),))
