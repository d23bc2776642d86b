"""The one table of formats: it knows by its bytes every file that people send, and all that is said comes from it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from server.errors import MediaKind, invalid_media
from server.media import formats
from server.media.formats import FITS, FORMATS, HEAD_BYTES, PDF_WITHIN, Becomes, Decoder, foreign_name, recognised
from tests.media_files import FILES, saved

README = (Path(__file__).parents[3] / "README.md").read_text("utf-8")
NAMES = [one.name for one in FORMATS]
KINDS: tuple[MediaKind, ...] = get_args(MediaKind)


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_known_by_its_first_bytes(name: str) -> None:
    found = recognised(FILES[name]()[:HEAD_BYTES])
    assert found is not None
    assert found.name == name.partition(",")[0]


def test_there_is_a_file_of_every_format() -> None:
    assert {name.partition(",")[0] for name in FILES} == set(NAMES)


def test_every_format_has_names_and_a_decoder() -> None:
    assert len(set(NAMES)) == len(NAMES)
    for one in FORMATS:
        assert one.media_types
        assert one.endings
        assert one.becomes
        assert all(ending.startswith(".") for ending in one.endings)
        assert (one.clip is Decoder.FFMPEG) == bool(one.demuxer)
        pillow_reads = Decoder.PILLOW in (one.picture, one.pages, one.clip)
        assert pillow_reads == bool(one.plugin)
    labels = [label for one in FORMATS for label in one.media_types]
    assert len(set(labels)) == len(labels)


def test_the_readme_lists_every_format_with_its_endings() -> None:
    for one in FORMATS:
        made = ", ".join(one.becomes)
        endings = " ".join(f"`{ending}`" for ending in one.endings)
        assert f"| {one.name} | {endings} | {made} |" in README


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_file_becomes_depends_on_its_part_only_where_it_can_be_several(kind: MediaKind) -> None:
    for one in FORMATS:
        made = formats.made_of(one, kind)
        assert made is None or made in one.becomes
        if len(one.becomes) == 1 and one.becomes[0] in FITS[kind]:
            assert made == one.becomes[0]


@pytest.mark.parametrize(
    ("name", "kind", "made"),
    [
        ("PDF", "image", Becomes.PAGES),
        ("PDF", "file", Becomes.PAGES),
        ("PDF", "video", None),
        ("JPEG", "file", Becomes.PICTURE),
        ("JPEG", "video", Becomes.PICTURE),
        ("GIF", "image", Becomes.PICTURE),
        ("GIF", "video", Becomes.CLIP),
        ("GIF", "file", Becomes.PICTURE),
        ("WebP", "video", Becomes.CLIP),
        ("PNG", "video", Becomes.CLIP),
        ("TIFF", "image", Becomes.PAGES),
        ("TIFF", "file", Becomes.PAGES),
        ("TIFF", "video", Becomes.PICTURE),
        ("MP4", "image", Becomes.CLIP),
        ("MP4", "file", Becomes.CLIP),
    ],
)
def test_what_a_file_is_in_each_part(name: str, kind: MediaKind, made: Becomes | None) -> None:
    [found] = [one for one in FORMATS if one.name == name]
    assert formats.made_of(found, kind) == made


@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf", b"x" * (PDF_WITHIN - 5)])
def test_a_pdf_may_have_something_before_it(before: bytes) -> None:
    found = recognised(before + b"%PDF-1.7")
    assert found is not None
    assert found.name == "PDF"
    assert recognised(b"x" * PDF_WITHIN + b"%PDF-1.7") is None


@pytest.mark.parametrize(
    "brands", [b"mif1\0\0\0\0mif1heic", b"mif1\0\0\0\0miafMiHBheic", b"heix\0\0\0\0mif1", b"msf1\0\0\0\0hevc"]
)
def test_a_general_brand_is_what_stands_beside_it(brands: bytes) -> None:
    def name(brands: bytes) -> str | None:
        found = recognised(b"\0\0\0\x20ftyp" + brands)
        return found and found.name

    assert name(brands) == "HEIC"
    assert name(b"mif1\0\0\0\0mif1avif") == "AVIF"
    assert name(b"msf1\0\0\0\0msf1avis") == "animated AVIF"
    assert name(b"isom\0\0\0\0heic") == "MP4"


OTHERS = {
    "an icon": lambda: saved("ICO", Image.new("RGB", (32, 32))),
    "a JPEG 2000 picture": lambda: saved("JPEG2000"),
    "an SVG drawing": lambda: b"<?xml version='1.0'?>\n<!-- x -->\n<svg/>",
    "an HTML page": lambda: b"<!DOCTYPE html><html></html>",
    "a Photoshop document": lambda: b"8BPS\0\x01" + bytes(40),
    "a PostScript document": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n",
    "a camera's raw picture": lambda: b"\0\0\0\x18ftypcrx \0\0\0\1",
    "a playlist": lambda: b"#EXTM3U\nhttp://127.0.0.1/",
    "a Flash video": lambda: b"FLV\x01\x05",
    "an Ogg file": lambda: b"OggS\0\x02",
    "a sound file": lambda: b"RIFF\0\0\0\0WAVE",
    "an Office document": lambda: b"PK\x03\x04" + bytes(26) + b"word/document.xml",
    "a ZIP archive": lambda: b"PK\x03\x04" + bytes(26) + b"a.txt",
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("kind", KINDS)
def test_other_files_are_called_by_their_names(name: str, kind: MediaKind) -> None:
    head = OTHERS[name]()[:HEAD_BYTES]
    assert recognised(head) is None
    assert foreign_name(head) == name
    error = formats.unknown(head, kind, "here")
    assert error.message == f"The file is {name}: {formats.advice(kind)}"
    assert (error.code, error.param) == (f"unsupported_{kind}_media_type", "here")
    assert type(error) is type(invalid_media(kind, "", code="invalid_image"))


@pytest.mark.parametrize("kind", ["PCX", "PPM", "SGI", "TGA", "DDS"])
def test_what_pillow_could_open_and_nobody_sends_is_not_known(kind: str) -> None:
    target = io.BytesIO()
    Image.new("RGB", (16, 16)).save(target, kind)
    assert recognised(target.getvalue()) is None


def test_the_advice_names_the_formats_of_the_part() -> None:
    assert formats.advice("file") == "supported are PDF or TIFF."
    assert formats.advice("image").startswith("supported are JPEG, PNG, WebP, GIF, HEIC, ")
    assert formats.advice("video").startswith("supported are MP4, MOV, 3GP, WebM, ")


@given(st.binary(max_size=3000))
def test_no_bytes_break_it(data: bytes) -> None:
    assert recognised(data) is None or foreign_name(data) is None or data[4:8] == b"ftyp"
