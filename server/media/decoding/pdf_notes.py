"""What people have written into the fields and notes of a document, where the file does not say how it looks.

A field or note may come without an appearance (ISO 32000-1, 12.5.5): a viewer then has to make one from the text.
PDFium does so with its own Helvetica, letter by letter, so all that is not Latin is lost or comes apart. Where that is
so, what it has made is replaced, before it is drawn, by the same border around the text as it ought to look.
"""

from __future__ import annotations

import codecs
import ctypes
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import pypdfium2.raw as pdfium

from server.media.decoding.typeset import Style, has_letters, typeset

MAX_ANNOTATIONS: Final = 5_000
"""Of a page; those behind are drawn as PDFium does."""
MULTILINE, PASSWORD, COMB = 1 << 12, 1 << 13, 1 << 24
"""Flags of text fields (ISO 32000-1, table 228)."""
for _name in ("cp1252", "utf-16-le"):
    codecs.lookup(_name)  # Python loads them when first asked, and a worker soon sees no files
_FIELDS: Final = frozenset({pdfium.FPDF_FORMFIELD_TEXTFIELD, pdfium.FPDF_FORMFIELD_COMBOBOX})
_UNSEEN: Final = pdfium.FPDF_ANNOT_FLAG_HIDDEN | pdfium.FPDF_ANNOT_FLAG_NOVIEW
_SIZE = re.compile(r"([0-9]*\.?[0-9]+)\s+Tf")
_COLOUR = re.compile(r"((?:[0-9.]+\s+){1,4}(?:g|rg|k))\b")
_TEXT: Final = "/Tx BMC"
"""Where the text begins in what PDFium makes (ISO 32000-1, 12.7.3.3)."""
_NORMAL: Final = pdfium.FPDF_ANNOT_APPEARANCEMODE_NORMAL


@dataclass(frozen=True, slots=True)
class Written:
    """Text of a field or note that PDFium cannot set: its number on the page, and how it looked in the file, if so."""

    number: int
    text: str
    appearance: str | None


def written(page: Any, forms: Any) -> list[Written]:
    """The fields and notes of a page, as loaded and before its forms are told of it, whose text PDFium cannot set."""
    found = []
    for number in range(min(pdfium.FPDFPage_GetAnnotCount(page), MAX_ANNOTATIONS)):
        with _annotation(page, number) as annotation:
            text = _text(annotation, forms)
            if not all(map(is_western, set(text))):
                has_look = pdfium.FPDFAnnot_HasKey(annotation, b"AP")
                found.append(Written(number, text, _appearance(annotation) if has_look else None))
    return found


def typeset_anew(page: Any, forms: Any, texts: list[Written], *, has_wide_fonts: bool) -> bool:
    """Replace those appearances that PDFium has made since; False where letters of one of them may be missing.

    What no font here has is left to PDFium, which draws fields in the machine's Chinese, Japanese and Korean fonts:
    `has_wide_fonts` says that it lacked none.
    """
    complete = True
    for one in texts:
        with _annotation(page, one.number) as annotation:
            made = _appearance(annotation)
            if one.appearance is not None and (made == one.appearance or _TEXT not in made):
                continue  # it is the document's own
            if has_letters(one.text):
                _replace(annotation, forms, one.text, made, pdfium.FPDFPage_GetRotation(page))
            else:
                is_field = pdfium.FPDFAnnot_GetSubtype(annotation) == pdfium.FPDF_ANNOT_WIDGET
                complete &= is_field and has_wide_fonts and has_letters("".join(filter(_is_narrow, one.text)))
    return complete


def is_western(letter: str) -> bool:
    """Whether PDFium's own fonts have a letter."""
    try:
        letter.encode("cp1252")
    except UnicodeEncodeError:
        return letter.isspace()
    return True


def _is_narrow(letter: str) -> bool:
    """Whether it is none of the wide letters of Chinese, Japanese and Korean (UAX #11)."""
    return unicodedata.east_asian_width(letter) not in ("W", "F")


def _text(annotation: Any, forms: Any) -> str:
    if pdfium.FPDFAnnot_GetFlags(annotation) & _UNSEEN:
        return ""
    match pdfium.FPDFAnnot_GetSubtype(annotation):
        case pdfium.FPDF_ANNOT_FREETEXT:
            return _string(pdfium.FPDFAnnot_GetStringValue, annotation, b"Contents")
        case pdfium.FPDF_ANNOT_WIDGET if forms and pdfium.FPDFAnnot_GetFormFieldType(forms, annotation) in _FIELDS:
            if pdfium.FPDFAnnot_GetFormFieldFlags(forms, annotation) & (PASSWORD | COMB):
                return ""
            return _string(pdfium.FPDFAnnot_GetFormFieldValue, forms, annotation)
    return ""


