"""Bytes of a PDF -> pictures of its pages, with PDFium.

PDFium draws and does nothing else: this build has neither a JavaScript engine nor XFA, and nothing here runs a
document's actions, follows its links or unpacks the files in it. What a viewer would show on paper is drawn: the page,
its annotations, and the contents of form fields. `pdf_fonts` has the fonts that a document does not embed, `pdf_notes`
sets what PDFium cannot, and where letters are missing all the same, the page says so.

PDFium is not safe in threads and can be kept busy for minutes by a small file, or crash: it runs in a worker process of
one thread, under a limit of time and memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import math
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
import pypdfium2.raw as pdfium
from numpy.typing import NDArray
from pypdfium2 import PdfDocument, PdfiumError

from server.errors import BadRequest, ImageCode, invalid_media
from server.media.decoding import pdf_fonts
from server.media.decoding.pdf_notes import is_western, typeset_anew, written
from server.media.limits import DocumentLimits, check_dpi

Pixels = NDArray[np.uint8]
Fit = Callable[[int, int], tuple[int, int]]
"""(Height, width) that a page has at its resolution -> those in which it is drawn."""

POINTS: Final = 72
"""Units of a page in an inch."""
MAX_LETTERS: Final = 20_000
"""Letters of a page that are looked after; a page full of small print has 10,000."""
_SIGNATURE, _SIGNATURE_WITHIN = b"%PDF-", 1024  # bytes; some programs write a few of their own before it
_FLAGS: Final = pdfium.FPDF_ANNOT | pdfium.FPDF_REVERSE_BYTE_ORDER  # BGR in reverse is RGB
_FAR: Final = 1e6
"""Points, far outside of any page."""
_WAIT = re.compile(r"please wait|veuillez patienter|bitte warten", re.IGNORECASE)
"""How the page begins that Adobe's programs put before a form which others cannot show, in their languages."""
_BEGINNING: Final = 200
"""Letters in which it stands."""
_USER_UNIT = re.compile(rb"/UserUnit\s+([0-9]*\.?[0-9]+)")
_PORTFOLIO, _NOT_SHOWN = re.compile(rb"/Collection\b"), re.compile(rb"/View\s*/H\b")
"""A collection of files (ISO 32000-1, 12.3.5), and that a viewer shows the document itself all the same."""
_OBJECT_STREAM = re.compile(rb"/ObjStm.{0,400}?stream\r?\n", re.DOTALL)
"""Where a stream begins that holds objects (ISO 32000-1, 7.5.7), all but always deflated."""
_MAX_OBJECT_STREAMS, _MAX_OBJECTS = 2000, 1 << 20
"""Streams that are looked into, and bytes of each; programs put 100 to 200 objects into one."""

# It warns of forms that this build cannot show, once for each such document.
logging.getLogger("pypdfium2").setLevel(logging.ERROR)


class DrawnPage(NamedTuple):
    """A page as it is seen: its number from 1, and uint8 [H, W, 3] in RGB."""

    number: int
    pixels: Pixels
    is_complete: bool
    """Whether there was a font for each of its letters."""


def draw_pages(
    data: bytes,
    pages: Sequence[tuple[int, int | None]],
    dpi: float | None,
    limits: DocumentLimits,
    *,
    password: str | None = None,
    param: str | None = None,
    fit: Fit | None = None,
) -> Iterator[DrawnPage]:
    """The chosen pages of a PDF in the order in which `pages` names them.

    One page is in memory at a time. `pages` are as in `DocumentSource`. A page is `dpi` dots an inch large, as it is
    turned in a viewer; where that is more than `limits` allow, or the page claims an absurd size, as large as they do.
    `fit`, given that height and width, says the size in which to draw instead: what would be resized anyway is drawn in
    the right size at once, which is quicker and sharper.

    Raises, when the first page is asked for, BadRequest for a `dpi` out of range and InvalidFile with `param`:
    empty_file, invalid_file_format (not a PDF), file_parse_error (damaged), invalid_file (another password is needed,
    there is no such page, its pages are only a cover, or letters are missing and the limits refuse that),
    file_too_large (more pages than `limits` allow). Whatever `fit` raises passes through.
    """
    check_dpi(dpi, limits, param=param)
    used = min(limits.default_dpi, limits.max_dpi) if dpi is None else dpi
    with _opened(data, password, param) as document:
        file = _File(data, document, param)
        file.refuse_covers()
        for number in chosen_pages(pages, len(document), limits, param):
            pixels, complete = file.drawn(number, used, limits.max_pixels, fit)
            if not complete and limits.refuse_missing_letters:
                message = f"Letters of page {number} would be missing: embed the document's fonts when you write it."
                raise _refusal(message, "invalid_image", param)
            yield DrawnPage(number, pixels, complete)


