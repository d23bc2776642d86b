"""The fonts that PDFium draws with where a document brings none.

PDFium has 14 fonts of its own, Helvetica, Times and Courier among them, with the letters of Western Europe and no
others; what they lack it leaves out without a word. So it is told of a font here that has nearly all alphabets, for
what is missing alone: a document in Latin letters looks as it always did. Chinese, Japanese and Korean letters come
from the fonts of the machine, if it has any.

PDFium asks for a font under the same name twice, once for the document and, when a letter is missing, once for a
stand-in (CPDF_Font::FallbackFontFromCharcode). Nothing in the question tells the two apart, only its time: `pdf` has
the fonts of a page asked for before any letter is drawn, and says `stand_in` from then on.
"""

from __future__ import annotations

import ctypes
import struct
from pathlib import Path
from typing import Any, Final

import pypdfium2.raw as pdfium

FONT_DIR: Final = Path(__file__).parents[2] / "fonts"
STAND_IN: Final = "DejaVuSans.ttf"
"""Latin, Greek, Cyrillic, Armenian, Georgian, Hebrew and Arabic letters, those of Vietnamese and the phonetic ones."""
ALPHABETS: Final = frozenset(
    {
        pdfium.FXFONT_ARABIC_CHARSET,
        pdfium.FXFONT_CYRILLIC_CHARSET,
        pdfium.FXFONT_EASTERNEUROPEAN_CHARSET,
        pdfium.FXFONT_GREEK_CHARSET,
        pdfium.FXFONT_HEBREW_CHARSET,
        pdfium.FXFONT_VIETNAMESE_CHARSET,
        162,  # Turkish and
        186,  # Baltic, which have no names in PDFium's header (TURKISH_CHARSET, BALTIC_CHARSET of wingdi.h)
    }
)
"""Character sets, as of Windows, that the stand-in has and PDFium's own fonts lack."""
OURS: Final = 1
"""The handle of the stand-in; the machine's fonts have addresses."""
_NAME: Final = b"DejaVu Sans\0"
_TABLES: Final = struct.Struct(">4x H")
_TABLE: Final = struct.Struct(">4s 4x 2I")
"""Tag, offset and length of a table (OpenType specification, "Table directory")."""
_Info = ctypes.POINTER(pdfium.FPDF_SYSFONTINFO)


class _Fonts:
    """PDFium's questions (FPDF_SYSFONTINFO in fpdf_sysfontinfo.h), answered by the machine's fonts first."""

    def __init__(self) -> None:
        self.stand_in = False
        self.asked = 0
        self.unmet = 0
        self._data = (FONT_DIR / STAND_IN).read_bytes()  # in memory, since a worker can open no files
        self._tables = dict(_tables(self._data))
        self._machine: Any = pdfium.FPDF_GetDefaultSystemFontInfo()
        self.info = pdfium.FPDF_SYSFONTINFO()
        self.info.version = 1
        answers = {
            "EnumFonts": self._enumerate,
            "MapFont": self._map,
            "GetFont": self._get,
            "GetFontData": self._read,
            "GetFaceName": self._name,
            "GetFontCharset": self._charset,
            "DeleteFont": self._delete,
        }
        kinds = dict(pdfium.FPDF_SYSFONTINFO._fields_)
        for name, answer in answers.items():
            setattr(self.info, name, kinds[name](answer))

    def _enumerate(self, _: object, mapper: Any) -> None:
        self._machine.contents.EnumFonts(self._machine, mapper)

    def _map(self, _: object, weight: int, italic: int, charset: int, pitch: int, face: Any, exact: Any) -> int | None:
        self.asked += 1
        found: int | None = self._machine.contents.MapFont(self._machine, weight, italic, charset, pitch, face, exact)
        if found:
            return found
        if charset in ALPHABETS or (self.stand_in and charset == pdfium.FXFONT_ANSI_CHARSET):
            return OURS
        self.unmet += charset not in (pdfium.FXFONT_ANSI_CHARSET, pdfium.FXFONT_SYMBOL_CHARSET)
        return None

    def _get(self, _: object, face: Any) -> int | None:
        found: int | None = self._machine.contents.GetFont(self._machine, face)
        return found

    def _read(self, _: object, font: int, table: int, buffer: Any, size: int) -> int:
        if font != OURS:
            return int(self._machine.contents.GetFontData(self._machine, font, table, buffer, size))
        start, length = self._tables.get(table, (0, 0)) if table else (0, len(self._data))
        if buffer and size >= length:
            ctypes.memmove(buffer, self._data[start : start + length], length)
        return length

    def _name(self, _: object, font: int, buffer: Any, size: int) -> int:
        if font != OURS:
            return int(self._machine.contents.GetFaceName(self._machine, font, buffer, size))
        if buffer and size >= len(_NAME):
            ctypes.memmove(buffer, _NAME, len(_NAME))
        return len(_NAME)

    def _charset(self, _: object, font: int) -> int:
        if font != OURS:
            return int(self._machine.contents.GetFontCharset(self._machine, font))
        return int(pdfium.FXFONT_ANSI_CHARSET)

    def _delete(self, _: object, font: int) -> None:
        if font != OURS:
            self._machine.contents.DeleteFont(self._machine, font)


def _tables(data: bytes) -> list[tuple[int, tuple[int, int]]]:
    count: int = _TABLES.unpack_from(data)[0]
    found = (_TABLE.unpack_from(data, 12 + number * _TABLE.size) for number in range(count))
    return [(int.from_bytes(tag, "big"), (start, length)) for tag, start, length in found]


_fonts = _Fonts()
pdfium.FPDF_SetSystemFontInfo(ctypes.byref(_fonts.info))


def stand_in(on: bool) -> None:
    """Whether a font that is asked for from now on shall stand in for another that lacks a letter."""
    _fonts.stand_in = on


def unmet() -> int:
    """How often it has asked for one with Chinese, Japanese, Korean or other letters that nobody has."""
    return _fonts.unmet


def asked() -> int:
    """How often PDFium has asked for a font. Where it asks for none, a document has all of its own."""
    return _fonts.asked
