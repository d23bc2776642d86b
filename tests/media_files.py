"""A file of every format and variant that people send, made up here; its name begins with that of its format."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, cast

import av
import numpy as np
import pillow_heif
from av.video.stream import VideoStream
from PIL import Image, ImageDraw

SIZE: Final = (160, 96)
"""Width and height of most of them."""
Make = Callable[[], bytes]


def scene(size: tuple[int, int] = SIZE, mode: str = "RGB", shift: int = 0) -> Image.Image:
    """Coloured shapes on a slope of grey, nothing of it symmetrical; `shift` moves them to the right."""
    width, height = size
    slope = np.linspace(40, 220, width, dtype=np.uint8)[None].repeat(height, 0)
    image = Image.fromarray(slope).convert("RGB")
    draw = ImageDraw.Draw(image)
    draw.ellipse((10 + shift, 10, 50 + shift, 50), fill=(220, 30, 30))
    draw.rectangle((width // 2, height // 2, width - 20, height - 8), fill=(30, 60, 220))
    draw.line((0, height - 1, width // 2, 0), fill=(20, 160, 40), width=5)
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.fromarray(slope))
    return image.convert(mode)


def saved(kind: str, image: Image.Image | None = None, **options: Any) -> bytes:
    """An image as a file, by Pillow's name for its format."""
    target = io.BytesIO()
    (image or scene()).save(target, kind, **options)
    return target.getvalue()


def turned(number: int, kind: str, **options: Any) -> bytes:
    """The scene with an orientation of EXIF."""
    exif = Image.Exif()
    exif[0x0112] = number
    return saved(kind, exif=exif, **options)


def moving(kind: str, count: int = 6, mode: str = "RGB", **options: Any) -> bytes:
    """An animation of half a second a frame."""
    first, *others = (scene(mode=mode, shift=8 * number) for number in range(count))
    return saved(kind, first, **{"save_all": True, "append_images": others, "duration": 500, **options})


def heic(image: Image.Image | None = None, **options: Any) -> bytes:
    """As iPhones write it, and others."""
    target = io.BytesIO()
    pillow_heif.from_pillow(image or scene()).save(target, **options)
    return target.getvalue()


def heic_of(pixels: np.ndarray[Any, Any], mode: str) -> bytes:
    """From more than 8 bits."""
    target = io.BytesIO()
    height, width = pixels.shape[:2]
    pillow_heif.encode(mode, (width, height), pixels.tobytes(), target)
    return target.getvalue()


def scan(pages: int = 1, mode: str = "1", **options: Any) -> bytes:
    """A TIFF file of some pages, each with another shape in it."""
    first, *others = (scene(mode=mode, shift=8 * number) for number in range(pages))
    more: dict[str, Any] = {"save_all": True, "append_images": others} if others else {}
    return saved("TIFF", first, **more, **options)


def tiff(
    width: int,
    height: int,
    samples: bytes,
    *,
    bits: Sequence[int] = (8,),
    photometric: int = 1,
    order: str = "<",
    big: bool = False,
    more: Sequence[tuple[int, int, int, bytes]] = (),
) -> bytes:
    """An uncompressed TIFF file by hand; `more` are tag, type, count and value of further entries."""
    count, offset, head = ("Q", "Q", 16) if big else ("H", "I", 8)
    inline = 8 if big else 4
    entries = [
        (256, 4, 1, struct.pack(order + "I", width)),
        (257, 4, 1, struct.pack(order + "I", height)),
        (258, 3, len(bits), struct.pack(f"{order}{len(bits)}H", *bits)),
        (259, 3, 1, struct.pack(order + "H", 1)),
        (262, 3, 1, struct.pack(order + "H", photometric)),
        (273, 4, 1, struct.pack(order + "I", head)),
        (277, 3, 1, struct.pack(order + "H", len(bits))),
        (278, 4, 1, struct.pack(order + "I", height)),
        (279, 4, 1, struct.pack(order + "I", len(samples))),
        *more,
    ]
    body = samples + bytes(len(samples) % 2)
    table = b""
    for tag, kind, number, value in sorted(entries):
        if len(value) > inline:
            place = struct.pack(order + offset, head + len(body))
            body += value + bytes(len(value) % 2)
            value = place
        table += struct.pack(order + ("HHQ" if big else "HHI"), tag, kind, number) + value.ljust(inline, b"\0")
    letters = b"II" if order == "<" else b"MM"
    start = struct.pack(order + offset, head + len(body))
    header = letters + (struct.pack(order + "HHH", 43, 8, 0) if big else struct.pack(order + "H", 42)) + start
    return header + body + struct.pack(order + count, len(entries)) + table + bytes(inline)


def film(container: str, codec: str, count: int = 8, pixels: str = "yuv420p", **options: str) -> bytes:
    """A clip of half a second a frame."""
    target = io.BytesIO()
    with av.open(target, "w", format=container) as output:
        rate = 25 if container in ("mpegts", "mpeg", "vob") else 2
        track = cast("VideoStream", output.add_stream(codec, rate=rate, options=options))
        track.width, track.height, track.pix_fmt = *SIZE, pixels
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(np.asarray(scene(shift=8 * number)), format="rgb24")
            output.mux(track.encode(frame.reformat(format=pixels)))
        output.mux(track.encode())
    return target.getvalue()


def with_times(stream: bytes) -> bytes:
    """A transport stream as camcorders keep it: a time of 4 bytes before each packet of 188."""
    return b"".join(bytes(4) + stream[at : at + 188] for at in range(0, len(stream), 188))


def _deep(mode: str = "I;16") -> Image.Image:
    return Image.fromarray(np.arange(SIZE[0] * SIZE[1], dtype=np.uint16).reshape(SIZE[::-1]) * 4).convert(mode)


