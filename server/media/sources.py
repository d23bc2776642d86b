"""What a client named as a picture: bytes that came along, or an address to fetch from.

Only data URLs in base64 and http(s) URLs are taken. A path or a file: URL would name a file of this server's machine,
so it is never opened. Nothing here decodes a picture or opens a socket.
"""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass

from server.core import PictureSource
from server.errors import ImageCode, InvalidImage

MEDIA_TYPES = frozenset({"image/jpeg", "image/jpg", "image/png", "image/webp", "image/gif", "image"})
"""Media types of a data URL. Bare `image` is what `data:image;base64,` says; the bytes themselves decide anyway."""
MAX_URL_LENGTH = 8192
"""Longest http(s) URL, in characters."""
_MAX_HEADER = 200  # characters between `data:` and the comma
_WHITESPACE = " \t\r\n\f\v"
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]{1,30}):", re.IGNORECASE)  # one letter is a Windows drive
_KNOWN_TYPE = re.compile(r"(application|audio|image|model|multipart|text|video)/[a-z0-9.+-]{1,40}")
_HINT = "send it as a data URL, such as data:image/png;base64,..."


@dataclass(frozen=True, slots=True)
class Inline:
    """A picture inside the request, still in base64. `size` is its length in bytes once decoded."""

    url: str
    start: int
    """Where the base64 begins in `url`."""
    size: int
    param: str

    def decode(self) -> bytes:
        """The picture file's bytes. ASCII white space is skipped, since many clients wrap lines.

        Raises InvalidImage (invalid_base64_image) for a foreign character or wrong padding.
        """
        try:
            encoded = self.url[self.start :].encode("ascii").translate(None, _WHITESPACE.encode())
            return binascii.a2b_base64(encoded, strict_mode=True)
        except ValueError:
            raise _bad_base64(self.param) from None


@dataclass(frozen=True, slots=True)
class Remote:
    """A picture to be fetched; `url` begins with http: or https: and is not checked further here."""

    url: str
    param: str


def parse_source(source: PictureSource, *, max_bytes: int) -> Inline | Remote:
    """Tell what `source.url` is, without decoding it; its size is known from the length of the base64.

    Raises InvalidImage with `source.param`: invalid_image_url (not a data or http(s) URL), invalid_base64_image (a data
    URL without base64, or of impossible length), unsupported_image_media_type, empty_image_file, image_file_too_large
    (more than `max_bytes` once decoded). No message repeats what came in, but for a scheme or a media type.
    """
    url, param = source.url.strip(_WHITESPACE), source.param
    match = _SCHEME.match(url)
    scheme = match[1].lower() if match else ""
    if scheme == "data":
        return _parse_data(url, param, max_bytes)
    if scheme in ("http", "https"):
        if len(url) > MAX_URL_LENGTH:
            raise _refuse(f"The URL is longer than {MAX_URL_LENGTH} characters.", "invalid_image_url", param)
        return Remote(url, param)
    if not url:
        raise _refuse(f"The URL is empty: name a picture by http(s), or {_HINT}", "invalid_image_url", param)
    if scheme in ("", "file"):
        raise _refuse(
            f"The server never opens a client's local path: read the file and {_HINT}", "invalid_image_url", param
        )
    raise _refuse(f"A URL of scheme '{scheme}' is not supported: use http(s), or {_HINT}", "invalid_image_url", param)


def too_large(max_bytes: int, param: str | None) -> InvalidImage:
    """The error for a picture file over the limit for one picture."""
    return _refuse(f"The picture file is larger than {_readable(max_bytes)}.", "image_file_too_large", param)


def too_large_together(max_bytes: int, param: str | None) -> InvalidImage:
    """The error for picture files that are over the limit of a request in sum."""
    return _refuse(
        f"The picture files of this request are larger than {_readable(max_bytes)} together.",
        "image_file_too_large",
        param,
    )


def _parse_data(url: str, param: str, max_bytes: int) -> Inline:
    comma = url.find(",", 0, _MAX_HEADER)
    if comma < 0:
        raise _refuse(f"The data URL has no comma after its media type: {_HINT}", "invalid_image_url", param)
    media_type, *parameters = (part.strip().lower() for part in url[len("data:") : comma].split(";"))
    if media_type not in MEDIA_TYPES:
        shown = f"'{media_type}'" if _KNOWN_TYPE.fullmatch(media_type) else "of this data URL"
        raise _refuse(
            f"The media type {shown} is not supported: send JPEG, PNG, WEBP or GIF.",
            "unsupported_image_media_type",
            param,
        )
    if not parameters or parameters[-1] != "base64":
        raise _refuse(f"The data URL is not marked as base64: {_HINT}", "invalid_base64_image", param)
    start = comma + 1
    length = len(url) - start - sum(url.count(space, start) for space in _WHITESPACE)
    if length == 0:
        raise _refuse("The data URL holds no bytes.", "empty_image_file", param)
    size = length // 4 * 3 - (2 if url.endswith("==") else 1 if url.endswith("=") else 0)
    if size > max_bytes:
        raise too_large(max_bytes, param)
    if length % 4:
        raise _bad_base64(param)
    return Inline(url, start, size, param)


def _bad_base64(param: str) -> InvalidImage:
    return _refuse(
        "The data URL is not valid base64: use the standard alphabet (A-Z a-z 0-9 + /) and pad with = to a multiple of "
        "4 characters.",
        "invalid_base64_image",
        param,
    )


def _readable(size: int) -> str:
    return f"{size / 2**20:.4g} MiB" if size >= 2**20 else f"{size} bytes"


def _refuse(message: str, code: ImageCode, param: str | None) -> InvalidImage:
    return InvalidImage(message, code=code, param=param)
