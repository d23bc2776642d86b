"""HEIC and AVIF pictures: how large they are, and their pixels.

Both are read by their own libraries without Pillow's plugins: those unpack EXIF data, which a small file can make last
for hours, and libheif's would have to be registered for all of Pillow. Orientation is what the container says (`irot`,
`imir`); that of EXIF does not count (ISO 23008-12, 6.5.10; A.2.1 there).
"""

from __future__ import annotations

import io

import pillow_heif
from PIL import Image, _avif

# Only the picture itself is wanted. One thread: there is a worker for each core.
pillow_heif.options.DECODE_THREADS = 1
pillow_heif.options.THUMBNAILS = False
pillow_heif.options.DEPTH_IMAGES = False
pillow_heif.options.AUX_IMAGES = False

ANY_CODEC, ONE_THREAD = "auto", 1


class NotHeif(Exception):
    """The file is damaged, or of a kind that its library does not read."""


def size_of_heic(data: bytes) -> tuple[int, int]:
    """Width and height of the upright picture. Raises NotHeif."""
    image = _heic(data)
    return image.size


def load_heic(data: bytes, _plugin: str, _size: tuple[int, int]) -> Image.Image:
    """The upright picture; with 10 or 12 bits it keeps the upper 8. Raises whatever libheif's binding raises."""
    image = _heic(data)
    pixels = image.data
    return Image.frombytes(image.mode, image.size, pixels, "raw", image.mode, image.stride)


def _heic(data: bytes) -> pillow_heif.HeifImage:
    try:
        file = pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=True)
        return file[file.primary_index]
    except (ValueError, EOFError, SyntaxError, RuntimeError, IndexError, OSError, MemoryError) as error:
        raise NotHeif from error


def size_of_avif(data: bytes) -> tuple[int, int, int]:
    """Width and height as stored, and the orientation as EXIF counts it. Raises NotHeif."""
    size, _, _, _, _, orientation, _ = _avif_decoder(data).get_info()
    return (*size, orientation)


def load_avif(data: bytes, _plugin: str, _size: tuple[int, int]) -> Image.Image:
    """The picture as stored, or the first of several. Raises whatever libavif's binding raises."""
    decoder = _avif_decoder(data)
    size, _, mode, *_ = decoder.get_info()
    pixels, *_ = decoder.get_frame(0)
    return Image.frombytes(mode, size, pixels)


def _avif_decoder(data: bytes) -> _avif.AvifDecoder:
    try:
        return _avif.AvifDecoder(data, ANY_CODEC, ONE_THREAD)
    except (ValueError, SyntaxError, RuntimeError, OSError) as error:
        raise NotHeif from error
