"""Text -> the outlines of its letters as PDF operators: joined and from right to left where its alphabet wants that.

For what people have written into a document without saying how it looks. HarfBuzz shapes words, the Unicode
bidirectional algorithm (UAX #9) orders them; lines are broken between words.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Final

import uharfbuzz as hb
from bidi import get_display

FONT_DIR: Final = Path(__file__).parents[2] / "fonts"
FONTS: Final = ("NotoNaskhArabic-Regular.ttf", "DejaVuSans.ttf")
"""A word is set in the first that has all of its letters; the last one has nearly all alphabets."""
MARGIN: Final = 2.0
"""Points between text and the edge of its box."""
AUTO: Final = 12.0
"""The size in points of text that says none, where its box is high enough."""
SMALLEST: Final = 4.0
"""As small as text that says no size becomes to fit."""
ASCENT, DESCENT, LEADING = 0.93, 0.24, 1.2
"""Above and below the line, and from line to line, in sizes: those of the higher font."""
MAX_LETTERS: Final = 10_000
"""More are left out: no box shows them."""
_FONTS: Final = tuple(
    (hb.Font(face), frozenset(face.unicodes))
    for face in (hb.Face(hb.Blob.from_file_path(str(FONT_DIR / name))) for name in FONTS)
)
"""The fonts and their letters: read at once, since a worker soon sees no files."""
_RIGHT_TO_LEFT: Final = frozenset({"R", "AL"})
_JOINERS: Final = "\u200c\u200d"
_INVISIBLE: Final = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp"})


@dataclass(frozen=True, slots=True)
class Style:
    """How text is set into its box: `size` in points, None for what fits; `align` as in a PDF: 0 left, 1 centre, 2
    right; `wraps` for lines that are broken."""

    size: float | None = None
    align: int = 0
    wraps: bool = False


@dataclass(frozen=True, slots=True)
class _Word:
    """Letters of one direction, from left to right as they are shown; `width` in sizes."""

    font: int
    glyphs: tuple[tuple[int, float, float], ...]
    """Number of the glyph, and where it stands: right of the word's beginning and above the line."""
    width: float


Line = tuple[_Word, ...]
"""From left to right, as it is shown."""
Shape = Callable[[str, bool | None], Line]
"""As `_shaped`."""


def has_letters(text: str) -> bool:
    """Whether the fonts here have every letter of `text`."""
    return all(any(ord(letter) in letters for _, letters in _FONTS) for letter in set(text) if _is_seen(letter))


def typeset(text: str, width: float, height: float, style: Style) -> bytes:
    """Operators that draw `text` into a box of `width` x `height` points, whose lower left corner is at 0, 0.

    What does not fit is cut off at the edge, as in viewers; letters that no font has are left out.
    """
    paragraphs = unicodedata.normalize("NFC", text[:MAX_LETTERS]).splitlines()
    # Kept for this text alone: what one document says is nothing that a later one could learn.
    size, lines = _fitted(paragraphs, width - 2 * MARGIN, height, style, cache(_shaped))
    below = height - MARGIN - ASCENT * size if style.wraps else height / 2 - (ASCENT - DESCENT) / 2 * size
    drawn = bytearray(b"q 0 0 %.4g %.4g re W n\n" % (width, height))
    for line in lines:
        spare = width - 2 * MARGIN - size * _width(line)
        x = MARGIN + spare * style.align / 2
        for word in line:
            for glyph, right, up in word.glyphs:
                if -size < x + right * size < width:  # the rest is outside
                    drawn += _placed(word.font, glyph, x + right * size, below + up * size, size)
            x += word.width * size
        below -= LEADING * size
        if below < -size:
            break
    return bytes(drawn + b"Q\n")


def _fitted(paragraphs: list[str], width: float, height: float, style: Style, shape: Shape) -> tuple[float, list[Line]]:
    """The size, and the lines in it."""

    def lines(size: float) -> list[Line]:
        if not style.wraps:
            return [shape(" ".join(paragraphs), None)]
        return [line for paragraph in paragraphs for line in _broken(paragraph, width / size, shape)]

    if style.size:
        return style.size, lines(style.size)
    size = min(AUTO, height / (ASCENT + DESCENT)) if style.wraps else height / (ASCENT + DESCENT) * 0.9
    size = max(size, SMALLEST)
    while size > SMALLEST:
        found = lines(size)
        widest = max(map(_width, found), default=0.0)
        if widest * size <= width and (not style.wraps or len(found) * LEADING * size <= height - 2 * MARGIN):
            return size, found
        size = max(SMALLEST, size * 0.9)
    return size, lines(size)


