"""The pages of a PDF come out as a viewer shows them, or the document is refused by name."""

import ctypes
import io
import math
import resource
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pypdfium2
import pypdfium2.internal.bases
import pypdfium2.raw
import pytest
from PIL import Image, ImageDraw, ImageFont

from server.demo.fonts import FONT_DIR
from server.errors import BadRequest, InvalidFile
from server.media.decoding.pdf import Pixels, draw_pages, pixel_size
from server.media.limits import DocumentLimits
from tests.fuzz.pdf_files import assemble, document, encrypted, form, locked, stream

LIMITS = DocumentLimits()
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
RED_CORNER = b"1 0 0 rg 0 0 50 50 re f"
"""Below, at the left, where a page's coordinates begin."""


@pytest.fixture(autouse=True)
def everything_is_closed() -> Iterator[None]:
    yield
    assert [kind.__name__ for kind, handles in pypdfium2.internal.bases.ObjectTracker.items() if handles] == []


def drawn(data: bytes, *pages: tuple[int, int | None], dpi: float | None = 72, **limits: Any) -> dict[int, Pixels]:
    return {page.number: page.pixels for page in draw_pages(data, pages, dpi, DocumentLimits(**limits))}


def only(data: bytes, dpi: float | None = 72, **limits: Any) -> Pixels:
    (pixels,) = drawn(data, dpi=dpi, **limits).values()
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    return pixels


def refusal(data: bytes, *pages: tuple[int, int | None], limits: DocumentLimits = LIMITS) -> InvalidFile:
    with pytest.raises(InvalidFile) as caught:
        list(draw_pages(data, pages, None, limits, param="here"))
    assert caught.value.param == "here"
    return caught.value


def colour(pixels: Pixels, x: int, y: int) -> tuple[int, ...]:
    """Of a pixel; x goes right and y down."""
    return tuple(pixels[y, x].tolist())


def pictures(*colours: tuple[int, int, int]) -> bytes:
    """A PDF of one picture a page, as scanners write them."""
    first, *others = (Image.new("RGB", (160, 80), each) for each in colours)
    target = io.BytesIO()
    first.save(target, "PDF", resolution=72, save_all=True, append_images=others)
    return target.getvalue()


# ---- Pages ------------------------------------------------------------------------------------------


def test_pages_come_in_order_with_their_numbers_and_colours() -> None:
    pages = drawn(pictures(RED, GREEN, BLUE))
    assert list(pages) == [1, 2, 3]
    for pixels, expected in zip(pages.values(), (RED, GREEN, BLUE), strict=True):
        assert pixels.shape == (80, 160, 3)
        assert np.abs(pixels.astype(int) - expected).max() <= 3


FIVE = document(*[RED_CORNER] * 5)


@pytest.mark.parametrize(
    ("pages", "expected"),
    [
        ([], [1, 2, 3, 4, 5]),
        ([(2, 2)], [2]),
        ([(4, None)], [4, 5]),
        ([(5, 5), (1, 2)], [5, 1, 2]),
        ([(1, None)], [1, 2, 3, 4, 5]),
        ([(2, 3), (3, 3)], [2, 3, 3]),
    ],
)
def test_pages_are_chosen_as_they_are_named(pages: list[tuple[int, int | None]], expected: list[int]) -> None:
    assert [page.number for page in draw_pages(FIVE, pages, None, LIMITS)] == expected


@pytest.mark.parametrize(
    ("pages", "missing"), [((6, 6), 6), ((6, None), 6), ((4, 9), 9), ((0, 2), 0), ((3, 2), 2), ((1, 2**60), 2**60)]
)
def test_a_page_that_is_not_there_is_named_with_the_number_of_pages(
    pages: tuple[int, int | None], missing: int
) -> None:
    error = refusal(FIVE, (1, 1), pages)
    assert error.code == "invalid_file"
    assert error.message == f"The document has 5 pages: page {missing} is not among them."
    assert "has 1 page:" in refusal(document(b""), (2, 2)).message


def test_more_pages_than_allowed_are_refused_before_any_is_drawn() -> None:
    limits = DocumentLimits(max_pages=4)
    error = refusal(FIVE, limits=limits)
    assert error.code == "file_too_large"
    assert error.message == (
        "The document has 5 pages, and this server reads at most 4 of one: "
        'choose at most 4 with "pages", such as "1-4".'
    )
    assert refusal(FIVE, (1, 3), (2, 3), limits=limits).message.startswith("5 pages are asked for: choose at most 4")
    assert len(list(draw_pages(FIVE, [(2, 5)], None, limits))) == 4


