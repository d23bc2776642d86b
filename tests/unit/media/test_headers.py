"""The size of a picture from its first bytes: right, or not told."""

from __future__ import annotations

import io
import struct
from typing import Any

import pillow_heif
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from server.media.headers import size_in_header

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"

SIDES = st.integers(1, 300)


def save(width: int, height: int, kind: str, mode: str = "RGB", **options: Any) -> bytes:
    target = io.BytesIO()
    Image.new(mode, (width, height)).save(target, kind, **options)
    return target.getvalue()


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def with_segments(jpeg: bytes, *segments: bytes) -> bytes:
    """A JPEG with segments between its beginning and all else."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


@given(SIDES, SIDES, st.sampled_from(("1", "L", "P", "RGB", "RGBA", "I;16")))
def test_any_png_tells_its_size(width: int, height: int, mode: str) -> None:
    assert size_in_header(save(width, height, "PNG", mode)) == (width, height)


@given(SIDES, SIDES, st.sampled_from(("L", "RGB", "CMYK")), st.booleans(), st.booleans())
def test_any_jpeg_tells_its_size(width: int, height: int, mode: str, progressive: bool, optimize: bool) -> None:
    data = save(width, height, "JPEG", mode, progressive=progressive, optimize=optimize)
    assert size_in_header(data) == (width, height)


def test_the_small_picture_in_the_metadata_is_not_taken_for_the_picture() -> None:
    small = save(160, 120, "JPEG")
    data = with_segments(save(640, 480, "JPEG"), segment(0xE1, b"Exif\0\0" + small), segment(0xED, b"\xff\xc0" * 99))
    assert Image.open(io.BytesIO(data)).size == (640, 480)
    assert size_in_header(data) == (640, 480)


def test_metadata_of_many_kinds_are_passed_over() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = save(64, 48, "JPEG", exif=exif, icc_profile=b"x" * 100_000, comment=b"y" * 1000)
    assert size_in_header(data) == (64, 48), "as stored: nobody has turned it yet"


def test_fill_bytes_before_a_marker_mean_nothing() -> None:
    """T.81, B.1.1.2: any marker may have more 0xFF in front."""
    jpeg = save(64, 48, "JPEG")
    start = jpeg.index(b"\xff\xc0")
    filled = jpeg[:start] + b"\xff\xff\xff" + jpeg[start:]
    assert Image.open(io.BytesIO(filled)).size == (64, 48)
    assert size_in_header(filled) in {(64, 48), None}


@given(SIDES, SIDES, st.sampled_from(("GIF", "WEBP", "BMP", "DIB", "AVIF")))
@settings(max_examples=30, deadline=None)
def test_other_pictures_tell_it_too(width: int, height: int, kind: str) -> None:
    assert size_in_header(save(width, height, kind)) == (width, height)


@pytest.mark.parametrize("size", [(64, 64), (160, 96), (96, 160)])
def test_a_phones_picture_tells_it_too(size: tuple[int, int]) -> None:
    """But for small and odd ones, whose encoder writes the size of the larger picture that they are cut out of."""
    assert size_in_header(heic(*size)) == size


def heic(width: int, height: int) -> bytes:
    target = io.BytesIO()
    pillow_heif.from_pillow(Image.new("RGB", (width, height))).save(target)
    return target.getvalue()


def test_a_scan_tells_it_where_its_directory_stands_first() -> None:
    """As Pillow writes it; libtiff puts it behind the pixels."""
    assert size_in_header(save(64, 48, "TIFF")) == (64, 48)
    assert size_in_header(save(64, 48, "TIFF", "1", compression="group4")[:30]) is None


@pytest.mark.parametrize("kind", ["PPM", "ICO", "PDF"])
def test_other_files_do_not_tell(kind: str) -> None:
    assert size_in_header(save(64, 48, kind)) is None


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_head_that_ends_too_early_tells_the_size_or_nothing(kind: str) -> None:
    data = save(64, 48, kind)
    told = [size_in_header(data[:length]) for length in range(len(data) + 1)]
    first = told.index((64, 48))
    assert set(told[:first]) == {None}
    assert set(told[first:]) == {(64, 48)}


def test_no_side_is_nought() -> None:
    png = save(64, 48, "PNG")
    assert size_in_header(png[:16] + struct.pack(">2I", 0, 48) + png[24:]) is None
    assert size_in_header(JPEG + segment(0xC0, struct.pack(">B2H", 8, 48, 0) + b"\x03")) is None


@given(st.binary())
def test_no_bytes_break_it(data: bytes) -> None:
    size = size_in_header(data)
    assert size is None or min(size) > 0


@given(st.sampled_from((PNG, JPEG)), st.binary(max_size=200))
def test_no_bytes_after_a_good_beginning_break_it(start: bytes, data: bytes) -> None:
    size = size_in_header(start + data)
    assert size is None or min(size) > 0


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=20)), max_size=20), st.binary(max_size=20))
def test_no_segments_break_it(segments: list[tuple[int, bytes]], tail: bytes) -> None:
    size = size_in_header(JPEG + b"".join(segment(marker, body) for marker, body in segments) + tail)
    assert size is None or min(size) > 0


def test_a_head_of_nothing_but_segments_is_read_in_no_time() -> None:
    """The length of a segment counts its own two bytes: one that says nought goes on nevertheless."""
    assert size_in_header(JPEG + b"\xff\xe0\x00\x00" * 50_000) is None
