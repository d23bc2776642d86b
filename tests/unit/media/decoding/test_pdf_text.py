"""Text whose letters a document does not hold is drawn with ours, joined where its alphabet wants that."""

from __future__ import annotations

import unicodedata
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from server.demo.fonts import FONT_DIR
from server.errors import InvalidFile
from server.media.decoding.pdf import DrawnPage, Pixels, draw_pages
from server.media.decoding.typeset import Style, has_letters, typeset
from server.media.limits import DocumentLimits
from tests.fuzz.pdf_files import assemble, document, form, stream

NASKH, SANS = "NotoNaskhArabic-Regular.ttf", "DejaVuSans.ttf"
GREETING = "مرحبا بالعالم 123"
DPI = 144
SIZE = 24
PIXELS = SIZE * DPI // 72
"""The size of the text below, in pixels."""


def only(data: bytes, *, refuse: bool = False) -> DrawnPage:
    (page,) = draw_pages(data, (), DPI, DocumentLimits(refuse_missing_letters=refuse), param="here")
    return page


def hexed(text: str) -> bytes:
    return b"<%b>" % (b"\xfe\xff" + text.encode("utf-16-be")).hex().encode()


def field(text: str, more: bytes = b"", *, acro: bytes = b"", page: bytes = b"", rest: tuple[bytes, ...] = ()) -> bytes:
    """A page of 400 x 60 points with a text field of 360 x 40 on it."""
    widget = b"<</Type/Annot/Subtype/Widget/FT/Tx/T(a)/V %b/Rect[20 10 380 50]/F 4/DA(/Helv %d Tf 0 g)%b>>"
    helvetica = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>"
    return document(
        b"",
        box=b"0 0 400 60",
        page=b"/Annots[10 0 R]" + page,
        catalogue=b"/AcroForm<</Fields[10 0 R]/DR<</Font<</Helv 11 0 R>>>>/DA(/Helv 24 Tf 0 g)%b>>" % acro,
        more=[widget % (hexed(text), SIZE, more), helvetica, *rest],
    )


def note(text: str, more: bytes = b"") -> bytes:
    entries = b"<</Type/Annot/Subtype/FreeText/Rect[20 10 380 50]/F 4/DA(/Helv %d Tf 0 g)/Contents %b%b>>"
    return document(b"", box=b"0 0 400 60", page=b"/Annots[10 0 R]", more=[entries % (SIZE, hexed(text), more)])


def printed(*glyphs: str, base: bytes = b"Arial") -> bytes:
    """A page with a simple font that is named and not there, and letters in it by the names of their glyphs."""
    codes = b"".join(b"%c" % (65 + number) for number in range(len(glyphs)))
    names = " ".join(f"/{name}" for name in glyphs).encode()
    font = (
        b"<</Type/Font/Subtype/TrueType/BaseFont/%b/FirstChar 65/LastChar %d/Widths[%b]/FontDescriptor 11 0 R"
        b"/Encoding<</Type/Encoding/BaseEncoding/WinAnsiEncoding/Differences[65 %b]>>>>"
    )
    return document(
        b"BT /F 28 Tf 20 20 Td (%b) Tj ET" % codes,
        box=b"0 0 400 60",
        page=b"/Resources<</Font<</F 10 0 R>>>>",
        more=[
            font % (base, 64 + len(glyphs), b" ".join([b"900"] * len(glyphs)), names),
            b"<</Type/FontDescriptor/FontName/%b/Flags 32/FontBBox[0 -200 1000 900]/ItalicAngle 0/Ascent 800"
            b"/Descent -200/CapHeight 700/StemV 80>>" % base,
        ],
    )


def dark(pixels: Pixels) -> np.ndarray:
    """Where it is dark; without the border of a field, if there is one."""
    return pixels[..., 0] < 128


