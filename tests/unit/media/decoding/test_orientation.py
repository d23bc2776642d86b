"""Where a picture file may say how it is to be turned; Pillow reads the same."""

from __future__ import annotations

import io
import struct
import time
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from server.media.decoding.decode import open_picture
from server.media.decoding.orientation import MAX_TEXT, XMP, Orientation
from server.media.limits import DecodeLimits

STORED = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))


def exif(orientation: int) -> bytes:
    return b"MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1" + struct.pack(">HxxI", orientation, 0)


def packet(orientation: int, form: str = "attribute") -> bytes:
    value = {
        "attribute": f'<rdf:Description tiff:Orientation="{orientation}"/>',
        "element": f"<rdf:Description><tiff:Orientation>{orientation}</tiff:Orientation></rdf:Description>",
    }[form]
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF>{value}</rdf:RDF></x:xmpmeta>'.encode()


def profile(data: bytes, name: bytes = b"exif") -> bytes:
    digits = data.hex()
    lines = "\n".join(digits[start : start + 72] for start in range(0, len(digits), 72))
    return b"\n%b\n%8d\n%b\n" % (name, len(data), lines.encode())


def saved(kind: str = "PNG") -> bytes:
    target = io.BytesIO()
    STORED.save(target, kind, **({"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}))
    return target.getvalue()


def png(*chunks: tuple[bytes, bytes], late: bool = False) -> bytes:
    data = saved()
    made = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    place = len(data) - 12 if late else 33
    return data[:place] + made + data[place:]


def jpeg(*segments: bytes) -> bytes:
    made = b"".join(b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body for body in segments)
    data = saved("JPEG")
    return data[:2] + made + data[2:]


def webp(*chunks: tuple[bytes, bytes]) -> bytes:
    body = saved("WEBP")[12:]
    flags = 0x0C  # EXIF and XMP
    head = b"VP8X" + struct.pack("<IB3x", 10, flags) + (63).to_bytes(3, "little") + (47).to_bytes(3, "little")
    more = b"".join(kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for kind, data in chunks)
    content = b"WEBP" + head + body + more
    return b"RIFF" + struct.pack("<I", len(content)) + content


def itxt(data: bytes, *, packed: bool = False) -> tuple[bytes, bytes]:
    text = zlib.compress(data) if packed else data
    return b"iTXt", b"XML:com.adobe.xmp\0" + (b"\1\0" if packed else b"\0\0") + b"\0\0" + text


def ztxt(data: bytes) -> tuple[bytes, bytes]:
    return b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(data)


def text(data: bytes, name: bytes = b"exif") -> tuple[bytes, bytes]:
    return b"tEXt", b"Raw profile type " + name + b"\0" + data


FORMS = {
    "EXIF in a PNG": lambda n: png((b"eXIf", exif(n))),
    "EXIF with its prefix in a PNG": lambda n: png((b"eXIf", b"Exif\0\0" + exif(n))),
    "XMP in a PNG": lambda n: png(itxt(packet(n))),
    "packed XMP in a PNG": lambda n: png(itxt(packet(n), packed=True)),
    "XMP in elements": lambda n: png(itxt(packet(n, "element"))),
    "XMP behind the pixels": lambda n: png(itxt(packet(n)), late=True),
    "ImageMagick's EXIF": lambda n: png(text(profile(b"Exif\0\0" + exif(n)))),
    "ImageMagick's EXIF, packed": lambda n: png(ztxt(profile(b"Exif\0\0" + exif(n)))),
    "EXIF in a JPEG": lambda n: jpeg(b"Exif\0\0" + exif(n)),
    "XMP in a JPEG": lambda n: jpeg(XMP + packet(n)),
    "EXIF in a JPEG, and XMP that says otherwise": lambda n: jpeg(XMP + packet(n % 8 + 1), b"Exif\0\0" + exif(n)),
    "EXIF that says nothing, and XMP": lambda n: jpeg(b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0", XMP + packet(n)),
    "XMP in a WebP": lambda n: webp((b"XMP ", packet(n))),
    "EXIF with its prefix in a WebP": lambda n: webp((b"EXIF", b"Exif\0\0" + exif(n))),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", FORMS)
def test_a_picture_is_turned_as_pillow_turns_it(form: str, orientation: int) -> None:
    data = FORMS[form](orientation)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    picture = open_picture(data, DecodeLimits())
    assert (picture.height, picture.width) == expected.shape[:2]
    assert np.array_equal(picture.pixels(), expected)
    assert (picture.width < picture.height) == (orientation > 4)


def test_the_other_name_of_imagemagicks_profile_is_known_too() -> None:
    picture = open_picture(png(text(profile(b"Exif\0\0" + exif(6), b"app1"), b"APP1")), DecodeLimits())
    assert (picture.width, picture.height) == (48, 64)


@pytest.mark.parametrize(
    "chunk",
    [
        itxt(b'tiff:Orientation="9"'),
        itxt(b'tiff:Orientation="'),
        itxt(b" " * MAX_TEXT + packet(6)),
        (b"iTXt", b"XML:com.adobe.xmp\0"),
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0garbage"),
        (b"zTXt", b"Raw profile type exif\0\0garbage"),
        (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(bytes(100_000_000))),
        text(b"\nexif\n  20\nnot hexadecimal\n"),
        text(b"\nexif\n" + b"9" * 100_000),
        text(b""),
        (b"tEXt", b'Comment\0tiff:Orientation="6"'),
    ],
    ids=range(11),
)
def test_damaged_or_boundless_metadata_do_not_spoil_the_picture(chunk: tuple[bytes, bytes]) -> None:
    picture = open_picture(png(chunk), DecodeLimits())
    assert (picture.width, picture.height) == STORED.size
    assert np.array_equal(picture.pixels(), np.asarray(STORED))


def test_texts_that_unpack_to_much_are_not_unpacked_for_ever() -> None:
    bombs = [(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(bytes(MAX_TEXT)))] * 9_000
    before = time.process_time()
    assert open_picture(png(*bombs), DecodeLimits()).width == 64
    assert time.process_time() - before < 1.0  # all of them would take ten seconds


@settings(deadline=None)
@given(
    st.sampled_from([b"tEXt", b"zTXt", b"iTXt"]),
    st.sampled_from([b"XML:com.adobe.xmp\0", b"Raw profile type exif\0", b"Raw profile type APP1\0"]),
    st.binary(max_size=60),
)
def test_any_text_of_a_png_leaves_an_orientation(kind: bytes, keyword: bytes, data: bytes) -> None:
    orientation = Orientation()
    orientation.add_png_text(kind, memoryview(keyword + data))
    orientation.add_exif(data)
    orientation.add_xmp(data)
    assert 1 <= orientation.value <= 8