def pixel_size(width: float, height: float, dpi: float, max_pixels: int) -> tuple[int, int]:
    """The (height, width) in pixels of a page of `width` x `height` points."""
    # Some files claim 0, infinity, or no number at all; Acrobat's own limits are 3 and 14400 points.
    width, height = (min(max(1.0, side), 1e6) for side in (width, height))
    scale, most = dpi / POINTS, math.sqrt(max_pixels / (width * height))
    if scale > most:
        return max(1, int(height * most)), max(1, int(width * most))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _opened(data: bytes, password: str | None, param: str | None) -> PdfDocument:
    """The document, for as long as the caller holds `data`: it is not copied."""
    if not data:
        raise _refusal("The file is empty.", "empty_image_file", param)
    if data.find(_SIGNATURE, 0, _SIGNATURE_WITHIN) < 0:
        raise _refusal("The file is not a PDF document.", "invalid_image_format", param)
    key = None if password is None else password.encode("utf-8", "surrogatepass")
    handle = pdfium.FPDF_LoadMemDocument64(data, len(data), key)
    if not handle and key:  # many are protected against changes alone, and open without
        handle = pdfium.FPDF_LoadMemDocument64(data, len(data), None)
    if handle:
        document = PdfDocument(handle)
        with contextlib.suppress(PdfiumError):
            document.init_forms()  # before any page: without it what stands in form fields is not drawn
        return document
    match pdfium.FPDF_GetLastError():
        case pdfium.FPDF_ERR_PASSWORD if password is None:
            message = 'The document is protected by a password: name it as "password" in the same object.'
            raise _refusal(message, "invalid_image", param)
        case pdfium.FPDF_ERR_PASSWORD:
            field = None if param is None else f"{param.rpartition('.')[0]}.password"
            raise _refusal("This is not the password of the document.", "invalid_image", field)
        case pdfium.FPDF_ERR_SECURITY:
            message = "The document is encrypted in a way that this server cannot read: send it without."
            raise _refusal(message, "invalid_image", param)
    raise _refusal("The document is damaged or cut off.", "image_parse_error", param)


def chosen_pages(
    pages: Sequence[tuple[int, int | None]], count: int, limits: DocumentLimits, param: str | None
) -> Iterator[int]:
    """The numbers of the pages that are asked for, of a document that has `count`. Raises as `draw_pages`."""
    if count < 1:
        raise _refusal("The document has no pages.", "image_parse_error", param)
    has = f"The document has {'1 page' if count == 1 else f'{count} pages'}"
    ranges = [(first, count if last is None else last) for first, last in pages] or [(1, count)]
    for first, last in ranges:
        if not 1 <= first <= last <= count:
            missing = first if not 1 <= first <= count else last
            raise _refusal(f"{has}: page {missing} is not among them.", "invalid_image", param)
    asked, most = sum(last - first + 1 for first, last in ranges), limits.max_pages
    if asked > most:
        chosen = f"{has}, and this server reads at most {most} of one" if not pages else f"{asked} pages are asked for"
        advice = f'choose at most {most} with "pages", such as "1-{most}".'
        raise _refusal(f"{chosen}: {advice}", "image_too_large", param)
    return (number for first, last in ranges for number in range(first, last + 1))


