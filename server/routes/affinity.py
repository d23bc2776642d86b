"""The key by which balancers send requests about the same picture to the same replica: `X-Image-Hash`.

A balancer hashes a header, not a body. So a client that knows its picture sends the key along; one that would rather
not compute it sends anything, and finds it in the reply. It only ever decides which replica is asked.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterable
from hashlib import sha256

import orjson
import pybase64

from server.core import RawString, Url

HEADER = "x-image-hash"
"""Of requests, and of replies."""
_MAX_HEADER = 200  # characters between `data:` and the comma
_WHITESPACE = " \t\r\n\f\v"
_NO_WHITESPACE = dict.fromkeys(map(ord, _WHITESPACE))


def image_hash(urls: Iterable[Url]) -> str | None:
    """The key of a request whose pictures are at `urls`, in their order: 64 hex digits for the first of them.

    A data URL counts as the bytes of its file, so that any client can compute the same: `sha256sum picture.png`. An
    address counts as its text. None without a picture, and for what the server would refuse or only itself can see.
    """
    url = next(iter(urls), "")
    if isinstance(url, RawString):  # only as text can it be told from its escapes; this runs in a thread
        written = b"".join(url.pieces)
        url = str(orjson.loads(b'"%b"' % written)) if url.is_escaped else written.decode("latin-1")
    url = url.strip(_WHITESPACE)
    start = url[:6].lower()
    if start.startswith(("http:", "https:")):
        return sha256(url.encode("utf-8", "surrogatepass")).hexdigest()
    if not start.startswith("data:"):
        return None
    file = _decoded(url)
    return sha256(file).hexdigest() if file else None


def _decoded(url: str) -> bytes | None:
    """The file in a data URL, or None where it cannot be read."""
    comma = url.find(",", 0, _MAX_HEADER)
    if comma < 0 or not url[:comma].rstrip().lower().endswith(";base64"):
        return None
    try:
        return pybase64.b64decode(url[comma + 1 :], validate=True)
    except (binascii.Error, ValueError):
        pass
    try:  # line breaks are let pass elsewhere, too
        return pybase64.b64decode(url[comma + 1 :].translate(_NO_WHITESPACE), validate=True)
    except (binascii.Error, ValueError):
        return None