def ink(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    assert rows.size, "nothing is drawn"
    return mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def expected(text: str, font: str) -> np.ndarray:
    picture = Image.new("L", (1200, 300), 255)
    ImageDraw.Draw(picture).text((100, 50), text, font=ImageFont.truetype(str(FONT_DIR / font), PIXELS), fill=0)
    return ink(np.asarray(picture) < 128)


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Ink that two drawings share over ink that either has."""
    height, width = (max(sides) for sides in zip(one.shape, other.shape, strict=True))
    one, other = (np.pad(each, ((0, height - each.shape[0]), (0, width - each.shape[1]))) for each in (one, other))
    return float((one & other).sum() / (one | other).sum())


# ---- Fields and notes -------------------------------------------------------------------------------

WORDS = {"مرحبا": NASKH, "سَلام": NASKH, "Номер": SANS, "Łódź": SANS, "Αθήνα": SANS, "שלום": SANS, "پنجره": NASKH}
WAYS = {
    "a field": field,
    "a note": note,
    "a field that asks for its look": lambda text: field(text, acro=b"/NeedAppearances true"),
    "a field whose look is out of date": lambda text: field(
        text,
        b"/AP<</N 12 0 R>>",
        acro=b"/NeedAppearances true",
        rest=(form(b"0 g 0 0 360 40 re f", b"", b"0 0 360 40"),),
    ),
    "a field of several lines": lambda text: field(text, b"/Ff 4096"),
    "a choice": lambda text: field(text, b"/FT/Ch/Ff 131072/Opt[%b]" % hexed(text)).replace(b"/FT/Tx/T(a)", b"/T(a)"),
    "a field that inherits": lambda text: document(
        b"",
        box=b"0 0 400 60",
        page=b"/Annots[11 0 R]",
        catalogue=b"/AcroForm<</Fields[10 0 R]/DR<</Font<</Helv 12 0 R>>>>/DA(/Helv 24 Tf 0 g)>>",
        more=[
            b"<</FT/Tx/T(a)/V %b/Kids[11 0 R]>>" % hexed(text),
            b"<</Type/Annot/Subtype/Widget/Parent 10 0 R/Rect[20 10 380 50]/F 4>>",
            b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>",
        ],
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("word", WORDS)
def test_what_is_written_into_a_document_without_a_look_is_drawn_as_it_is_written(way: str, word: str) -> None:
    page = only(WAYS[way](word))
    assert page.is_complete
    mask = dark(page.pixels)
    if way == "a note":  # which has a border
        mask = mask[24:-24, 44:-44]
    assert likeness(ink(mask), expected(word, WORDS[word])) > 0.75


def test_words_and_numbers_of_a_line_run_from_right_to_left() -> None:
    for data in (field(GREETING), note(GREETING)):
        mask = dark(only(data).pixels)[24:-24, 44:-44]
        drawn = ink(mask)
        number = expected("123", NASKH)
        assert likeness(ink(drawn[:, : number.shape[1]]), number) > 0.75
        first = expected("مرحبا", NASKH)
        assert likeness(ink(drawn[:, -first.shape[1] :]), first) > 0.65


def test_latin_fields_and_notes_look_as_before() -> None:
    """PDFium's own Helvetica, which is narrower than the font that stands in."""
    for data in (field("Hello World"), note("Hello World")):
        width = ink(dark(only(data).pixels)[24:-24, 44:-44]).shape[1]
        assert width < 0.95 * expected("Hello World", SANS).shape[1]


@pytest.mark.parametrize("quarters", range(4))
def test_a_field_on_a_turned_page_is_upright_where_its_page_is(quarters: int) -> None:
    turned, size = 90 * quarters, (40, 360) if quarters % 2 else (360, 40)
    rect = b"/Rect[10 10 %d %d]" % (10 + size[0], 10 + size[1])
    data = field("مرحبا", b"/MK<</R %d>>" % turned, page=b"/Rotate %d" % turned)
    box = b"0 0 %d %d" % (size[0] + 20, size[1] + 20)
    data = data.replace(b"/Rect[20 10 380 50]", rect).replace(b"/MediaBox[0 0 400 60]", b"/MediaBox[%b]" % box)
    pixels = only(data).pixels
    assert pixels.shape[:2] == (120, 760)
    assert likeness(ink(dark(pixels)), expected("مرحبا", NASKH)) > 0.75


@pytest.mark.parametrize(("align", "place"), [(0, 0.0), (1, 0.5), (2, 1.0)])
def test_text_stands_where_the_field_wants_it(align: int, place: float) -> None:
    mask = dark(only(field("مرحبا", b"/Q %d" % align)).pixels)
    columns = np.flatnonzero(mask.any(0))
    spare = (columns[0] - 40) / (720 - (columns[-1] - columns[0]))
    assert abs(spare - place) < 0.03


def test_colour_and_border_of_a_field_stay() -> None:
    data = field("مرحبا", b"/MK<</BC[0 0 1]/BG[1 1 0]>>").replace(b"/Helv 24 Tf 0 g", b"/Helv 24 Tf 1 0 0 rg")
    pixels = only(data).pixels
    assert pixels[60, 700].tolist() == [255, 255, 0]
    assert pixels[60, 40].tolist() == [0, 0, 255]
    assert (pixels == [255, 0, 0]).all(-1).sum() > 100


def test_text_of_a_field_that_says_no_size_fits() -> None:
    long = "مرحبا بالعالم " * 6
    data = field(long).replace(b"/Helv 24 Tf", b"/Helv 0 Tf")
    columns = np.flatnonzero(dark(only(data).pixels).any(0))
    assert columns[0] > 40
    assert columns[-1] < 760
    assert columns[-1] - columns[0] > 500


@pytest.mark.parametrize("flags", [b"/F 2", b"/F 32"])
def test_a_hidden_field_or_note_stays_hidden(flags: bytes) -> None:
    for data in (field("مرحبا"), note("مرحبا")):
        assert not dark(only(data.replace(b"/F 4", flags)).pixels).any()


def test_a_password_is_not_written_out() -> None:
    with_ours = ink(dark(only(field("مرحبا", b"/Ff 8192")).pixels))
    assert likeness(with_ours, expected("مرحبا", NASKH)) < 0.5


def test_a_look_that_the_document_has_is_left_alone() -> None:
    look = form(b"1 0 0 rg 0 0 360 40 re f", b"", b"0 0 360 40")
    pixels = only(field("مرحبا", b"/AP<</N 12 0 R>>", rest=(look,))).pixels
    assert (pixels[20:100, 40:760] == [255, 0, 0]).all()


def test_letters_that_no_font_has_are_told() -> None:
    assert not only(note("\U00013000")).is_complete  # a hieroglyph
    assert only(note("abc")).is_complete
    with pytest.raises(InvalidFile, match="Letters of page 1 would be missing") as caught:
        only(note("\U00013000"), refuse=True)
    assert (caught.value.code, caught.value.param) == ("invalid_file", "here")


# ---- Pages ------------------------------------------------------------------------------------------

NAMED = {
    "cyrillic": ["afii10031", "afii10080", "afii10078", "afii10070", "afii10082"],
    "polish": ["Aogonek", "Lslash", "eogonek", "zdotaccent", "sacute"],
    "arabic": ["uni0645", "uni0631", "uni062D", "uni0628", "uni0627"],
    "greek": ["Alpha", "theta", "eta", "nu", "alpha"],
    "vietnamese": ["uni1EA0", "uni1ECD", "uni1EBF", "ohorn", "uhorn"],
}


@pytest.mark.parametrize("base", [b"Arial", b"TimesNewRomanPSMT", b"Calibri", b"CourierNew", b"Helvetica-Bold"])
@pytest.mark.parametrize("alphabet", NAMED)
def test_letters_of_a_font_that_is_not_embedded_are_all_there(alphabet: str, base: bytes) -> None:
    page = only(printed(*NAMED[alphabet], base=base))
    assert page.is_complete
    mask = dark(page.pixels)
    starts = [round((20 + 28 * 0.9 * number - 3) * 2) for number in range(6)]
    for start, end in pairwise(starts):
        assert mask[:, start:end].sum() > 30


def test_a_page_in_latin_letters_looks_as_before() -> None:
    plain = printed("A", "e", "m")
    mixed = printed("A", "e", "m", "afii10080")
    first, second = (dark(only(data).pixels)[:, : round((20 + 28 * 2.7 - 1) * 2)] for data in (plain, mixed))
    assert np.array_equal(first, second)


def chinese(text: str, *, shown: bool = True) -> bytes:
    codes = text.encode("utf-16-be").hex().encode()
    return document(
        b"BT %d Tr /F 28 Tf 20 20 Td <%b> Tj ET" % (0 if shown else 3, codes),
        box=b"0 0 400 60",
        page=b"/Resources<</Font<</F 10 0 R>>>>",
        more=[
            b"<</Type/Font/Subtype/Type0/BaseFont/STSong-Light/Encoding/UniGB-UCS2-H/DescendantFonts[11 0 R]>>",
            b"<</Type/Font/Subtype/CIDFontType0/BaseFont/STSong-Light/FontDescriptor 12 0 R/DW 1000"
            b"/CIDSystemInfo<</Registry(Adobe)/Ordering(GB1)/Supplement 2>>>>",
            b"<</Type/FontDescriptor/FontName/STSong-Light/Flags 4/FontBBox[0 -200 1000 900]/ItalicAngle 0/Ascent 800"
            b"/Descent -200/CapHeight 700/StemV 80>>",
        ],
    )


def test_a_page_whose_letters_are_missing_says_so() -> None:
    """With a Chinese font on the machine they are drawn, without one they are not: never anything between."""
    page = only(chinese("中文文件"))
    assert page.is_complete == bool(dark(page.pixels).any())


def test_a_field_whose_letters_are_missing_says_so() -> None:
    page = only(field("中文"))
    assert page.is_complete == bool(dark(page.pixels).any())
    assert not only(field("中文 \U00013000")).is_complete


def test_text_that_is_not_shown_is_not_missed() -> None:
    """As behind a scan whose letters a program has read."""
    assert only(chinese("中文文件", shown=False)).is_complete


def test_a_page_with_too_much_text_is_drawn_all_the_same() -> None:
    line = b"BT /F 4 Tf 20 20 Td (%b) Tj ET\n" % (b"ABCDE" * 200)
    data = printed(*NAMED["cyrillic"])
    short, long = b"BT /F 28 Tf 20 20 Td (ABCDE) Tj ET", line * 60
    data = data.replace(b"/Length %d" % len(short), b"/Length %d" % len(long)).replace(short, long)
    page = only(data[: data.index(b"xref\n")] + b"trailer<</Root 1 0 R>>")
    assert page.is_complete


# ---- Typesetting ------------------------------------------------------------------------------------


def drawn(content: bytes, width: float, height: float) -> np.ndarray:
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 %d %d]/Contents 4 0 R>>" % (width, height)
    pages = {
        1: b"<</Type/Catalog/Pages 2 0 R>>",
        2: b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        3: page,
        4: stream(content),
    }
    return dark(only(assemble(pages)).pixels)