def _broken(paragraph: str, width: float, shape: Shape) -> Iterator[Line]:
    """The lines of a paragraph, none wider than `width` sizes but where a word is."""
    base = next((unicodedata.bidirectional(c) in _RIGHT_TO_LEFT for c in paragraph if c.isalpha()), False)
    line: list[str] = []
    spent, space = 0.0, _width(shape(" ", None))
    for word in paragraph.split(" "):
        wide = _width(shape(word, None))
        if line and spent + space + wide > width:
            yield shape(" ".join(line), base)
            line, spent = [], 0.0
        spent += wide + (space if line else 0.0)
        line.append(word)
    yield shape(" ".join(line), base)


def _width(words: Line) -> float:
    return sum(word.width for word in words)


def _shaped(line: str, right_to_left: bool | None) -> Line:
    """The words of a line as they stand from left to right; by its first letter where it is not said from where."""
    base = None if right_to_left is None else "R" if right_to_left else "L"
    shown = str(get_display(line, base_dir=base)) if line else ""
    pieces = [("".join(run), runs_left) for runs_left, run in groupby(shown, _runs_left)]
    return tuple(_word(run[::-1] if runs_left else run, runs_left) for run, runs_left in pieces)


def _runs_left(letter: str) -> bool:
    return letter in _JOINERS or unicodedata.bidirectional(letter) in {*_RIGHT_TO_LEFT, "NSM"}


def _word(text: str, runs_left: bool) -> _Word:
    font = next((i for i, (_, letters) in enumerate(_FONTS) if all(ord(c) in letters for c in text)), len(FONTS) - 1)
    face = _FONTS[font][0]
    buffer = hb.Buffer()
    buffer.add_str(text)
    buffer.guess_segment_properties()
    buffer.direction = "rtl" if runs_left else "ltr"
    hb.shape(face, buffer)
    glyphs: list[tuple[int, float, float]] = []
    right, unit = 0.0, face.face.upem
    for info, place in zip(buffer.glyph_infos, buffer.glyph_positions, strict=True):
        if info.codepoint:  # 0 stands for a letter that the font does not have
            glyphs.append((info.codepoint, right + place.x_offset / unit, place.y_offset / unit))
            right += place.x_advance / unit
    return _Word(font, tuple(glyphs), right)


class _Pen:
    """Writes an outline down as operators, in units of its font."""

    def __init__(self) -> None:
        self._at = (0.0, 0.0)
        self.written = bytearray()

    def _add(self, operator: bytes, *points: tuple[float, float]) -> None:
        self._at = points[-1]
        self.written += b" ".join((*(b"%.6g %.6g" % point for point in points), operator)) + b" "

    def moveTo(self, point: tuple[float, float]) -> None:  # noqa: N802  the names are fontTools'
        self._add(b"m", point)

    def lineTo(self, point: tuple[float, float]) -> None:  # noqa: N802
        self._add(b"l", point)

    def curveTo(self, *points: tuple[float, float]) -> None:  # noqa: N802
        self._add(b"c", *points)

    def qCurveTo(self, middle: tuple[float, float], end: tuple[float, float]) -> None:  # noqa: N802
        """A PDF has curves of the third degree alone; this one of the second is exactly one of those."""
        (x, y), (a, b) = self._at, middle
        first = x + (a - x) * 2 / 3, y + (b - y) * 2 / 3
        second = end[0] + (a - end[0]) * 2 / 3, end[1] + (b - end[1]) * 2 / 3
        self._add(b"c", first, second, end)

    def closePath(self) -> None:  # noqa: N802
        self.written += b"h "


@cache
def _outline(font: int, glyph: int) -> bytes:
    pen = _Pen()
    _FONTS[font][0].draw_glyph_with_pen(glyph, pen)
    return bytes(pen.written)


def _placed(font: int, glyph: int, x: float, y: float, size: float) -> bytes:
    outline, scale = _outline(font, glyph), size / _FONTS[font][0].face.upem
    return b"q %.6f 0 0 %.6f %.2f %.2f cm %bf Q\n" % (scale, scale, x, y, outline) if outline else b""


def _is_seen(letter: str) -> bool:
    return unicodedata.category(letter) not in _INVISIBLE
