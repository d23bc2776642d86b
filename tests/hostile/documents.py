"""PDF files that unpack without end, go round in circles, or want to be opened, run and read."""

from __future__ import annotations

import base64
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from tests.e2e.asking import data_url
from tests.hostile import pdf_files as make
from tests.hostile.case import Case, answered, borne, refused, said, text
from tests.hostile.house import House
from tests.hostile.packing import MIB

FILE: Final = "messages[0].content[0].file.file_data"
PART: Final = "messages[0].content[0]"
SMALL: Final = {"min_pixels": 28 * 28, "max_pixels": 56 * 56}

File = Callable[[], bytes]


def read(data: str, **more: Any) -> dict[str, Any]:
    """A request about a document; `more` stands beside the file."""
    return said([{"type": "file", "file": {"file_data": data, "filename": "x.pdf"}, **more}, text("Read.")])


def inline(content: bytes, **more: Any) -> dict[str, Any]:
    return read(data_url(content, "application/pdf"), **more)


# ---- Bombs ------------------------------------------------------------------------------------------


def forms(levels: int, times: int) -> bytes:
    """Forms that each draw the next so many times: ten levels of ten are ten billion."""
    entry = b"/Type /XObject /Subtype /Form /BBox [0 0 9 9] /Resources << /XObject << /X %d 0 R >> >>"
    others = {
        20 + level: make.stream(b"/X Do " * times, entry % (21 + level) if level + 1 < levels else b"")
        for level in range(levels)
    }
    others[20 + levels - 1] = make.stream(b"0 0 9 9 re f", b"/Type /XObject /Subtype /Form /BBox [0 0 9 9]")
    return make.page(b"/X Do", resources=b"/XObject << /X 20 0 R >>", others=others)


def own_form() -> bytes:
    """A form that draws itself."""
    entry = b"/Type /XObject /Subtype /Form /BBox [0 0 9 9] /Resources << /XObject << /X 20 0 R >> >>"
    return make.page(b"/X Do", resources=b"/XObject << /X 20 0 R >>", others={20: make.stream(b"/X Do", entry)})


def picture(width: int, height: int, data: bytes, entries: bytes = b"") -> bytes:
    entry = b"/Type /XObject /Subtype /Image /Width %d /Height %d /ColorSpace /DeviceGray /BitsPerComponent 1 %b"
    content = make.stream(data, entry % (width, height, entries))
    return make.page(b"200 0 0 200 0 0 cm /X Do", resources=b"/XObject << /X 20 0 R >>", others={20: content})


def own_font() -> bytes:
    """A font whose letter is written in that font."""
    font = (
        b"<< /Type /Font /Subtype /Type3 /FontBBox [0 0 9 9] /FontMatrix [1 0 0 1 0 0] /FirstChar 97 /LastChar 97 "
        b"/Widths [9] /Encoding << /Differences [97 /a] >> /CharProcs << /a 20 0 R >> "
        b"/Resources << /Font << /F 9 0 R >> >> >>"
    )
    return make.page(b"BT /F 9 Tf (a) Tj ET", others={9: font, 20: make.stream(b"BT /F 9 Tf (a) Tj ET")})


def tiles() -> bytes:
    """A pattern of tiles too small to see, over the whole page."""
    entry = (
        b"/Type /Pattern /PatternType 1 /PaintType 1 /TilingType 1 /BBox [0 0 1 1] /XStep 0.0001 /YStep 0.0001 "
        b"/Resources << >>"
    )
    return make.page(
        b"/Pattern cs /P scn 0 0 298 420 re f",
        resources=b"/Pattern << /P 20 0 R >>",
        others={20: make.stream(b"0 0 1 1 re f", entry)},
    )


def own_length() -> bytes:
    return make.page(packed_contents=b"<< /Length 4 0 R >>\nstream\n" + make.WORDS + b"\nendstream")


def object_stream_of_itself() -> bytes:
    others = {20: make.stream(b"20 0 << >>", b"/Type /ObjStm /N 1 /First 5 /Extends 20 0 R")}
    return make.page(others=others, more=b"/X 20 0 R")


def looping_table() -> bytes:
    """A table of objects whose predecessor is itself."""
    content = make.page()
    at = int(content.rsplit(b"startxref\n", 1)[1].split(b"\n")[0])
    return content.replace(b"/Root 1 0 R ", b"/Root 1 0 R /Prev %d " % at)


