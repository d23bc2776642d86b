"""Bytes of a PDF -> pictures of its pages, with PDFium.

PDFium draws and does nothing else: this build has neither a JavaScript engine nor XFA, and nothing here runs a
document's actions, follows its links or unpacks the files in it. What a viewer would show on paper is drawn: the page,
its annotations, and the contents of form fields. Fonts that a document does not embed are taken from this machine.

PDFium is not safe in threads and can be kept busy for minutes by a small file, or crash: it runs in a worker process of
one thread, under a limit of time and memory.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np
import pypdfium2.raw as pdfium
from numpy.typing import NDArray
from pypdfium2 import PdfDocument, PdfiumError, PdfPage

from server.errors import BadRequest, ImageCode, invalid_media
from server.media.limits import DocumentLimits, check_dpi

Pixels = NDArray[np.uint8]
Fit = Callable[[int, int], tuple[int, int]]
"""(Height, width) that a page has at its resolution -> those in which it is drawn."""

POINTS: Final = 72
"""Units of a page in an inch."""
_SIGNATURE, _SIGNATURE_WITHIN = b"%PDF-", 1024  # bytes; some programs write a few of their own before it
_FLAGS: Final = pdfium.FPDF_ANNOT | pdfium.FPDF_REVERSE_BYTE_ORDER  # BGR in reverse is RGB

# It warns of forms that this build cannot show, once for each such document.
logging.getLogger("pypdfium2").setLevel(logging.ERROR)


def draw_pages(
    data: bytes,
    pages: Sequence[tuple[int, int | None]],
    dpi: float | None,
    limits: DocumentLimits,
    *,
    param: str | None = None,
    fit: Fit | None = None,
) -> Iterator[tuple[int, Pixels]]:
    """The chosen pages of a PDF in the order in which `pages` names them: their numbers, and uint8 [H, W, 3] in RGB.

    One page is in memory at a time. `pages` are as in `DocumentSource`. A page is `dpi` dots an inch large, as it is
    turned in a viewer; where that is more than `limits` allow, or the page claims an absurd size, as large as they do.
    `fit`, given that height and width, says the size in which to draw instead: what would be resized anyway is drawn in
    the right size at once, which is quicker and sharper.

    Raises, when the first page is asked for, BadRequest for a `dpi` out of range and InvalidFile with `param`:
    empty_file, invalid_file_format (not a PDF), file_parse_error (damaged), invalid_file (needs a password, or has no
    such page), file_too_large (more pages than `limits` allow). Whatever `fit` raises passes through.
    """
    check_dpi(dpi, limits, param=param)
    used = min(limits.default_dpi, limits.max_dpi) if dpi is None else dpi
    with _opened(data, param) as document:
        for number in _chosen(pages, len(document), limits, param):
            try:
                page = document[number - 1]
            except PdfiumError:
                raise _refusal(f"Page {number} of the document is damaged.", "image_parse_error", param) from None
            yield number, _drawn(page, used, limits.max_pixels, fit)


def pixel_size(width: float, height: float, dpi: float, max_pixels: int) -> tuple[int, int]:
    """The (height, width) in pixels of a page of `width` x `height` points."""
    # Some files claim 0, infinity, or no number at all; Acrobat's own limits are 3 and 14400 points.
    width, height = (min(max(1.0, side), 1e6) for side in (width, height))
    scale, most = dpi / POINTS, math.sqrt(max_pixels / (width * height))
    if scale > most:
        return max(1, int(height * most)), max(1, int(width * most))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _opened(data: bytes, param: str | None) -> PdfDocument:
    """The document, for as long as the caller holds `data`: it is not copied."""
    if not data:
        raise _refusal("The file is empty.", "empty_image_file", param)
    if data.find(_SIGNATURE, 0, _SIGNATURE_WITHIN) < 0:
        raise _refusal("The file is not a PDF document.", "invalid_image_format", param)
    handle = pdfium.FPDF_LoadMemDocument64(data, len(data), None)
    if handle:
        document = PdfDocument(handle)
        with contextlib.suppress(PdfiumError):
            document.init_forms()  # before any page: without it what stands in form fields is not drawn
        return document
    match pdfium.FPDF_GetLastError():
        case pdfium.FPDF_ERR_PASSWORD:
            raise _refusal("The document is protected by a password: send it without one.", "invalid_image", param)
        case pdfium.FPDF_ERR_SECURITY:
            message = "The document is encrypted in a way that this server cannot read: send it without."
            raise _refusal(message, "invalid_image", param)
    raise _refusal("The document is damaged or cut off.", "image_parse_error", param)


def _chosen(
    pages: Sequence[tuple[int, int | None]], count: int, limits: DocumentLimits, param: str | None
) -> Iterator[int]:
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


def _drawn(page: PdfPage, dpi: float, max_pixels: int, fit: Fit | None) -> Pixels:
    """The page, which is closed with it."""
    try:
        height, width = pixel_size(page.get_width(), page.get_height(), dpi, max_pixels)
        if fit is not None:
            height, width = fit(height, width)
        pixels = np.full((height, width, 3), 255, np.uint8)
        bitmap = pdfium.FPDFBitmap_CreateEx(width, height, pdfium.FPDFBitmap_BGR, pixels.ctypes.data, pixels.strides[0])
        if not bitmap:
            raise MemoryError
        try:
            area = (0, 0, width, height, 0)
            pdfium.FPDF_RenderPageBitmap(bitmap, page, *area, _FLAGS)
            if page.formenv:
                pdfium.FPDF_FFLDraw(page.formenv, bitmap, page, *area, _FLAGS)
        finally:
            pdfium.FPDFBitmap_Destroy(bitmap)
        return pixels
    finally:
        page.close()


def _refusal(message: str, code: ImageCode, param: str | None) -> BadRequest:
    return invalid_media("file", message, code=code, param=param)