def test_a_number_of_pages_that_is_a_lie_is_not_believed() -> None:
    data = document(RED_CORNER)
    for lie in (b"/Count 999999999", b"/Count -7"):
        assert list(drawn(data.replace(b"/Count 1", lie))) == [1]


# ---- Size -------------------------------------------------------------------------------------------


def test_dots_an_inch_are_those_asked_for_or_the_servers() -> None:
    data = document(b"")
    assert only(data, dpi=72).shape == (100, 200, 3)
    assert only(data, dpi=300).shape == (417, 833, 3)
    assert only(data, dpi=None).shape == (208, 417, 3)
    assert only(data, dpi=None, default_dpi=36).shape == (50, 100, 3)
    assert only(data, dpi=None, max_dpi=72).shape == (100, 200, 3)


@pytest.mark.parametrize("dpi", [0, -72, 0.5, 301, math.inf, math.nan])
def test_other_dots_an_inch_are_refused(dpi: float) -> None:
    with pytest.raises(BadRequest, match=r"dpi must be from 1 to 300") as caught:
        next(draw_pages(document(b""), (), dpi, LIMITS, param="here"))
    assert caught.value.param == "here"


def test_a_large_page_is_drawn_at_fewer_dots_an_inch() -> None:
    poster = document(b"0 0 1 rg 0 0 14400 7200 re f", box=b"0 0 14400 7200")
    pixels = only(poster, dpi=300, max_pixels=20_000)
    assert pixels.shape == (100, 200, 3)
    assert colour(pixels, 100, 50) == BLUE


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((595.276, 841.89), (1754, 1240)),
        ((0.0, 0.0), (2, 2)),
        ((-5.0, 200.0), (417, 2)),
        ((math.nan, 72.0), (150, 2)),
        ((math.inf, math.inf), (5000, 5000)),
        ((1e30, 1.0), (2, 2_083_333)),
        ((14400.0, 14400.0), (5000, 5000)),
    ],
)
def test_no_page_is_larger_than_the_limit_or_smaller_than_a_pixel(
    size: tuple[float, float], expected: tuple[int, int]
) -> None:
    assert pixel_size(*size, 150.0, 25_000_000) == expected


@pytest.mark.parametrize(
    "box",
    [b"0 0 0 0", b"0 0 1e30 1e30", b"0 0 99999999999 5", b"a b c d", b"0 0", b"-1e38 -1e38 1e38 1e38", b"0 0 .001 9e4"],
)
def test_a_page_of_absurd_size_is_still_a_page(box: bytes) -> None:
    pixels = only(document(RED_CORNER, box=box), max_pixels=1_000_000)
    assert 0 < pixels.size <= 3_000_000


def test_a_page_may_be_drawn_in_the_very_size_it_is_wanted_in() -> None:
    asked: list[tuple[int, int]] = []

    def fit(height: int, width: int) -> tuple[int, int]:
        asked.append((height, width))
        return 56, 84

    ((_, pixels, _),) = draw_pages(document(RED_CORNER), (), 72, LIMITS, fit=fit)
    assert asked == [(100, 200)]
    assert pixels.shape == (56, 84, 3)
    assert colour(pixels, 5, 50) == RED
    assert colour(pixels, 50, 5) == WHITE


def test_what_fit_raises_passes_through() -> None:
    def fit(height: int, width: int) -> tuple[int, int]:
        raise BadRequest("no room")

    with pytest.raises(BadRequest, match="no room"):
        list(draw_pages(document(b""), (), None, LIMITS, fit=fit))


def test_only_pages_that_are_asked_for_are_drawn() -> None:
    pages = draw_pages(FIVE, (), None, LIMITS)
    assert next(pages)[0] == 1
    pages.close()  # type: ignore[attr-defined]


# ---- What is on a page ------------------------------------------------------------------------------


@pytest.mark.parametrize(("turn", "place"), [(0, (10, 90)), (90, (10, 10)), (180, (190, 10)), (270, (90, 190))])
def test_a_page_is_turned_as_in_a_viewer(turn: int, place: tuple[int, int]) -> None:
    pixels = only(document(RED_CORNER, page=b"/Rotate %d" % turn))
    assert pixels.shape == ((100, 200, 3) if turn % 180 == 0 else (200, 100, 3))
    assert colour(pixels, *place) == RED
    assert (pixels == RED).all(-1).sum() == 2500
    assert (pixels == WHITE).all(-1).sum() == 20_000 - 2500