def deep(opening: bytes, closing: bytes, depth: int = 100_000) -> bytes:
    return make.page(more=b"/X " + opening * depth + closing * depth)


def deep_tree(depth: int) -> bytes:
    """Pages in pages in pages."""
    objects = {1: b"<< /Type /Catalog /Pages 10 0 R >>"}
    for number in range(10, 10 + depth):
        objects[number] = b"<< /Type /Pages /Kids [%d 0 R] /Count 1 >>" % (number + 1)
    objects[10 + depth] = b"<< /Type /Page /Parent %d 0 R /MediaBox %b >>" % (9 + depth, make.A6)
    return make.written(objects)


def action(kind: bytes) -> bytes:
    return make.page(catalogue=b"/OpenAction << /S %b >>" % kind)


def notes(count: int, words: int) -> bytes:
    """Notes in Arabic that do not say how they look."""
    text = (b"\xfe\xff" + ("\u0645\u0631\u062d\u0628\u0627 " * words).encode("utf-16-be")).hex().encode()
    note = b"<< /Type /Annot /Subtype /FreeText /Rect [9 9 290 400] /DA (/Helv 0 Tf) /Contents <%b> >>" % text
    places = b" ".join(b"%d 0 R" % number for number in range(20, 20 + count))
    return make.page(more=b"/Annots [%b]" % places, others=dict.fromkeys(range(20, 20 + count), note))


def form_of_adobe() -> bytes:
    """A dynamic XFA form."""
    catalogue = b"/NeedsRendering true /AcroForm << /Fields [] /XFA 20 0 R >>"
    return make.page(catalogue=catalogue, others={20: make.stream(b"<xdp/>")})


def portfolio() -> bytes:
    """A cover, and a file behind it."""
    files = b"/Collection << >> /Names << /EmbeddedFiles << /Names [(a) 20 0 R] >> >>"
    others = {20: b"<< /Type /Filespec /F (a) /EF << /F 21 0 R >> >>", 21: make.stream(b"a")}
    return make.page(catalogue=files, others=others)


PARSE: Final = "file_parse_error"
LARGE: Final = "file_too_large"
INVALID: Final = "invalid_file"
NONE: Final = "invalid_file_format"
OTHER: Final = "unsupported_file_media_type"

