"""A small file for each way of decoding, for a worker to rehearse: what libraries load late, they load then."""

from __future__ import annotations

import io
from base64 import b64decode
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from PIL import Image

_AVIF: Final = (
    "AAAAIGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZk1BMUIAAADrbWV0YQAAAAAAAAAhaGRscgAAAAAAAAAAcGljdAAAAAAAAAAAAAAAAAAAAAAO"
    "cGl0bQAAAAAAAQAAAB5pbG9jAAAAAEQAAAEAAQAAAAEAAAETAAAAKwAAAChpaW5mAAAAAAABAAAAGmluZmUCAAAAAAEAAGF2MDFDb2xvcgAA"
    "AABqaXBycAAAAEtpcGNvAAAAFGlzcGUAAAAAAAAAQAAAAEAAAAAQcGl4aQAAAAADCAgIAAAADGF2MUOBAAwAAAAAE2NvbHJuY2x4AAEADQAG"
    "gAAAABdpcG1hAAAAAAAAAAEAAQQBAoMEAAAAM21kYXQSAAoJGBV//aICGg0IMhwcR4eF3dNNNMLAAADPyinHlDSZ8H5+YNDhMrX7"
)
_HEIC: Final = (
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAVZtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAACJpbG9j"
    "AAAAAERAAAEAAQAAAAABegABAAAAAAAAABkAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRtAAAAAAABAAAA1mlw"
    "cnAAAAC3aXBjbwAAAHhodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQArQgEBA3AA"
    "AAMAkAAAAwAAAwAeoCCBBZbqSSmubgIaDAgAAAMAyAAAAwAIQGIAAQAHRAHBcrAiQAAAABNjb2xybmNseAABAA0ABoAAAAAUaXNwZQAAAAAA"
    "AABAAAAAQAAAABBwaXhpAAAAAAMICAgAAAAXaXBtYQAAAAAAAAABAAEEgQIDBAAAACFtZGF0AAAAFSgBrwtg+sbB1//6Djv44xB4r3tO3A=="
)
"""Red squares of 64 pixels. To encode them would start threads that stay."""
_DOCUMENT = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 99 99]/Annots[<</Type/Annot/Subtype/FreeText/Rect[9 9 99 50]/F 4"
    b"/DA(/Helv 9 Tf 0 g)/Contents<feff0645>>>]/Contents 4 0 R/Resources<</Font<</F<</Type/Font"
    b"/Subtype/Type1/BaseFont/Helvetica>>>>>>>>endobj\n"
    b"4 0 obj<</Length 26>>stream\nBT /F 9 Tf (x) Tj ET     \nendstream endobj\n"
    b"trailer<</Root 1 0 R>>"
)
"""A page with a letter on it and one in a note: fonts are looked for when one is first needed."""


def _saved(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    """A picture by Pillow's name for its format."""
    target = io.BytesIO()
    Image.new("RGB", (64, 64), "red").convert(mode).save(target, kind, **options)
    return target.getvalue()


def _moving(kind: str) -> bytes:
    return _saved(kind, save_all=True, append_images=[Image.new("RGB", (64, 64), "blue")], duration=500)


PICTURES: Final[dict[str, Callable[[], bytes]]] = {
    "JPEG": partial(_saved, "JPEG"),
    "JPEG in CMYK": partial(_saved, "JPEG", "CMYK"),
    "PNG": partial(_saved, "PNG"),
    "WebP": partial(_saved, "WEBP"),
    "GIF": partial(_saved, "GIF"),
    "BMP": partial(_saved, "BMP"),
    "AVIF": partial(b64decode, _AVIF),
    "HEIC": partial(b64decode, _HEIC),
}
CLIPS: Final[dict[str, Callable[[], bytes]]] = {
    "GIF": partial(_moving, "GIF"),
    "PNG": partial(_moving, "PNG"),
    "WebP": partial(_moving, "WEBP"),
}
PAGES: Final[dict[str, Callable[[], bytes]]] = {
    "PDF": lambda: _DOCUMENT,
    "TIFF": partial(_saved, "TIFF"),
    "TIFF of a fax": partial(_saved, "TIFF", "1", compression="group4"),
    "TIFF with JPEG": partial(_saved, "TIFF", compression="jpeg"),
    "TIFF with LZW": partial(_saved, "TIFF", compression="tiff_lzw"),
}
