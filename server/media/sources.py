"""What a client named as a picture, clip or document: bytes that came along, or where to get them from.

Only data URLs in base64, http(s) URLs, and file: URLs are taken; `files` decides which of the latter may be opened.
Nothing here decodes, reads a file or opens a socket.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import numpy as np

from server.core import RawString, Url
from server.errors import BadRequest, ImageCode, MediaKind, invalid_media

NOUNS: dict[MediaKind, str] = {"image": "picture", "video": "clip", "file": "document"}
EXAMPLES: dict[MediaKind, str] = {
    "image": "data:image/png;base64,...",
    "video": "data:video/mp4;base64,...",
    "file": "data:application/pdf;base64,...",
}
MAX_URL_LENGTH = 8192
"""Longest http(s) or file URL, in characters."""
MAX_HEADER = 8192
"""Characters up to where the base64 of a data URL begins: media type and parameters, such as a long file name."""
_MARKER = re.compile(r'"(?:[^"\\]|\\.)*"?|;\s*base64\s*,', re.IGNORECASE)
"""Quoted text, in which a comma ends nothing (RFC 9110, 5.6.4), and what stands before the base64 (RFC 2397)."""
_RAW_MARKER = re.compile(r'\\"(?:[^"\\]|\\[^"])*(?:\\")?|;\s*base64\s*,', re.IGNORECASE)
"""The same where JSON's escapes still stand."""
_BARE_BASE64 = re.compile(
    r"(?:[/_]9j[/_]|iVBOR|R0lGOD|UklGR|JVBERi|GkXfo|AAAA)[A-Za-z0-9+/_-]{8}|[A-Za-z0-9+/_=\s-]{500}"
)
"""How files begin in base64, JPEG, PNG, GIF, WebP or AVI, PDF, WebM and MP4; or anything longer than a path is."""
_WHITESPACE = " \t\r\n\f\v"
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]{1,30}):", re.IGNORECASE)  # one letter is a Windows drive


@dataclass(frozen=True, slots=True)
class Inline:
    """Something inside the request, still in base64. `size` is its length in bytes once decoded, at most."""

    url: Url
    start: int
    """Where the base64 begins in `url`."""
    size: int
    kind: MediaKind
    param: str

    @property
    def is_escaped(self) -> bool:
        """Whether JSON's escapes still stand in the base64."""
        return isinstance(self.url, RawString) and self.url.is_escaped

    def encoded(self) -> tuple[bytes, ...]:
        """The base64 as bytes, in pieces, not yet decoded.

        Raises the kind's error (invalid_base64_image) for a character outside ASCII.
        """
        if isinstance(self.url, RawString):
            return self.url.after(self.start)
        try:
            return (self.url[self.start :].encode("ascii"),)
        except UnicodeEncodeError:
            raise bad_base64(self.kind, self.param) from None


@dataclass(frozen=True, slots=True)
class Remote:
    """Something to be fetched; `url` begins with http: or https: and is not checked further here."""

    url: str
    kind: MediaKind
    param: str


@dataclass(frozen=True, slots=True)
class Local:
    """A file of this machine, by its absolute path; whether it may be opened is not decided here."""

    path: str
    kind: MediaKind
    param: str


Content = Inline | Remote | Local


def parse_source(url: Url, kind: MediaKind, *, max_bytes: int, param: str) -> Content:
    """Tell what `url` is, without decoding it; the size of a data URL is known from the length of its base64.

    Raises the kind's error with `param`, by its code for pictures: invalid_image_url (not a data, http(s) or file URL),
    invalid_base64_image (a data URL without base64, or of impossible length), empty_image_file, image_file_too_large
    (more than `max_bytes` once decoded). No message repeats what came in, but for a scheme.
    """

    def refuse(message: str) -> BadRequest:
        return invalid_media(kind, message, code="invalid_image_url", param=param)

    if isinstance(url, RawString):
        if url.start(MAX_HEADER).lstrip().lower().startswith("data:"):
            return _parse_raw(url, kind, param, max_bytes)
        url = url.head(MAX_URL_LENGTH + 1).replace(b"\\/", b"/").decode("utf-8", "replace")
    url, hint = url.strip(_WHITESPACE), f"send it as a data URL, such as {EXAMPLES[kind]}"
    match = _SCHEME.match(url)
    scheme = match[1].lower() if match else ""
    if scheme == "data":
        return _parse_data(url, kind, param, max_bytes)
    if not url:
        raise refuse(f"The URL is empty: name a {NOUNS[kind]} by http(s), or {hint}")
    if scheme in ("http", "https", "file") and len(url) > MAX_URL_LENGTH:
        raise refuse(f"The URL is longer than {MAX_URL_LENGTH} characters.")
    if scheme in ("http", "https"):
        return Remote(url, kind, param)
    if scheme == "file":
        return _parse_file(url, kind, param)
    if not scheme and _BARE_BASE64.match(url):
        raise refuse(f"This is base64 without its data URL: put the media type before it, as in {EXAMPLES[kind]}")
    if not scheme:
        raise refuse(f"The server never opens a client's local path: read the file and {hint}")
    raise refuse(f"A URL of scheme '{scheme}' is not supported: use http(s), or {hint}")