DEEP: Final = np.asarray(scene()).astype(np.uint16) * 257
_H264: Final = {"preset": "ultrafast", "g": "4"}
PICTURES: Final[dict[str, Make]] = {
    "JPEG": partial(saved, "JPEG", quality=92),
    "JPEG, progressive": partial(saved, "JPEG", progressive=True),
    "JPEG, grey": lambda: saved("JPEG", scene(mode="L")),
    "JPEG, CMYK": lambda: saved("JPEG", scene(mode="CMYK")),
    "JPEG, turned": partial(turned, 6, "JPEG"),
    "JPEG, two pictures of a phone": lambda: saved("MPO", save_all=True, append_images=[scene(shift=9)]),
    "PNG": partial(saved, "PNG"),
    "PNG, palette": lambda: saved("PNG", scene().quantize(16)),
    "PNG, alpha": lambda: saved("PNG", scene(mode="RGBA")),
    "PNG, animated": partial(moving, "PNG"),
    "WebP, lossless": partial(saved, "WEBP", lossless=True),
    "WebP, alpha": lambda: saved("WEBP", scene(mode="RGBA")),
    "WebP, animated": partial(moving, "WEBP"),
    "GIF": lambda: saved("GIF", scene().quantize(64)),
    "GIF, animated": partial(moving, "GIF"),
    "BMP, 24 bits": partial(saved, "BMP"),
    "BMP, 8 bits": lambda: saved("BMP", scene().quantize(64)),
    "BMP, 4 bits": lambda: saved("BMP", scene().quantize(16)),
    "BMP, 1 bit": lambda: saved("BMP", scene(mode="1")),
    "BMP, 32 bits": lambda: saved("BMP", scene(mode="RGBA")),
    "DIB": partial(saved, "DIB"),
    "AVIF": partial(saved, "AVIF"),
    "AVIF, alpha": lambda: saved("AVIF", scene(mode="RGBA")),
    "AVIF, turned": partial(turned, 6, "AVIF"),
    "animated AVIF": partial(moving, "AVIF"),
    "HEIC": heic,
    "HEIC, alpha": lambda: heic(scene(mode="RGBA")),
    "HEIC, grey": lambda: heic(scene(mode="L")),
    "HEIC, in tiles": lambda: heic(scene((640, 384)), tile_size=256),
    "HEIC, 10 bits": lambda: heic_of(DEEP, "RGB;16"),
    "TIFF": partial(saved, "TIFF"),
    "TIFF, CMYK": lambda: saved("TIFF", scene(mode="CMYK"), compression="tiff_lzw"),
    "TIFF, alpha": lambda: saved("TIFF", scene(mode="RGBA")),
    "TIFF, LZW": partial(saved, "TIFF", compression="tiff_lzw"),
    "TIFF, deflate": partial(saved, "TIFF", compression="tiff_adobe_deflate"),
    "TIFF, PackBits": partial(saved, "TIFF", compression="packbits"),
    "TIFF, JPEG": partial(saved, "TIFF", compression="jpeg"),
    "TIFF, G3": partial(scan, compression="group3"),
    "TIFF, G4": partial(scan, compression="group4"),
    "TIFF, palette": lambda: saved("TIFF", scene().quantize(32)),
    "TIFF, 16 bits of colour": lambda: tiff(*SIZE, DEEP.tobytes(), bits=(16, 16, 16), photometric=2),
    "TIFF, Motorola's order": lambda: tiff(*SIZE, scene().tobytes(), bits=(8, 8, 8), photometric=2, order=">"),
    "TIFF, BigTIFF": lambda: tiff(*SIZE, scene().tobytes(), bits=(8, 8, 8), photometric=2, big=True),
    "TIFF, turned": lambda: saved("TIFF", tiffinfo={274: 6}),
}
"""Pictures, and scans of one page."""
CLIPS: Final[dict[str, Make]] = {
    "PNG, animated": partial(moving, "PNG"),
    "WebP, animated": partial(moving, "WEBP"),
    "WebP, animated and transparent": partial(moving, "WEBP", mode="RGBA", lossless=True),
    "GIF, animated": partial(moving, "GIF"),
    "animated AVIF": partial(moving, "AVIF"),
    "MP4, H.264": partial(film, "mp4", "libx264", **_H264),
    "MP4, one frame": partial(film, "mp4", "libx264", 1, **_H264),
    "MOV": partial(film, "mov", "libx264", **_H264),
    "3GP": partial(film, "3gp", "mpeg4"),
    "WebM": partial(film, "webm", "libvpx-vp9", deadline="realtime"),
    "MKV": partial(film, "matroska", "libx264", **_H264),
    "AVI": partial(film, "avi", "mpeg4"),
    "MPEG-TS, H.264": partial(film, "mpegts", "libx264", **_H264),
    "MPEG-TS, MPEG-2": partial(film, "mpegts", "mpeg2video"),
    "MPEG-TS, of a camcorder": lambda: with_times(film("mpegts", "libx264", **_H264)),
    "MPEG, MPEG-2": partial(film, "vob", "mpeg2video"),
    "MPEG, MPEG-1": partial(film, "mpeg", "mpeg1video"),
}
DOCUMENTS: Final[dict[str, Make]] = {
    "PDF": lambda: saved("PDF", save_all=True, append_images=[scene(shift=8)], resolution=72),
    "TIFF, three pages": partial(scan, 3, compression="group4"),
    "TIFF, one page": partial(scan, 1, compression="group4"),
}
FILES: Final[dict[str, Make]] = {**PICTURES, **CLIPS, **DOCUMENTS}
