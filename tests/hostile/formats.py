"""HEIC, AVIF, TIFF, bitmaps, animations and MPEG streams that lie, loop or are damaged, and odd ones that are right."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import av
import numpy as np
from PIL import Image

from tests.e2e.asking import data_url
from tests.hostile.case import URL as PICTURE
from tests.hostile.case import Case, answered, refused, said, shown, text
from tests.media_files import CLIPS, PICTURES, SIZE, film, heic, moving, saved, scan, tiff

Make = Callable[[], bytes]
CLIP: Final = "messages[0].content[0].video_url.url"
FILE: Final = "messages[0].content[0].file.file_data"
SMALL: Final = {"min_pixels": 28 * 28, "max_pixels": 56 * 56}
PARSE: Final = "image_parse_error"
LARGE: Final = "image_too_large"
OTHER: Final = "unsupported_image_media_type"
SHORT, LONG = 3, 4


def cut(content: bytes, part: float) -> bytes:
    return content[: int(len(content) * part)]


def patched(content: bytes, at: int, value: bytes) -> bytes:
    return content[:at] + value + content[at + len(value) :]


# ---- TIFF -------------------------------------------------------------------------------------------


def lying(tag: int, value: int, kind: int = LONG, count: int = 1) -> bytes:
    """A TIFF file with another number in one of its entries."""
    content = tiff(8, 8, bytes(64))
    entry = content.index(struct.pack("<HH", tag, SHORT if tag in (258, 259, 262, 277) else LONG))
    return patched(content, entry, struct.pack("<HHII", tag, kind, count, value))


def chain(count: int) -> bytes:
    """So many directories of nothing, one after the other."""
    directories = b"".join(struct.pack("<HI", 0, 8 + 6 * number) for number in range(1, count))
    return b"II*\0\x08\0\0\0" + directories + struct.pack("<HI", 0, 0)


def ring() -> bytes:
    """A directory that is followed by itself."""
    content = tiff(8, 8, bytes(64))
    (first,) = struct.unpack_from("<I", content, 4)
    return content[:-4] + struct.pack("<I", first)


def many_entries() -> bytes:
    """Entries that each name nearly the whole file as their value."""
    useless = [(tag, 7, 2**20, bytes(4)) for tag in range(40_000, 50_000)]
    return tiff(8, 8, bytes(64), more=useless) + bytes(2**20)


def useful_entries() -> bytes:
    """The same in what makes up the pixels: no file is so large."""
    return tiff(8, 8, bytes(64), more=[(tag, 7, 2**20, bytes(4)) for tag in (320, 347, 519, 520, 521)])


def raw_of_a_camera() -> bytes:
    version = (50706, 1, 4, b"\1\4\0\0")
    return tiff(8, 8, bytes(64), more=[(254, LONG, 1, struct.pack("<I", 1)), (330, LONG, 1, bytes(4)), version])


def deflated(width: int, height: int) -> bytes:
    """Much white in little."""
    return saved("TIFF", Image.new("1", (width, height), 1), compression="tiff_adobe_deflate")


# ---- HEIF -------------------------------------------------------------------------------------------


def with_extent(content: bytes, width: int, height: int) -> bytes:
    """A HEIF file that says to be larger."""
    at = content.index(b"ispe\0\0\0\0") + 8
    return patched(content, at, struct.pack(">II", width, height))


def without(content: bytes, box: bytes) -> bytes:
    """A file whose box is none any more."""
    return content.replace(box, b"free", 1)


# ---- Bitmaps ----------------------------------------------------------------------------------------


def bitmap(
    width: int = 8,
    height: int = 8,
    bits: int = 24,
    *,
    packing: int = 0,
    colours: int = 0,
    pixels: bytes = b"",
    offset: int = 54,
) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, packing, len(pixels), 0, 0, colours, 0)
    return struct.pack("<2sIHHI", b"BM", 54 + len(pixels), 0, 0, offset) + info + pixels


def runs(count: int) -> bytes:
    """Pixels one by one, each packed as a run, in lines of 4,000."""
    palette = bytes(4 * 256)
    packed = (b"\x01\x05" * 4000 + b"\0\0") * (count // 4000)
    return bitmap(4000, count // 4000, 8, packing=1, pixels=palette + packed, offset=54 + len(palette))


# ---- Animations -------------------------------------------------------------------------------------


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def apng(frames: int, *, said_frames: int | None = None, size: tuple[int, int] = (8, 8), delay: int = 50) -> bytes:
    """An animated PNG by hand, of 8 x 8 pixels; `size` is what its later frames say."""
    pixels = zlib.compress((b"\0" + bytes(24)) * 8)
    control = struct.pack(">II", frames if said_frames is None else said_frames, 0)
    parts = [
        b"\x89PNG\r\n\x1a\n",
        chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)),
        chunk(b"acTL", control),
    ]
    number = 0
    for frame in range(frames):
        sides = (8, 8) if frame == 0 else size
        parts.append(chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, *sides, 0, 0, delay, 100, 0, 0)))
        number += 1
        if frame == 0:
            parts.append(chunk(b"IDAT", pixels))
        else:
            parts.append(chunk(b"fdAT", struct.pack(">I", number) + pixels))
            number += 1
    return b"".join((*parts, chunk(b"IEND", b"")))


def webp_frames(count: int) -> bytes:
    """The first frame of an animation again and again."""
    content = CLIPS["WebP, animated"]()
    at = content.index(b"ANMF")
    size = 8 + struct.unpack_from("<I", content, at + 4)[0]
    body = content[12:at] + content[at : at + size] * count
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def long_webp() -> bytes:
    """Six frames of four hours each."""
    content = bytearray(CLIPS["WebP, animated"]())
    at = content.index(b"ANMF")
    while at >= 0:
        content[at + 20 : at + 23] = b"\xff\xff\xff"
        at = content.find(b"ANMF", at + 4)
    return bytes(content)


# ---- MPEG streams -----------------------------------------------------------------------------------


def packets(count: int, body: bytes = b"\xff") -> bytes:
    """A transport stream of packets that say nothing."""
    return (b"G\x1f\xff\x10" + body * 184)[:188] * count


def endless_programs() -> bytes:
    """A table of programs, again and again, each with other programs."""

    def table(number: int) -> bytes:
        programs = b"".join(struct.pack(">HH", number % 1600 * 40 + one + 1, 0xE000 | (32 + one)) for one in range(40))
        body = struct.pack(">HBBB", 1, 0xC1 | (number % 32) << 1, 0, 0) + programs
        section = b"\0" + struct.pack(">H", 0xB000 | (len(body) + 4)) + body
        return (b"G\x40\0\x10\0" + section + bytes(4)).ljust(188, b"\xff")

    return b"".join(table(number) for number in range(2000))


WEBP: Final = bytes.fromhex("524946461e000000574542505650384c110000002f7ffe0d1607508a2ad4a3808188e87f0000")
PICTURES_REFUSED: Final[dict[str, tuple[Make, str]]] = {
    "TIFF: no directory": (lambda: b"II*\0\0\0\0\0", PARSE),
    "TIFF: a directory outside": (lambda: b"II*\0\xff\xff\xff\x7f", PARSE),
    "TIFF: half": (lambda: cut(scan(compression="group4"), 0.5), PARSE),
    "TIFF: without its last byte": (lambda: scan(compression="group4")[:-5], PARSE),
    "TIFF: 20,000 directories": (lambda: chain(20_000), PARSE),
    "TIFF: 100,000 x 100,000, it says": (lambda: patched_size(100_000, 100_000), LARGE),
    "TIFF: 2**32 - 1 wide, it says": (lambda: lying(256, 2**32 - 1), LARGE),
    "TIFF: no pixels": (lambda: lying(256, 0), PARSE),
    "TIFF: a compression of no one": (lambda: lying(259, 9999, SHORT), PARSE),
    "TIFF: 4 billion samples": (lambda: lying(277, 2**32 - 1), PARSE),
    "TIFF: colours of no one": (lambda: lying(262, 77, SHORT), PARSE),
    "TIFF: its pixels are outside": (lambda: lying(273, 2**31), PARSE),
    "TIFF: larger tables than the file": (useful_entries, PARSE),
    "TIFF: a camera's raw picture": (raw_of_a_camera, OTHER),
    "BigTIFF: 2**60 entries": (lambda: b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**60) + bytes(99), PARSE),
    "BigTIFF: a directory at 2**63": (lambda: b"II+\0\x08\0\0\0" + struct.pack("<Q", 2**63), PARSE),
    "HEIC: nothing but its type": (lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", PARSE),
    "HEIC: half": (lambda: cut(heic(), 0.5), PARSE),
    "HEIC: 30,000 x 30,000, it says": (lambda: with_extent(heic(), 30_000, 30_000), LARGE),
    "HEIC: 9,000 x 9,000, it says": (lambda: with_extent(heic(), 9_000, 9_000), PARSE),
    "HEIC: 2**32 - 1, it says": (lambda: with_extent(heic(), 2**32 - 1, 2**32 - 1), PARSE),
    "HEIC: no pixels": (lambda: with_extent(heic(), 0, 0), PARSE),
    "HEIC: no main picture": (lambda: without(heic(), b"pitm"), PARSE),
    "HEIC: no properties": (lambda: without(heic(), b"iprp"), PARSE),
    "HEIC: an AVIF": (lambda: PICTURES["AVIF"]().replace(b"avif", b"heic"), PARSE),
    "AVIF: nothing but its type": (lambda: b"\0\0\0\x18ftypavif\0\0\0\0mif1avif", PARSE),
    "AVIF: half": (lambda: cut(PICTURES["AVIF"](), 0.5), PARSE),
    "AVIF: 30,000 x 30,000, it says": (lambda: with_extent(PICTURES["AVIF"](), 30_000, 30_000), PARSE),
    "AVIF: a HEIC": (lambda: heic().replace(b"heic", b"avif"), PARSE),
    "BMP: 2**31 - 1 wide": (lambda: bitmap(2**31 - 1, 1), LARGE),
    "BMP: 2**31 - 1 high, from above": (lambda: bitmap(1, -(2**31) + 1), LARGE),
    "BMP: no pixels": (lambda: bitmap(0, 8), PARSE),
    "BMP: a width below 0": (lambda: bitmap(-8, 8), LARGE),
    "BMP: nothing behind its head": (bitmap, PARSE),
    "BMP: half": (lambda: cut(saved("BMP"), 0.5), PARSE),
    "BMP: 3 bits": (lambda: bitmap(bits=3, pixels=bytes(999)), PARSE),
    "BMP: pixels 4 GB on": (lambda: bitmap(pixels=bytes(999), offset=2**32 - 1), PARSE),
    "BMP: 2**31 colours": (lambda: bitmap(bits=8, colours=2**31 - 1, pixels=bytes(999)), PARSE),
    "BMP: a packing of no one": (lambda: bitmap(packing=77, pixels=bytes(999)), PARSE),
    "BMP: a JPEG inside": (lambda: bitmap(packing=4, pixels=saved("JPEG")), PARSE),
}
PICTURES_ANSWERED: Final[dict[str, Make]] = {
    "TIFF: followed by itself": ring,
    "TIFF: 10,000 useless entries": many_entries,
    "TIFF: 100 megapixels in 100 KB": lambda: deflated(10_000, 10_000),
    "TIFF: a fax of noise": lambda: tiff_with(np.random.default_rng(1).bytes(2000), 4),
    "AVIF: 6,000 x 6,000, it says": lambda: with_extent(PICTURES["AVIF"](), 6_000, 6_000),
    "BMP: packed": lambda: runs(400_000),
    "BMP: from above": lambda: bitmap(8, -8, pixels=bytes(192)),
    "JPEG: 108 megapixels": lambda: saved("JPEG", Image.new("RGB", (12_000, 9_000), "red"), quality=30),
    "JPEG: without its end": lambda: saved("JPEG")[:-2],
    "WebP: 16,000 x 6,200 in 38 bytes": lambda: WEBP,
    "HEIC: words behind it": lambda: heic() + b"<script>" * 1000,
}
CLIPS_REFUSED: Final[dict[str, tuple[Make, str]]] = {
    "PNG: frames larger than the picture": (lambda: apng(4, size=(30_000, 30_000)), "video_parse_error"),
    "PNG: an hour a frame": (lambda: apng(4, delay=65_535), "video_too_large"),
    "PNG: an animation without pixels": (
        lambda: apng(4).replace(struct.pack(">II", 8, 8), bytes(8)),
        "video_parse_error",
    ),
    "PNG: half an animation": (lambda: cut(CLIPS["PNG, animated"](), 0.6), "video_parse_error"),
    "WebP: 36,001 frames": (lambda: webp_frames(36_001), "video_too_large"),
    "WebP: four hours a frame": (long_webp, "video_too_large"),
    "WebP: half an animation": (lambda: cut(CLIPS["WebP, animated"](), 0.6), "video_parse_error"),
    "AVIF: half an animation": (lambda: cut(CLIPS["animated AVIF"](), 0.5), "video_parse_error"),
    "MPEG-TS: packets of nothing": (lambda: packets(20_000), "video_parse_error"),
    "MPEG-TS: eighty thousand programmes": (endless_programs, "video_parse_error"),
    "MPEG-TS: sound alone": (lambda: film_of_sound("mpegts"), "invalid_video_format"),
    "MPEG: packs of nothing": (lambda: b"\0\0\x01\xba" + bytes(200_000), "video_parse_error"),
    "a PDF": (lambda: b"%PDF-1.7\n", "unsupported_video_media_type"),
    "a scan of three pages": (lambda: scan(3, compression="group4"), "invalid_video"),
}
CLIPS_ANSWERED: Final[dict[str, Make]] = {
    "MPEG-TS": CLIPS["MPEG-TS, H.264"],
    "MPEG-TS: half": lambda: cut(film("mpegts", "mpeg2video", 40), 0.5),
    "MPEG-TS: of a camcorder": CLIPS["MPEG-TS, of a camcorder"],
    "MPEG": CLIPS["MPEG, MPEG-2"],
    "one frame": CLIPS["MP4, one frame"],
    "a picture": partial(saved, "PNG"),
    "PNG: 2**31 frames, it says": lambda: apng(4, said_frames=2**31 - 1),
    "PNG: 1,000 frames": lambda: apng(1000),
    "WebP: 500 frames": lambda: webp_frames(500),
    "animated AVIF": CLIPS["animated AVIF"],
    "WebP: transparent": partial(moving, "WEBP", mode="RGBA"),
}
SCANS_REFUSED: Final[dict[str, tuple[Make, str]]] = {
    "17 pages": (lambda: scan(17, compression="group4"), "file_too_large"),
    "20,000 directories": (lambda: chain(20_000), "file_parse_error"),
    "100,000 x 100,000, it says": (lambda: patched_size(100_000, 100_000), "file_too_large"),
    "half": (lambda: cut(scan(3, compression="group4"), 0.5), "file_parse_error"),
}


def patched_size(width: int, height: int) -> bytes:
    content = tiff(8, 8, bytes(64))
    for tag, side in ((256, width), (257, height)):
        content = patched(
            content, content.index(struct.pack("<HH", tag, LONG)), struct.pack("<HHII", tag, LONG, 1, side)
        )
    return content


def tiff_with(packed: bytes, compression: int) -> bytes:
    """Bytes that are said to be packed in some way."""
    content = tiff(*SIZE, packed, bits=(1,))
    return patched(content, content.index(struct.pack("<HH", 259, SHORT)) + 8, struct.pack("<H", compression))


def film_of_sound(container: str) -> bytes:
    target = io.BytesIO()
    with av.open(target, "w", format=container) as output:
        track = output.add_stream("mp2", rate=48_000)
        for _ in range(10):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.int16), format="s16", layout="mono")
            frame.sample_rate = 48_000
            output.mux(track.encode(frame))
        output.mux(track.encode())
    return target.getvalue()


def _picture(make: Make) -> Callable[[Any], dict[str, Any]]:
    return lambda _: shown(data_url(make(), "application/octet-stream"), **SMALL)


def _clip(make: Make) -> Callable[[Any], dict[str, Any]]:
    def body(_: Any) -> dict[str, Any]:
        part = {"type": "video_url", "video_url": {"url": data_url(make(), "application/octet-stream")}, **SMALL}
        return said([{**part, "nframes": 2}, text("What happens?")])

    return body


def _scan(make: Make) -> Callable[[Any], dict[str, Any]]:
    def body(_: Any) -> dict[str, Any]:
        return said([{"type": "file", "file": {"file_data": data_url(make(), "image/tiff")}, **SMALL}, text("Read.")])

    return body


CASES: Final[dict[str, Case]] = {
    **{name: refused(_picture(make), code, PICTURE) for name, (make, code) in PICTURES_REFUSED.items()},
    **{name: answered(_picture(make)) for name, make in PICTURES_ANSWERED.items()},
    **{f"a clip, {name}": refused(_clip(make), code, CLIP) for name, (make, code) in CLIPS_REFUSED.items()},
    **{f"a clip, {name}": answered(_clip(make)) for name, make in CLIPS_ANSWERED.items()},
    **{f"a scan, {name}": refused(_scan(make), code, FILE) for name, (make, code) in SCANS_REFUSED.items()},
    "a scan of 16 pages": answered(_scan(lambda: scan(16, compression="group4"))),
}