def test_a_page_is_cropped_as_in_a_viewer() -> None:
    pixels = only(document(RED_CORNER, page=b"/CropBox[25 25 125 75]"))
    assert pixels.shape == (50, 100, 3)
    assert colour(pixels, 24, 26) == RED
    assert colour(pixels, 26, 26) == WHITE


def test_transparency_goes_onto_white() -> None:
    half = document(b"/G gs 1 0 0 rg 0 0 200 100 re f", page=b"/Resources<</ExtGState<</G<</ca .5>>>>>>")
    assert np.abs(only(half)[50, 50].astype(int) - (255, 128, 128)).max() <= 1


SQUARE = b"0 0 20 20"


def test_form_fields_and_annotations_are_drawn_and_hidden_ones_are_not() -> None:
    annotations = [
        b"<</Type/Annot/Subtype/Widget/FT/Tx/T(a)/Rect[60 10 80 30]/F 4/AP<</N 11 0 R>>>>",
        form(b"0 0 1 rg 0 0 20 20 re f", box=SQUARE),
        b"<</Type/Annot/Subtype/Stamp/Rect[100 10 120 30]/F 4/AP<</N 13 0 R>>>>",
        form(b"0 1 0 rg 0 0 20 20 re f", box=SQUARE),
        b"<</Type/Annot/Subtype/Stamp/Rect[140 10 160 30]/F 2/AP<</N 13 0 R>>>>",
    ]
    data = document(
        RED_CORNER,
        page=b"/Annots[10 0 R 12 0 R 14 0 R]",
        catalogue=b"/AcroForm<</Fields[10 0 R]>>",
        more=annotations,
    )
    pixels = only(data)
    assert [colour(pixels, x, 80) for x in (10, 70, 110, 150)] == [RED, BLUE, GREEN, WHITE]
    assert {tuple(each) for each in np.unique(pixels.reshape(-1, 3), axis=0).tolist()} == {RED, GREEN, BLUE, WHITE}


def test_actions_scripts_and_files_inside_do_nothing() -> None:
    assert list(pypdfium2.PDFIUM_INFO.flags) == [], "this PDFium has a JavaScript engine or XFA"
    script = b"<</S/JavaScript/JS(app.alert\\(1\\); this.getField\\('a'\\).value = 'x';)>>"
    data = document(
        RED_CORNER,
        page=b"/AA<</O %b>>/Annots[<</Type/Annot/Subtype/Link/Rect[0 0 9 9]/A<</S/Launch/F(/bin/true)>>>>]" % script,
        catalogue=b"/OpenAction %b/Names<</JavaScript<</Names[(a) %b]>>/EmbeddedFiles<</Names[(b) 10 0 R]>>>>"
        b"/AcroForm<</Fields[]/XFA[(template) 12 0 R]>>" % (script, script),
        more=[b"<</Type/Filespec/F(b)/EF<</F 11 0 R>>>>", stream(b"file"), stream(b"<xdp/>")],
    )
    assert colour(only(data), 10, 90) == RED