@settings(deadline=None, max_examples=60)
@given(
    st.text(alphabet=st.sampled_from("ab م ر ح َ ١2\n()\u200c\u202e-é"), max_size=60),
    st.sampled_from([(300, 40), (20, 200), (3, 3)]),
    st.builds(Style, st.one_of(st.none(), st.floats(0.5, 500)), st.integers(0, 2), st.booleans()),
)
def test_any_text_in_any_box_is_operators_that_a_reader_takes(text: str, box: tuple[int, int], style: Style) -> None:
    content = typeset(text, *box, style)
    assert content.isascii()
    assert content.count(b"q ") == content.count(b"Q\n")
    drawn(content, *box)


@pytest.mark.parametrize("letters", ["abc", "مرحبا", "Łódź", "a\u200cb\n"])
def test_letters_that_are_there_are_known(letters: str) -> None:
    assert has_letters(letters)
    assert not has_letters(letters + "\U00013000")


def test_a_long_text_is_broken_into_lines_that_all_fit() -> None:
    text = "والكلمات كثيرة في هذا السطر الطويل جدا حتى لا يتسع له عرض واحد"
    mask = drawn(typeset(text, 150, 200, Style(size=16, wraps=True)), 150, 200)
    rows = mask.any(1)
    lines = np.flatnonzero(np.diff(rows.astype(int)) == 1).size
    assert lines >= 3
    assert not mask[:, :2].any()
    assert not mask[:, -2:].any()


def test_every_alphabet_of_the_fonts_is_drawn() -> None:
    for letter in "aЖΩאبԱაŁ":
        assert drawn(typeset(letter, 40, 40, Style(24)), 40, 40).any(), unicodedata.name(letter)