def _replace(annotation: Any, forms: Any, text: str, made: str, turned: int) -> None:
    rect = pdfium.FS_RECTF()
    pdfium.FPDFAnnot_GetRect(annotation, rect)
    left, bottom = min(rect.left, rect.right), min(rect.bottom, rect.top)
    width, height = abs(rect.right - rect.left), abs(rect.top - rect.bottom)
    border, _, line = made.partition(_TEXT)
    size, colour = _SIZE.search(line), _COLOUR.search(line)
    is_field = pdfium.FPDFAnnot_GetSubtype(annotation) == pdfium.FPDF_ANNOT_WIDGET
    if not is_field or (turned % 2 and not _is_turned(border, width, height)):
        turned = 0  # it stands as the page is stored, not as it is shown
    across, down = (height, width) if turned % 2 else (width, height)
    own = _number(annotation, b"Q")
    style = Style(
        _own_size(annotation, float(size[1]) if size else None),
        int(own) if own in (1.0, 2.0) else 0,
        not is_field or bool(pdfium.FPDFAnnot_GetFormFieldFlags(forms, annotation) & MULTILINE),
    )
    outlines = f"{colour[1] if colour else '0 g'}\n" + typeset(text, across, down, style).decode("ascii")
    if is_field:
        a, b, c, d, e, f = _turn(turned, width, height)
        content = f"q {a} {b} {c} {d} {e + left:.2f} {f + bottom:.2f} cm\n{border}\n{outlines}Q\n"
    else:  # whose border PDFium draws in the page's own coordinates
        content = f"{border.replace('/GS gs', '')}\nq 1 0 0 1 {left:.2f} {bottom:.2f} cm\n{outlines}Q\n"
    pdfium.FPDFAnnot_SetAP(annotation, _NORMAL, _wide(content))


def _own_size(annotation: Any, used: float | None) -> float | None:
    """The size in points that the document asks for, or that PDFium has chosen for a field; None where neither is."""
    asked = _SIZE.search(_string(pdfium.FPDFAnnot_GetStringValue, annotation, b"DA"))
    if asked is None:
        return used or None
    return float(asked[1]) or None


def _is_turned(border: str, width: float, height: float) -> bool:
    """Whether a field on a turned page is turned with it, by its border or, if it has none, by its longer side."""
    return f" {height:g} {width:g} re" in border if " re" in border else height > width


def _turn(quarters: int, width: float, height: float) -> tuple[float, float, float, float, float, float]:
    """The matrix of a field that is turned with its page, as PDFium's CPDFSDK_Widget::GetMatrix has it."""
    return (
        (1, 0, 0, 1, 0, 0),
        (0, 1, -1, 0, width, 0),
        (-1, 0, 0, -1, width, height),
        (0, -1, 1, 0, 0, height),
    )[quarters % 4]


def _appearance(annotation: Any) -> str:
    return _string(pdfium.FPDFAnnot_GetAP, annotation, _NORMAL)


def _number(annotation: Any, key: bytes) -> float:
    value = ctypes.c_float()
    return value.value if pdfium.FPDFAnnot_GetNumberValue(annotation, key, value) else 0.0


def _string(question: Any, *arguments: Any) -> str:
    """The answer of one of PDFium's functions that write UTF-16LE into a buffer and tell how long it is."""
    size = question(*arguments, None, 0)
    buffer = ctypes.create_string_buffer(size)
    question(*arguments, ctypes.cast(buffer, ctypes.POINTER(pdfium.FPDF_WCHAR)), size)
    return buffer.raw.decode("utf-16-le", "replace").rstrip("\0")


def _wide(text: str) -> Any:
    return ctypes.cast(ctypes.create_string_buffer(text.encode("utf-16-le") + b"\0"), ctypes.POINTER(pdfium.FPDF_WCHAR))


@contextmanager
def _annotation(page: Any, number: int) -> Iterator[Any]:
    handle = pdfium.FPDFPage_GetAnnot(page, number)
    try:
        yield handle
    finally:
        if handle:
            pdfium.FPDFPage_CloseAnnot(handle)