REFUSED: Final[dict[str, tuple[File, str]]] = {
    "a password": (lambda: make.encrypted(b"secret"), INVALID),
    "a dynamic form": (form_of_adobe, INVALID),
    "a portfolio": (portfolio, INVALID),
    "1,500 long notes": (lambda: notes(1500, 500), PARSE),
    "17 pages": (lambda: make.pages(17), LARGE),
    "2,000 pages": (lambda: make.pages(2000), LARGE),
    "a million pages of one": (lambda: make.tree([b"3 0 R"] * 1_000_000, 1_000_000), LARGE),
    "no pages": (lambda: make.tree([], 0), PARSE),
    "a page 300 times as wide as high": (lambda: make.page(box=b"[0 0 6000 20]"), INVALID),
    "empty": (lambda: b"%PDF-1.7\n", PARSE),
    "half": (lambda: make.page()[:200], PARSE),
    "a catalogue that is not there": (lambda: make.page().replace(b"/Root 1 0 R", b"/Root 7 0 R"), PARSE),
    "a catalogue without pages": (lambda: make.written({1: b"<< /Type /Catalog >>"}), PARSE),
    "noise": (lambda: b"%PDF-1.7\n" + bytes(range(256)) * 100, PARSE),
    "HTML": (lambda: b"<!doctype html><html></html>", OTHER),
    "PostScript": (lambda: b"%!PS-Adobe-3.0\n(/etc/passwd) run", OTHER),
    "a Word document": (lambda: b"PK\x03\x04" + bytes(100), OTHER),
    "words": (lambda: b"no document at all", NONE),
    "a program": (lambda: b"\x7fELF\x02\x01\x01" + bytes(100), NONE),
}
ANSWERED: Final[dict[str, File]] = {
    "a page": make.page,
    "16 pages": lambda: make.pages(16),
    "300 notes": lambda: notes(300, 9),
    "a long note": lambda: notes(1, 100_000),
    "a unit of a mile": lambda: make.page(more=b"/UserUnit 63360"),
    "an empty password": lambda: make.encrypted(b""),
    "two billion pages, it says": lambda: make.tree([b"3 0 R"], 2**31 - 1),
    "a page ten miles wide": lambda: make.page(box=b"[0 0 1000000 1000000]"),
    "a page of 1e30": lambda: make.page(box=b"[0 0 1e30 999999999999999999999999]"),
    "a page without contents": lambda: make.tree([b"3 0 R"], 1),
    "a page without a size": lambda: make.page(box=b"[0 0 0 0]"),
    "a size of words": lambda: make.page(box=b"[(a) (b) (c) (d)]"),
    "a size from right to left": lambda: make.page(box=b"[298 420 0 0]"),
    "a turned page": lambda: make.page(more=b"/Rotate 90"),
    "a page turned by 1e9": lambda: make.page(more=b"/Rotate 1000000000"),
    "a table of objects that is missing": lambda: make.page().replace(b"xref\n0", b"nothing\n0"),
    "a table of objects that loops": looping_table,
    "words before its beginning": lambda: b"\n" * 500 + make.page(),
    "a script": lambda: action(b"/JavaScript /JS (while(1){app.alert(1)})"),
    "a program to start": lambda: action(b"/Launch /F (/bin/sh)"),
    "an address to open": lambda: action(b"/URI /URI (http://127.0.0.1/)"),
    "a form to send": lambda: action(b"/SubmitForm /F << /FS /URL /F (http://127.0.0.1/) >>"),
    "a page of another file": lambda: action(b"/GoToR /F (/etc/passwd) /D [0 /Fit]"),
    "contents in another file": lambda: make.page(
        packed_contents=b"<< /Length 0 /F (/etc/passwd) >>\nstream\n\nendstream"
    ),
    "contents at an address": lambda: make.page(
        packed_contents=b"<< /Length 0 /F << /FS /URL /F (http://127.0.0.1/) >> >>\nstream\n\nendstream"
    ),
    "a form that draws itself": own_form,
    "a font written in itself": own_font,
    "a length that is its own": own_length,
    "a packed object that extends itself": object_stream_of_itself,
    "lists 100,000 deep": partial(deep, b"[", b"]"),
    "entries 100,000 deep": partial(deep, b"<< /X ", b" >>"),
    "a million saved states": lambda: make.page(b"q " * 1_000_000 + make.WORDS),
    "a million restored states": lambda: make.page(b"Q " * 1_000_000 + make.WORDS),
    "a name of a megabyte": lambda: make.page(more=b"/" + b"a" * 1_000_000 + b" 1"),
    "256 MB of spaces": lambda: make.page(packed_contents=make.many(b" ", 256)),
    "contents packed twenty times": lambda: make.page(packed_contents=make.packed(make.WORDS, 20)),
    "damaged contents": lambda: make.page(packed_contents=make.stream(b"\xff" * 100, b"/Filter /FlateDecode")),
    "an unknown filter": lambda: make.page(packed_contents=make.stream(b"x", b"/Filter /Whatever")),
    "a picture of 100,000 x 100,000, it says": lambda: picture(100_000, 100_000, b""),
    "a picture of 2**31 - 1, it says": lambda: picture(2**31 - 1, 2**31 - 1, bytes(100)),
    "a damaged JPEG inside": lambda: picture(64, 64, b"\xff\xd8\xff" + bytes(50), b"/Filter /DCTDecode"),
    "a damaged JPEG 2000 inside": lambda: picture(64, 64, b"\0\0\0\x0cjP  " + bytes(50), b"/Filter /JPXDecode"),
    "a damaged JBIG2 inside": lambda: picture(64, 64, b"\0\0\0\1" + bytes(50), b"/Filter /JBIG2Decode"),
    "a damaged fax inside": lambda: picture(64, 64, bytes(50), b"/Filter /CCITTFaxDecode"),
}
"""What PDFium draws as well as it can, without doing what the file says beyond that."""