@dataclass(slots=True, eq=False)
class _File:
    """A document that is open."""

    data: bytes
    document: PdfDocument
    param: str | None
    _fonts_before: int = field(default_factory=pdf_fonts.asked)
    _unmet_before: int = field(default_factory=pdf_fonts.unmet)
    _has_units: bool | None = None

    def refuse_covers(self) -> None:
        """Raises InvalidFile where the pages are only there to say that they are not the document."""
        kind = pdfium.FPDF_GetFormType(self.document)
        if kind == pdfium.FORMTYPE_XFA_FULL or (kind == pdfium.FORMTYPE_XFA_FOREGROUND and self._asks_to_wait()):
            raise _refusal(
                "The document is a dynamic XFA form, which only Adobe's own programs can show: its page says no more "
                "than 'Please wait'. Print it to a PDF there, and send that.",
                "invalid_image",
                self.param,
            )
        has_files = len(self.document) == 1 and pdfium.FPDFDoc_GetAttachmentCount(self.document) > 0
        if has_files and self._mentions(_PORTFOLIO) and not self._mentions(_NOT_SHOWN):
            raise _refusal(
                "The document is a portfolio: its page is only a cover, and what it is about are the files in it. "
                "Send those.",
                "invalid_image",
                self.param,
            )

    def drawn(self, number: int, dpi: float, max_pixels: int, fit: Fit | None) -> tuple[Pixels, bool]:
        """A page, and whether all of its letters are there."""
        with self._page(number) as page:
            unit = self._unit(number)
            height, width = pixel_size(
                pdfium.FPDF_GetPageWidthF(page) * unit, pdfium.FPDF_GetPageHeightF(page) * unit, dpi, max_pixels
            )
            if fit is not None:
                height, width = fit(height, width)
            forms = self.document.formenv
            pdf_fonts.stand_in(False)
            texts = written(page, forms)
            if forms:
                pdfium.FORM_OnAfterLoadPage(page, forms)
            _load_fonts(page)
            complete = typeset_anew(page, forms, texts, has_wide_fonts=pdf_fonts.unmet() == self._unmet_before)
            pdf_fonts.stand_in(True)
            pixels = _painted(page, forms, height, width)
            # Where no font was asked for, the document has them all.
            has_own = pdf_fonts.asked() == self._fonts_before
            return pixels, complete and (has_own or not _lacks_letters(page))

    @contextlib.contextmanager
    def _page(self, number: int) -> Iterator[Any]:
        pdf_fonts.stand_in(False)
        page = pdfium.FPDF_LoadPage(self.document, number - 1)
        if not page:
            raise _refusal(f"Page {number} of the document is damaged.", "image_parse_error", self.param)
        try:
            yield page
        finally:
            if self.document.formenv:
                pdfium.FORM_OnBeforeClosePage(page, self.document.formenv)
            pdfium.FPDF_ClosePage(page)

    def _asks_to_wait(self) -> bool:
        with self._page(1) as page:
            text = pdfium.FPDFText_LoadPage(page)
            try:
                return bool(_WAIT.search(_text_of(text, _BEGINNING)))
            finally:
                pdfium.FPDFText_ClosePage(text)

    def _unit(self, number: int) -> float:
        """The unit of a page in points, UserUnit (ISO 32000-1, table 30), which PDFium passes over."""
        if self._has_units is None:
            hidden = b"/Encrypt" in self.data and b"/ObjStm" in self.data
            self._has_units = hidden or self._mentions(_USER_UNIT)
        if not self._has_units:
            return 1.0
        target = io.BytesIO()
        with contextlib.suppress(PdfiumError), PdfDocument.new() as alone:  # of what is damaged, nothing is known
            alone.import_pages(self.document, [number - 1])
            alone.save(target)
        found = _USER_UNIT.search(target.getbuffer())
        return float(found[1]) or 1.0 if found else 1.0

    def _mentions(self, pattern: re.Pattern[bytes]) -> bool:
        """Whether something stands among the objects of the file, as far as they are not encrypted."""
        if pattern.search(self.data):
            return True
        for place, _ in zip(_OBJECT_STREAM.finditer(self.data), range(_MAX_OBJECT_STREAMS), strict=False):
            with contextlib.suppress(zlib.error):
                packed = memoryview(self.data)[place.end() : place.end() + _MAX_OBJECTS]
                if pattern.search(zlib.decompressobj().decompress(packed, _MAX_OBJECTS)):
                    return True
        return False


