"""Picture files that are bombs, damaged, of other kinds, or merely unusual. What people really have is answered."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from PIL import Image, ImageCms

from tests.e2e.asking import data_url, encoded
from tests.hostile.case import URL, Case, answered, refused, shown
from tests.hostile.house import House
from tests.hostile.packing import MIB, repeated

Make = Callable[[], bytes]

PNG_HEAD: Final = b"\x89PNG\r\n\x1a\n"


def picture(mode: str = "RGB", size: tuple[int, int] = (64, 48), colour: Any = None) -> Image.Image:
    colours = {"RGB": (200, 30, 40), "RGBA": (200, 30, 40, 120), "CMYK": (10, 200, 30, 40), "LA": (90, 120)}
    return Image.new(mode, size, colours.get(mode, 1) if colour is None else colour)


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    return encoded(image, form, **options)


def noise(width: int = 64, height: int = 48) -> Image.Image:
    """Different everywhere, so that a file of it has something to break."""
    return Image.frombytes("RGB", (width, height), bytes((x * 7919 >> 3) % 256 for x in range(width * height * 3)))


# ---- PNG by hand ------------------------------------------------------------------------------------


def chunk(kind: bytes, content: bytes = b"", crc: int | None = None) -> bytes:
    crc = zlib.crc32(kind + content) if crc is None else crc
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


def png(
    width: int, height: int, pixels: bytes, *, bits: int = 8, colour: int = 2, lace: int = 0, extra: bytes = b""
) -> bytes:
    """A PNG whose header may say anything."""
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, lace)
    return PNG_HEAD + chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(pixels, 9)) + chunk(b"IEND")


def rows(width: int, height: int, row_bytes: int) -> bytes:
    return (b"\x00" + bytes(row_bytes)) * height


def small(extra: bytes = b"", **options: Any) -> bytes:
    return png(8, 8, rows(8, 8, 24), extra=extra, **options)


def too_much_inside() -> bytes:
    """8x8 pixels, and 200 MB of zeros behind them."""
    head = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    return PNG_HEAD + chunk(b"IHDR", head) + chunk(b"IDAT", repeated(bytes(MIB), 200)) + chunk(b"IEND")


def text_bomb(kind: bytes) -> bytes:
    """100 MB of zeros where a comment or a profile is packed."""
    middle = {b"zTXt": b"a\x00\x00", b"iCCP": b"a\x00\x00", b"iTXt": b"a\x00\x01\x00\x00\x00"}[kind]
    return small(chunk(kind, middle + repeated(bytes(MIB), 100)))


def animated_png(frames: int) -> bytes:
    images = [picture(colour=(number % 256, 0, 0)) for number in range(frames)]
    return saved(images[0], "PNG", save_all=True, append_images=images[1:])


# ---- JPEG by hand -----------------------------------------------------------------------------------


def jpeg(**options: Any) -> bytes:
    return saved(noise(), "JPEG", **options)


def with_segment(marker: int, content: bytes, times: int = 1) -> bytes:
    """A JPEG with more segments at its beginning."""
    segment = struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content
    whole = jpeg()
    return whole[:2] + segment * times + whole[2:]


def with_exif(content: bytes) -> bytes:
    return with_segment(0xE1, b"Exif\x00\x00" + content)


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(noise(), "JPEG", exif=exif)


def looping_exif() -> bytes:
    """An IFD whose next IFD, and whose Exif IFD, is itself."""
    entry = struct.pack("<HHII", 0x8769, 4, 1, 8)
    return with_exif(b"II*\x00" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 8))


def far_exif() -> bytes:
    """Entries that point far outside, and claim four billion values."""
    entries = b"".join(struct.pack("<HHII", tag, 2, 0xFFFFFFFF, 0xFFFFFFF0) for tag in range(0x0100, 0x0140))
    return with_exif(b"II*\x00" + struct.pack("<IH", 8, 64) + entries)


def with_size(width: int, height: int) -> bytes:
    """A JPEG whose frame header says another size."""
    whole = bytearray(jpeg())
    at = whole.index(b"\xff\xc0")
    whole[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(whole)


def many_scans(times: int) -> bytes:
    """A progressive JPEG that refines itself again and again."""
    whole = saved(noise(), "JPEG", progressive=True)
    start = whole.rindex(b"\xff\xda")
    return whole[:start] + whole[start:-2] * times + b"\xff\xd9"


def grey_jpeg_of(components: int) -> bytes:
    """A frame header that claims other components than the scan has."""
    whole = bytearray(jpeg())
    whole[whole.index(b"\xff\xc0") + 9] = components
    return bytes(whole)


# ---- GIF and WebP by hand ---------------------------------------------------------------------------


def gif(width: int, height: int, frame: tuple[int, int, int, int], pixels: bytes = b"\x02\x02\x44\x01\x00") -> bytes:
    """A GIF whose screen and frame (left, top, width, height) may say anything."""
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    return head + b"," + struct.pack("<HHHHB", *frame, 0) + pixels + b";"


def animated(form: str, frames: int) -> bytes:
    images = [picture(colour=(number % 256, 0, 0)) for number in range(frames)]
    return saved(images[0], form, save_all=True, append_images=images[1:], duration=20, loop=0)


def webp_canvas(width: int, height: int) -> bytes:
    """An extended WebP whose canvas says anything and that holds a small picture."""
    inner = saved(picture(), "WEBP", lossless=True)[12:]
    body = b"VP8X" + struct.pack("<IBBH", 10, 0, 0, 0) + (width - 1).to_bytes(3, "little")
    body += (height - 1).to_bytes(3, "little") + inner
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def webp_size(width: int, height: int) -> bytes:
    """A lossless WebP whose own header says another size."""
    whole = bytearray(saved(noise(), "WEBP", lossless=True))
    bits = (width - 1) | (height - 1) << 14
    whole[21:25] = struct.pack("<I", bits)
    return bytes(whole)


# ---- Others -----------------------------------------------------------------------------------------


def psd() -> bytes:
    return b"8BPS\x00\x01" + bytes(6) + struct.pack(">HIIHH", 3, 30_000, 30_000, 8, 3) + bytes(12)


def polyglot() -> bytes:
    """A PNG that is a ZIP archive as well."""
    import zipfile

    buffer = io.BytesIO(saved(noise(), "PNG"))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("x.js", "alert(1)")
    return buffer.getvalue()


def profiled() -> bytes:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return saved(noise(), "JPEG", icc_profile=profile)


def flipped(content: bytes, at: int) -> bytes:
    """With one byte changed."""
    broken = bytearray(content)
    broken[at] ^= 0xFF
    return bytes(broken)


PARSE: Final = "image_parse_error"
LARGE: Final = "image_too_large"
OTHER: Final = "unsupported_image_media_type"
NONE: Final = "invalid_image_format"

REFUSED: Final[dict[str, tuple[Make, str]]] = {
    "a PNG of 50,000 x 50,000, it says": (lambda: png(50_000, 50_000, b""), LARGE),
    "a PNG of 13,000 x 13,000, all there": (lambda: saved(Image.new("1", (13_000, 13_000)), "PNG"), LARGE),
    "a PNG of 2**31 - 1, it says": (lambda: png(2**31 - 1, 2**31 - 1, b""), LARGE),
    "a PNG of 2**32 - 1, it says": (lambda: png(2**32 - 1, 2**32 - 1, b""), LARGE),
    "a PNG a pixel too large": (lambda: png(10_000, 10_001, b""), LARGE),
    "a PNG one pixel high and very wide": (lambda: png(200_000_000, 1, b""), LARGE),
    "a PNG that holds nothing of what it says": (lambda: png(9_000, 9_000, b"", bits=1, colour=0), PARSE),
    "a PNG without width": (lambda: png(0, 8, b""), PARSE),
    "a PNG of 3 bits": (lambda: png(8, 8, b"", bits=3), PARSE),
    "a PNG of colour type 7": (lambda: png(8, 8, b"", colour=7), PARSE),
    "a PNG with a palette it lacks": (lambda: png(8, 8, rows(8, 8, 8), colour=3), PARSE),
    "a PNG cut in its head": (lambda: small()[:20], PARSE),
    "a PNG cut in its pixels": (lambda: saved(noise(), "PNG")[:-200], PARSE),
    "a PNG with a damaged width": (lambda: flipped(small(), 18), "invalid_image"),
    "a PNG with a damaged kind of colour": (lambda: flipped(small(), 25), PARSE),
    "a PNG with damaged pixels": (lambda: flipped(saved(noise(), "PNG"), 100), PARSE),
    "a PNG with a chunk of 2 GB, it says": (lambda: small(b"\x7f\xff\xff\xffaAAA"), PARSE),
    "a PNG with nothing but a head": (lambda: PNG_HEAD, PARSE),
    "a JPEG of 65,500 x 65,500, it says": (lambda: with_size(65_500, 65_500), LARGE),
    "a JPEG without height": (lambda: with_size(64, 0), PARSE),
    "a JPEG without width": (lambda: with_size(0, 48), PARSE),
    "a JPEG cut in its head": (lambda: jpeg()[:200], PARSE),
    "a JPEG cut in its pixels": (lambda: jpeg()[:-300], PARSE),
    "a JPEG of three bytes": (lambda: b"\xff\xd8\xff", PARSE),
    "a JPEG of scans without end": (lambda: many_scans(500), PARSE),
    "a JPEG of 255 components": (lambda: grey_jpeg_of(255), PARSE),
    "a JPEG without tables": (lambda: jpeg().replace(b"\xff\xdb", b"\xff\xee"), PARSE),
    "a GIF of 65,535 x 65,535, it says": (lambda: gif(65_535, 65_535, (0, 0, 1, 1)), LARGE),
    "a GIF with a frame far outside": (lambda: gif(8, 8, (60_000, 60_000, 60_000, 60_000)), LARGE),
    "a GIF without frames": (lambda: b"GIF89a" + struct.pack("<HHBBB", 8, 8, 0, 0, 0) + b";", PARSE),
    "a GIF cut off": (lambda: animated("GIF", 3)[:60], PARSE),
    "a GIF of bad codes": (lambda: gif(64, 64, (0, 0, 64, 64), b"\x0c\xff" + b"\xff" * 255 + b"\x00"), PARSE),
    "a WebP canvas of 2**24": (lambda: webp_canvas(1 << 24, 1 << 24), LARGE),
    "a WebP canvas of 16,383": (lambda: webp_canvas(16_383, 16_383), LARGE),
    "a WebP of 16,384 x 16,384, it says": (lambda: webp_size(16_384, 16_384), LARGE),
    "a WebP cut off": (lambda: saved(noise(), "WEBP")[:-100], PARSE),
    "a WebP of nothing": (lambda: b"RIFF\x04\x00\x00\x00WEBP", PARSE),
    "201 times as wide as high": (lambda: saved(picture(size=(201, 1)), "PNG"), "invalid_image"),
    "201 times as high as wide": (lambda: saved(picture(size=(2, 402)), "PNG"), "invalid_image"),
    "60,000 times as wide as high": (lambda: saved(picture("1", (60_000, 1)), "PNG"), "invalid_image"),
    "SVG": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>', OTHER),
    "SVG with entities": (lambda: b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "aaa">]><svg>&a;</svg>', NONE),
    "EPS": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run", OTHER),
    "PSD": (psd, OTHER),
    "ICO": (lambda: saved(picture(size=(32, 32)), "ICO"), OTHER),
    "PPM": (lambda: saved(picture(), "PPM"), NONE),
    "TGA": (lambda: saved(picture(), "TGA"), NONE),
    "JPEG 2000": (lambda: saved(picture(), "JPEG2000"), OTHER),
    "WMF": (lambda: b"\xd7\xcd\xc6\x9a" + bytes(100), NONE),
    "ImageMagick's MVG": (lambda: b"push graphic-context\nimage over 0,0 0,0 'url:http://127.0.0.1/'", NONE),
    "ImageMagick's MSL": (lambda: b'<?xml version="1.0"?><image><read filename="/etc/passwd"/></image>', NONE),
    "a ZIP archive": (lambda: b"PK\x03\x04" + bytes(100), OTHER),
    "a pickle": (lambda: b"cposix\nsystem\n(S'true'\ntR.", NONE),
    "a program": (lambda: b"\x7fELF\x02\x01\x01" + bytes(100), NONE),
    "a PNG behind a byte": (lambda: b"\x00" + small(), NONE),
    "a NumPy array of objects": (lambda: b"\x93NUMPY\x01\x00" + bytes(100), NONE),
}
ANSWERED: Final[dict[str, Make]] = {
    "1x1": lambda: saved(picture(size=(1, 1)), "PNG"),
    "1x1 JPEG": lambda: saved(picture(size=(1, 1)), "JPEG"),
    "1x1 GIF": lambda: saved(picture(size=(1, 1)), "GIF"),
    "200 times as wide as high": lambda: saved(picture(size=(200, 1)), "PNG"),
    "200 times as high as wide": lambda: saved(picture(size=(1, 200)), "PNG"),
    "100 megapixels in 12 KB": lambda: saved(Image.new("1", (10_000, 10_000)), "PNG"),
    "200 MB behind the pixels": too_much_inside,
    "a comment of 100 MB": partial(text_bomb, b"zTXt"),
    "a translation of 100 MB": partial(text_bomb, b"iTXt"),
    "a profile of 100 MB": partial(text_bomb, b"iCCP"),
    "a wrong checksum of what does not count": lambda: small(chunk(b"gAMA", bytes(4), crc=0)),
    "16 bits": lambda: png(8, 8, rows(8, 8, 48), bits=16),
    "16 bits of grey": lambda: saved(Image.new("I;16", (64, 48), 40_000), "PNG"),
    "1 bit": lambda: saved(picture("1"), "PNG"),
    "grey with transparency": lambda: saved(picture("LA"), "PNG"),
    "transparent": lambda: saved(picture("RGBA"), "PNG"),
    "a palette": lambda: saved(noise().quantize(16), "PNG"),
    "a palette with transparency": lambda: saved(noise().quantize(16), "PNG", transparency=bytes(range(0, 256, 16))),
    "a palette of one colour, all used": lambda: png(
        8, 8, (b"\x00" + bytes(range(8))) * 8, colour=3, extra=chunk(b"PLTE", b"\xff\x00\x00")
    ),
    "more transparencies than colours": lambda: png(
        8, 8, rows(8, 8, 8), colour=3, extra=chunk(b"PLTE", bytes(3)) + chunk(b"tRNS", bytes(256))
    ),
    "a transparent colour": lambda: saved(picture(), "PNG", transparency=(200, 30, 40)),
    "laced": lambda: png(8, 8, rows(8, 15, 24), lace=1),
    "an unknown chunk": lambda: small(chunk(b"abCd", bytes(1000))),
    "ten thousand chunks": lambda: small(chunk(b"tEXt", b"a\x00b") * 10_000),
    "an animated PNG": lambda: animated_png(20),
    "an animated GIF": lambda: animated("GIF", 100),
    "an animated WebP": lambda: animated("WEBP", 100),
    "a transparent GIF": lambda: saved(picture("RGBA").quantize(8), "GIF", transparency=0),
    "CMYK": lambda: saved(picture("CMYK"), "JPEG"),
    "a grey JPEG": lambda: saved(picture("L"), "JPEG"),
    "a progressive JPEG": lambda: jpeg(progressive=True),
    "a JPEG without subsampling": lambda: jpeg(subsampling=0),
    "a JPEG of quality 1": lambda: jpeg(quality=1),
    "a JPEG with restarts": lambda: jpeg(restart_marker_rows=1),
    "a JPEG with a profile": profiled,
    "a JPEG with a damaged profile": lambda: with_segment(0xE2, b"ICC_PROFILE\x00\x01\x01" + b"\xff" * 1000),
    "a JPEG with ten thousand comments": lambda: with_segment(0xFE, b"x", 10_000),
    "a JPEG with a megabyte of metadata": lambda: with_segment(0xE1, b"x" * 65_533, 16),
    "a JPEG with words behind it": lambda: jpeg() + b"<script>" * 1000,
    "several pictures in a JPEG": lambda: saved(noise(), "MPO", save_all=True, append_images=[noise()]),
    "corrupt EXIF": lambda: with_exif(b"II*\x00\xff\xff\xff\xff" + bytes(50)),
    "EXIF of nothing": lambda: with_exif(b""),
    "EXIF of noise": lambda: with_exif(bytes(range(256)) * 200),
    "EXIF in a loop": looping_exif,
    "EXIF that points outside": far_exif,
    "orientation 99": lambda: turned(99),
    **{f"orientation {number}": partial(turned, number) for number in (1, 2, 3, 4, 5, 6, 7, 8)},
    "a PNG that is a ZIP": polyglot,
    "WebP": lambda: saved(noise(), "WEBP"),
    "transparent WebP": lambda: saved(picture("RGBA"), "WEBP"),
}
"""What people have, and odd files that are right."""


def _body(make: Make, kind: str = "image/png") -> Callable[[House], dict[str, Any]]:
    return lambda _: shown(data_url(make(), kind), max_pixels=56 * 56)


CASES: Final[dict[str, Case]] = {
    **{name: refused(_body(make), code, URL) for name, (make, code) in REFUSED.items()},
    **{name: answered(_body(make)) for name, make in ANSWERED.items()},
}