PAGES: Final[dict[str, tuple[dict[str, Any], str, str]]] = {
    "pages 0": ({"pages": "0"}, "invalid_value", f"{PART}.pages"),
    "pages -1": ({"pages": "-1"}, "invalid_value", f"{PART}.pages"),
    "pages of words": ({"pages": "all"}, "invalid_value", f"{PART}.pages"),
    "pages the wrong way round": ({"pages": "3-1"}, "invalid_value", f"{PART}.pages"),
    "pages that are not there": ({"pages": "9"}, INVALID, FILE),
    "a list of pages that is long": ({"pages": "1," * 5000 + "1"}, "invalid_value", f"{PART}.pages"),
    "the same page a hundred times": ({"pages": ",".join("1" * 100)}, LARGE, FILE),
    "pages an object": ({"pages": {"from": 1}}, "invalid_type", f"{PART}.pages"),
    "dpi 1e9": ({"dpi": 1e9}, "invalid_value", f"{PART}.dpi"),
    "dpi 10,000": ({"dpi": 10_000}, "invalid_value", FILE),
    "dpi 0": ({"dpi": 0}, "invalid_value", f"{PART}.dpi"),
    "dpi infinite": ({"dpi": float("inf")}, "invalid_value", f"{PART}.dpi"),
    "dpi text": ({"dpi": "high"}, "invalid_type", f"{PART}.dpi"),
}
URLS: Final[dict[str, tuple[str, str]]] = {
    "a forbidden address": ("http://127.0.0.1/x.pdf", "invalid_file_url"),
    "a forbidden name": ("http://loopback.test/x.pdf", "invalid_file_url"),
    "a file": ("file:///etc/passwd", "file_not_found"),
    "a redirect to loopback": ("http://good.test/to?http%3A%2F%2F127.0.0.1%2F", "invalid_file_url"),
    "a host that serves HTML": ("http://good.test/html", OTHER),
    "a host that never ends": ("http://good.test/endless", LARGE),
    "another scheme": ("ftp://good.test/x.pdf", "invalid_file_url"),
    "broken base64": ("data:application/pdf;base64,%%%%", "invalid_base64_file"),
    "plain text that is no base64": ("hello world, this is no base64 at all", "invalid_base64_file"),
    "another media type": ("data:text/html;base64,PGh0bWw+", OTHER),
    "nothing": ("", "empty_file"),
}


def _too_large(_: House) -> dict[str, Any]:
    return read(base64.b64encode(make.page() + bytes(33 * MIB)).decode())


def _of(file: File) -> Callable[[House], dict[str, Any]]:
    return lambda _: inline(file(), **SMALL)


CASES: Final[dict[str, Case]] = {
    **{name: refused(_of(file), code, FILE) for name, (file, code) in REFUSED.items()},
    **{name: answered(_of(file)) for name, file in ANSWERED.items()},
    **{name: refused(inline(make.pages(3), **more), code, param) for name, (more, code, param) in PAGES.items()},
    **{f"from {name}": refused(read(url), code, FILE) for name, (url, code) in URLS.items()},
    "plain base64": answered(read(base64.b64encode(make.page()).decode(), **SMALL)),
    "pages in Arabic digits": answered(inline(make.pages(3), pages="\u0661-\u0662", **SMALL)),
    "one page of 2,000": answered(lambda _: inline(make.pages(2000), pages="1000", **SMALL)),
    "33 MiB": refused(_too_large, LARGE, FILE),
    "a file's id": refused(
        said([{"type": "file", "file": {"file_id": "file-../../etc/passwd"}}]),
        "unsupported_parameter",
        f"{PART}.file.file_id",
    ),
    "no file": refused(said([{"type": "file", "file": {}}]), "missing_required_parameter", FILE),
    "a name that is a path": answered(
        said(
            [
                {
                    "type": "file",
                    "file": {"file_data": data_url(make.page(), "application/pdf"), "filename": "../../etc/passwd\0"},
                    **SMALL,
                }
            ]
        )
    ),
    "ten billion forms": borne(_of(partial(forms, 11, 10)), PARSE, FILE),
    "tiles too small to see": borne(_of(tiles), PARSE, FILE),
    "a gigabyte of spaces": borne(_of(lambda: make.page(packed_contents=make.many(b" ", 1024))), PARSE, FILE),
    "a gigabyte of lines": borne(
        _of(lambda: make.page(packed_contents=make.many(b"0 0 m 9 9 l S\n", 1024))), PARSE, FILE
    ),
    "pages 5,000 deep": borne(_of(partial(deep_tree, 5000)), PARSE, FILE),
}