def _load_fonts(page: Any) -> None:
    """Have PDFium make the appearances that are missing, and ask for the fonts of all: nothing is drawn."""
    pixel = np.zeros((1, 1, 4), np.uint8)
    bitmap = pdfium.FPDFBitmap_CreateEx(1, 1, pdfium.FPDFBitmap_BGRx, pixel.ctypes.data, pixel.strides[0])
    try:
        away = pdfium.FS_MATRIX(1, 0, 0, 1, _FAR, _FAR)
        pdfium.FPDF_RenderPageBitmapWithMatrix(bitmap, page, away, pdfium.FS_RECTF(0, 1, 1, 0), _FLAGS)
    finally:
        pdfium.FPDFBitmap_Destroy(bitmap)


def _painted(page: Any, forms: Any, height: int, width: int) -> Pixels:
    pixels = np.full((height, width, 3), 255, np.uint8)
    bitmap = pdfium.FPDFBitmap_CreateEx(width, height, pdfium.FPDFBitmap_BGR, pixels.ctypes.data, pixels.strides[0])
    if not bitmap:
        raise MemoryError
    try:
        area = (0, 0, width, height, 0)
        pdfium.FPDF_RenderPageBitmap(bitmap, page, *area, _FLAGS)
        if forms:
            pdfium.FPDF_FFLDraw(forms, bitmap, page, *area, _FLAGS)
    finally:
        pdfium.FPDFBitmap_Destroy(bitmap)
    return pixels


def _lacks_letters(page: Any) -> bool:
    """Whether a letter of the page's own text has an outline in no font: neither in its own nor in the stand-in."""
    text = pdfium.FPDFText_LoadPage(page)
    if not text:
        return False
    try:
        count = min(pdfium.FPDFText_CountChars(text), MAX_LETTERS)
        if all(map(is_western, set(_text_of(text, count)))):  # PDFium's own fonts have these: nearly all pages
            return False
        return any(not _has_outline(*each) for each in _foreign_letters(text, count))
    finally:
        pdfium.FPDFText_ClosePage(text)


def _foreign_letters(text: Any, count: int) -> Iterator[tuple[Any, int]]:
    """The fonts that the document does not hold, each with every letter in it that PDFium's own fonts may lack."""
    known: set[tuple[int | None, int]] = set()
    for place in range(count):
        letter = pdfium.FPDFText_GetUnicode(text, place)
        if letter > sys.maxunicode or is_western(chr(letter)) or not chr(letter).isprintable():
            continue
        piece = pdfium.FPDFText_GetTextObject(text, place)
        # Scans have their text behind the picture, in fonts that nobody needs.
        if not piece or pdfium.FPDFTextObj_GetTextRenderMode(piece) == pdfium.FPDF_TEXTRENDERMODE_INVISIBLE:
            continue
        font = pdfium.FPDFTextObj_GetFont(piece)
        name = ctypes.cast(font, ctypes.c_void_p).value, letter
        if name not in known and not pdfium.FPDFFont_GetIsEmbedded(font):
            yield font, letter
        known.add(name)


def _has_outline(font: Any, letter: int) -> bool:
    path = pdfium.FPDFFont_GetGlyphPath(font, letter, 10.0)
    return bool(path) and pdfium.FPDFGlyphPath_CountGlyphSegments(path) > 0


def _text_of(text: Any, count: int) -> str:
    """The first letters of a page."""
    buffer = ctypes.create_string_buffer(2 * (count + 1))
    pdfium.FPDFText_GetText(text, 0, count, ctypes.cast(buffer, ctypes.POINTER(ctypes.c_ushort)))
    return buffer.raw.decode("utf-16-le", "replace").rstrip("\0")


def _refusal(message: str, code: ImageCode, param: str | None) -> BadRequest:
    return invalid_media("file", message, code=code, param=param)