def _parse_file(url: str, kind: MediaKind, param: str) -> Local:
    try:
        parts = urlsplit(url)
        path = unquote(parts.path, errors="strict")
        path.encode()  # half a surrogate pair names no file
    except ValueError:
        parts, path = urlsplit(""), ""
    named = path.startswith("/") and "\0" not in path and parts.netloc.lower() in ("", "localhost")
    if not named or parts.query or parts.fragment:
        raise invalid_media(
            kind,
            "The file URL is malformed: write file:///path, with an absolute path.",
            code="invalid_image_url",
            param=param,
        )
    return Local(path, kind, param)


def too_large(kind: MediaKind, max_bytes: int, param: str | None) -> BadRequest:
    """The error for a file over the limit for one."""
    message = f"The {NOUNS[kind]} file is larger than {_readable(max_bytes)}."
    return invalid_media(kind, message, code="image_file_too_large", param=param)


def too_large_together(kind: MediaKind, max_bytes: int, param: str | None) -> BadRequest:
    """The error for files that are over the limit of a request in sum."""
    message = f"The media files of this request are larger than {_readable(max_bytes)} together."
    return invalid_media(kind, message, code="image_file_too_large", param=param)


def bad_base64(kind: MediaKind, param: str | None) -> BadRequest:
    """The error for a data URL whose base64 cannot be decoded."""
    return invalid_media(
        kind,
        "The data URL is not valid base64: use the standard alphabet (A-Z a-z 0-9 + /) or that of URLs (- _), with "
        "nothing else in it.",
        code="invalid_base64_image",
        param=param,
    )


def _parse_data(url: str, kind: MediaKind, param: str, max_bytes: int) -> Inline:
    def refuse(message: str, code: ImageCode) -> BadRequest:
        return invalid_media(kind, message, code=code, param=param)

    start = _start_of_base64(url[:MAX_HEADER], refuse, kind, is_raw=False)
    length, has_escapes = len(url) - start, False
    if length % 4 or length // 4 * 3 > max_bytes:
        # Counted only where it matters: it costs more than all other checks of a large picture together.
        escapes = url.count("%", start)
        length -= sum(url.count(space, start) for space in _WHITESPACE) + 2 * escapes
        has_escapes = escapes > 0
    if length == 0:
        raise refuse("The data URL holds no bytes.", "empty_image_file")
    padding = _padding(url[-2:])
    size = (length - padding) * 3 // 4
    if size > max_bytes:
        raise too_large(kind, max_bytes, param)
    if not has_escapes and ((length - padding) % 4 == 1 or (padding and length % 4)):
        raise bad_base64(kind, param)
    return Inline(url, start, size, kind, param)


def _padding(tail: str) -> int:
    return 2 if tail == "==" else 1 if tail.endswith("=") else 0


def _parse_raw(url: RawString, kind: MediaKind, param: str, max_bytes: int) -> Inline:
    """A long data URL as it was sent. What is not seen from its length, a worker finds."""

    def refuse(message: str, code: ImageCode) -> BadRequest:
        return invalid_media(kind, message, code=code, param=param)

    head = url.head(MAX_HEADER).decode("latin-1")
    spaces = len(head) - len(head.lstrip(_WHITESPACE))
    start = spaces + _start_of_base64(head[spaces:], refuse, kind, is_raw=True)
    length = max(0, url.size - start - url.beside + head[:start].count("\\"))
    if max_bytes < length // 4 * 3 < 4 * max_bytes:
        length -= sum(_count(piece, b" ") + 2 * _count(piece, b"%") for piece in url.pieces)
    size = (length - _padding(url.pieces[-1][-2:].decode("latin-1"))) * 3 // 4
    if size > max_bytes:
        raise too_large(kind, max_bytes, param)
    return Inline(url, start, size, kind, param)


def _count(piece: bytes, byte: bytes) -> int:
    """How often a byte is in it. bytes.count takes 20 times as long, in which nobody else is served."""
    return int(np.count_nonzero(np.frombuffer(piece, np.uint8) == byte[0])) if byte in piece else 0


def base64_start(head: str, *, is_raw: bool) -> int | None:
    """Where the base64 of a data URL begins, by its first MAX_HEADER characters; None where it has none.

    `is_raw`: whether JSON's escapes still stand.
    """
    found = (_RAW_MARKER if is_raw else _MARKER).finditer(head)
    return next((marker.end() for marker in found if marker[0].startswith(";")), None)


def _start_of_base64(
    head: str, refuse: Callable[[str, ImageCode], BadRequest], kind: MediaKind, *, is_raw: bool
) -> int:
    start = base64_start(head, is_raw=is_raw)
    if start is None and "," not in head:
        raise refuse(
            f"The data URL has no comma after its media type: send it as {EXAMPLES[kind]}", "invalid_image_url"
        )
    # What it says of its media type is not asked: the bytes decide.
    if start is None:
        raise refuse(f"The data URL is not marked as base64: send it as {EXAMPLES[kind]}", "invalid_base64_image")
    return start


def _readable(size: int) -> str:
    return f"{size / 2**20:.4g} MiB" if size >= 2**20 else f"{size} bytes"