def typeset(glyphs: str, font_file: str, size: float) -> bytes:
    """A page of 200 x 100 points with an embedded font, its glyphs from left to right."""
    target = io.BytesIO()
    with open(font_file, "rb") as file:
        font_data = file.read()
    text = (glyphs + "\0").encode("utf-16-le")
    raw = pypdfium2.raw
    with pypdfium2.PdfDocument.new() as new:
        page = new.new_page(200, 100)
        copied = (ctypes.c_ubyte * len(font_data)).from_buffer_copy(font_data)
        font = raw.FPDFText_LoadFont(new, copied, len(font_data), raw.FPDF_FONT_TRUETYPE, True)
        line = raw.FPDFPageObj_CreateTextObj(new, font, size)
        assert raw.FPDFText_SetText(line, (raw.FPDF_WCHAR * (len(text) // 2)).from_buffer_copy(text))
        raw.FPDFPageObj_Transform(line, 1, 0, 0, 1, 20, 40)
        raw.FPDFPage_InsertObject(page, line)
        page.gen_content()
        new.save(target)
        raw.FPDFFont_Close(font)
        page.close()
    return target.getvalue()


def ink(pixels: np.ndarray) -> np.ndarray:
    """Where it is dark, without the margins."""
    dark = pixels < 128
    rows, columns = np.flatnonzero(dark.any(1)), np.flatnonzero(dark.any(0))
    return dark[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Ink that two drawings share over ink that either has."""
    height, width = (min(sides) for sides in zip(one.shape, other.shape, strict=True))
    one, other = one[:height, :width], other[:height, :width]
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize("name", ["DejaVuSans.ttf", "NotoNaskhArabic-Regular.ttf"])
def test_arabic_in_an_embedded_font_is_drawn_right(name: str) -> None:
    font_file = str(FONT_DIR / name)
    # A PDF holds glyphs, not letters: the shaped word, from left to right.
    pixels = only(typeset("\ufee1\ufefc\ufeb3", font_file, 36), dpi=150)
    expected = Image.new("L", (400, 200), 255)
    ImageDraw.Draw(expected).text((50, 40), "سلام", font=ImageFont.truetype(font_file, 75), fill=0)
    assert likeness(ink(pixels[..., 0]), ink(np.asarray(expected))) > 0.8
    assert likeness(ink(pixels[..., 0]), ink(np.asarray(expected))[:, ::-1]) < 0.5


# ---- Refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (b"", "empty_file", "empty"),
        (b"hello", "invalid_file_format", "not a PDF"),
        (b" " * 2000 + document(b""), "invalid_file_format", "not a PDF"),
        (b"%PDF-1.7\n", "file_parse_error", "damaged"),
        (document(b"")[:150], "file_parse_error", "damaged"),
        (document(), "file_parse_error", "no pages"),
        (document(b"").replace(b"/Kids[10 0 R]", b"/Kids[2 0 R]"), "file_parse_error", "Page 1"),
        (document(b"").replace(b"/Kids[10 0 R]", b"/Kids[99 0 R]"), "file_parse_error", "damaged"),
        (locked(), "invalid_file", "password"),
        (locked(b"/Filter/Foo/V 1/R 2/P -4"), "invalid_file", "encrypted"),
    ],
)
def test_files_that_cannot_be_read_are_refused(data: bytes, code: str, words: str) -> None:
    error = refusal(data)
    assert error.code == code
    assert words in error.message


def test_a_document_that_is_only_locked_against_changes_is_read() -> None:
    assert colour(only(encrypted(RED_CORNER)), 10, 90) == RED


PASSWORDS = ["open", "ünïcode", "a" * 32]


@pytest.mark.parametrize("password", PASSWORDS)
def test_a_document_under_a_password_is_read_with_it_and_not_without(password: str) -> None:
    data = encrypted(RED_CORNER, password.encode("latin-1"))
    ((_, pixels, _),) = draw_pages(data, (), 72, LIMITS, password=password)
    assert colour(pixels, 10, 90) == RED
    assert refusal(data).message == (
        'The document is protected by a password: name it as "password" in the same object.'
    )


@pytest.mark.parametrize("password", ["", "wrong", "\0", "\ud800", "x" * 1000])
def test_another_password_is_refused_with_the_field_that_it_stands_in(password: str) -> None:
    place = "messages[0].content[0].file"
    with pytest.raises(InvalidFile, match="not the password") as caught:
        next(draw_pages(encrypted(b"", b"open"), (), None, LIMITS, password=password, param=f"{place}.file_data"))
    assert (caught.value.code, caught.value.param) == ("invalid_file", f"{place}.password")
    assert len(password) < 5 or password not in caught.value.message


def test_a_password_that_nothing_asks_for_does_no_harm() -> None:
    for data in (document(RED_CORNER), encrypted(RED_CORNER)):
        ((_, pixels, _),) = draw_pages(data, (), 72, LIMITS, password="any")
        assert colour(pixels, 10, 90) == RED


WAIT = b"BT /F 9 Tf 9 50 Td (Please wait... If this message is not eventually replaced) Tj ET"
HELVETICA = b"/Resources<</Font<</F<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>>>>>"
XFA = b"/AcroForm<</Fields[]/XFA 10 0 R>>"
FORMS = {
    "dynamic": document(RED_CORNER, catalogue=XFA + b"/NeedsRendering true", more=[stream(b"<xdp/>")]),
    "that does not say so": document(WAIT, page=HELVETICA, catalogue=XFA, more=[stream(b"<xdp/>")]),
}


@pytest.mark.parametrize("kind", FORMS)
def test_an_xfa_form_whose_page_is_only_a_cover_is_refused_in_words(kind: str) -> None:
    error = refusal(FORMS[kind])
    assert error.code == "invalid_file"
    assert "dynamic XFA form" in error.message


def test_an_xfa_form_that_has_pages_is_drawn() -> None:
    assert colour(only(document(RED_CORNER, catalogue=XFA, more=[stream(b"<xdp/>")])), 10, 90) == RED


FILES = b"/Names<</EmbeddedFiles<</Names[(b) 10 0 R]>>>>"
FILE = [b"<</Type/Filespec/F(b)/EF<</F 11 0 R>>>>", stream(b"file")]


@pytest.mark.parametrize("view", [b"", b"/View/D", b"/View /T/Schema<<>>"])
def test_a_portfolio_is_refused_in_words(view: bytes) -> None:
    error = refusal(document(RED_CORNER, catalogue=FILES + b"/Collection<<%b>>" % view, more=FILE))
    assert error.code == "invalid_file"
    assert "portfolio" in error.message


def test_a_document_with_files_that_is_no_portfolio_is_drawn() -> None:
    for catalogue in (FILES, FILES + b"/Collection<</View/H>>", b"/Collection<<>>"):
        assert colour(only(document(RED_CORNER, catalogue=catalogue, more=FILE)), 10, 90) == RED
    two_pages = document(RED_CORNER, RED_CORNER, catalogue=FILES + b"/Collection<<>>", more=FILE)
    assert len(drawn(two_pages)) == 2


def in_an_object_stream(entries: bytes) -> bytes:
    """One page whose dictionary is packed, as most programs of today write it (ISO 32000-1, 7.5.7)."""
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 20 10]/Contents 4 0 R%b>>" % entries
    body = zlib.compress(b"3 0 " + page)
    packed = b"<</Type/ObjStm/N 1/First 4/Filter/FlateDecode/Length %d>>stream\n%b\nendstream" % (len(body), body)
    objects = {
        1: b"<</Type/Catalog/Pages 2 0 R>>",
        2: b"<</Type/Pages/Count 1/Kids[3 0 R]>>",
        4: stream(b"1 0 0 rg 0 0 5 5 re f"),
        5: packed,
    }
    file, places = b"%PDF-1.7\n", {}
    for number, content in objects.items():
        places[number] = len(file)
        file += b"%d 0 obj\n%b\nendobj\n" % (number, content)
    start = len(file)
    rows = [(0, 0, 65535), (1, places[1], 0), (1, places[2], 0), (2, 5, 0), (1, places[4], 0), (1, places[5], 0)]
    table = b"".join(struct.pack(">BIH", *row) for row in [*rows, (1, start, 0)])
    index = b"<</Type/XRef/Size 7/W[1 4 2]/Root 1 0 R/Length %d>>stream\n%b\nendstream" % (len(table), table)
    return file + b"6 0 obj\n%b\nendobj\nstartxref\n%d\n%%%%EOF\n" % (index, start)


@pytest.mark.parametrize(("unit", "shape"), [(b"4", (40, 80, 3)), (b"1.5", (15, 30, 3)), (b"0", (10, 20, 3))])
def test_the_unit_of_a_page_counts(unit: bytes, shape: tuple[int, ...]) -> None:
    plain = document(b"1 0 0 rg 0 0 5 5 re f", box=b"0 0 20 10", page=b"/UserUnit " + unit)
    for data in (plain, in_an_object_stream(b"/UserUnit " + unit)):
        pixels = only(data)
        assert pixels.shape == shape
        assert colour(pixels, 1, shape[0] - 2) == RED
        assert colour(pixels, shape[1] // 2, 1) == WHITE


def test_every_page_has_a_unit_of_its_own() -> None:
    data = document(b"", b"", b"", box=b"0 0 20 10", page=b"/UserUnit 4")
    first = data.index(b"/UserUnit 4")
    data = data[:first] + b"           " + data[first + 11 :]
    assert [pixels.shape for pixels in drawn(data).values()] == [(10, 20, 3), (40, 80, 3), (40, 80, 3)]


def test_an_absurd_unit_makes_no_larger_page_than_allowed() -> None:
    for unit in (b"1000000", b"9" * 40, b".0001"):
        pixels = only(document(b"", page=b"/UserUnit " + unit), max_pixels=20_000)
        assert 0 < pixels.size <= 60_000


def test_bytes_before_the_header_and_a_broken_table_do_not_matter() -> None:
    data = document(RED_CORNER)
    for damaged in (
        b"rubbish\n" * 100 + data,
        data.replace(b"startxref\n", b"startxref\n9"),
        data[: data.index(b"xref\n")] + b"trailer<</Root 1 0 R>>",
    ):
        assert colour(only(damaged), 10, 90) == RED


@pytest.mark.parametrize("seed", range(40))
def test_random_damage_never_escapes_as_another_error(seed: int) -> None:
    chance = np.random.default_rng(seed)
    data = bytearray([pictures(RED, BLUE), FIVE, encrypted(RED_CORNER)][seed % 3])
    for place in chance.integers(8, len(data), 12):
        data[place] = chance.integers(256)
    try:
        list(draw_pages(bytes(data), (), 36, LIMITS))
    except InvalidFile as error:
        assert error.code in ("file_parse_error", "invalid_file")  # noqa: PT017 - many come out whole


# ---- Documents made to do harm ----------------------------------------------------------------------

NEXT = b"/Resources<</XObject<</X %d 0 R>>>>"
IMAGE = b"/Type/XObject/Subtype/Image/ColorSpace/DeviceGray/BitsPerComponent 1/Width %d/Height %d"
HARM = {
    "a form that draws itself": document(b"/X Do", page=NEXT % 10, more=[form(b"/X Do", NEXT % 10)]),
    "two forms that draw each other": document(
        b"/X Do", page=NEXT % 10, more=[form(b"/X Do", NEXT % 11), form(b"/X Do", NEXT % 10)]
    ),
    "300 forms in each other": document(
        b"/X Do", page=NEXT % 10, more=[form(b"/X Do", NEXT % (11 + depth)) for depth in range(300)]
    ),
    "arrays in arrays": document(b"[" * 1_000_000),
    "arrays in arrays outside": document(b"", page=b"/A" + b"[" * 200_000),
    "states never restored": document(b"q " * 100_000),
    "a picture of 400 megapixels": document(
        b"/X Do", page=NEXT % 10, more=[stream(bytes(2**20), IMAGE % (20_000, 20_000), packed=True)]
    ),
    "a picture wider than an integer": document(
        b"/X Do", page=NEXT % 10, more=[stream(b"", IMAGE % (2**31 - 1, 2**31 - 1), packed=True)]
    ),
    "a catalogue in itself": assemble({1: b"<</Type/Catalog/Pages 1 0 R/Kids[1 0 R]/Count 1>>"}),
    "a table that refers to itself": document(b"", trailer=b"/Prev 9"),
}


@pytest.mark.parametrize("name", HARM)
def test_a_document_made_to_do_harm_is_soon_done_with(name: str) -> None:
    started = time.process_time()
    try:
        assert only(HARM[name]).shape == (100, 200, 3)
    except InvalidFile as error:
        assert error.code == "file_parse_error"  # noqa: PT017 - either is right
    assert time.process_time() - started < 5


def test_what_inflates_is_bounded_by_pdfium() -> None:
    page = document(b"", page=b"").replace(
        b"<</Length 0>>stream\n\nendstream", stream(b"\n" * 20_000_000 + RED_CORNER, packed=True)
    )
    assert len(page) < 30_000
    assert colour(only(page), 10, 90) == RED


ENDLESS = document(b"/X Do", page=NEXT % 10, more=[form(b"/X Do /X Do", NEXT % 10)])
"""Twice as much to draw at every depth, more than any memory holds."""
IN_A_WORKER = """
import sys
from server.media.limits import DocumentLimits
from server.media.decoding.pdf import draw_pages
list(draw_pages(sys.stdin.buffer.read(), (), None, DocumentLimits()))
"""


def test_a_limit_of_memory_ends_what_pdfium_would_not() -> None:
    """The reason why it runs in a worker process: PDFium aborts the process when memory is refused."""
    ended = subprocess.run(
        [sys.executable, "-c", IN_A_WORKER],
        input=ENDLESS,
        capture_output=True,
        timeout=200,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30)),
    )
    assert ended.returncode < 0
    assert b"Traceback" not in ended.stderr


@pytest.mark.parametrize("wrong", [{"max_pages": 0}, {"max_pixels": 0}, {"max_dpi": 0.5}, {"default_dpi": math.nan}])
def test_limits_that_let_nothing_through_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="limits"):
        DocumentLimits(**wrong)
