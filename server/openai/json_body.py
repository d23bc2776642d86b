"""A JSON body, taken apart as it comes, so that neither its size nor its shape can stop anybody else.

What JSON costs is not its bytes but what stands outside of its strings: `[],` three million times is a second and a
gigabyte of lists. That is counted here while the bytes come, for as much as looking for quotes costs. And long strings
that hold media are kept apart as they are: in their place the parser sees a short mark, `find` gives them back.
"""

from __future__ import annotations

import re
import secrets

from server.core import RawString
from server.errors import BadRequest, ContextLengthExceeded

MAX_STRUCTURE_BYTES = 64 << 10
"""Outside of strings and white space. Each list, object, key or number takes at least two, and up to 1 us to make."""
MAX_TEXT_COST = 8 << 20
"""Of all strings that are no media, in bytes; an escape costs as much as ESCAPE_COST bytes."""
ESCAPE_COST = 14
LONG_BYTES = 4096
"""From where a string is kept apart."""
MEDIA_KEYS = frozenset({b"url", b"image", b"images", b"image_url", b"video", b"videos", b"video_url", b"file_data"})
"""Of the strings that may be media, also in lists; some are refused, but by their name and not for their length."""
SHOWN_BYTES = 100
"""Of a string that is kept apart, the parser sees so many."""
LONGEST_KEY = max(map(len, MEDIA_KEYS))
BESIDE = {b"\\u": 4, b"\\n": 1, b"\\r": 1}
"""What an escape takes beyond its backslash: \\u002B is a +, as .NET writes it, and the end of a line is nothing."""
BACKSLASH = ord("\\")
WHITESPACE = b" \t\r\n"
MUCH_WHITESPACE = re.compile(rb"[ \t\r\n]{64,}")
PLAIN = re.compile(rb"[ !#-\[\]-~]*")
"""Of ASCII, what means itself in a string."""


class JsonBody:
    """Takes a body piece by piece; `json` is then what to parse. No piece is looked at twice."""

    def __init__(self) -> None:
        self.json = bytearray()
        self._structure = 0
        self._text = 0
        self._mark = secrets.token_hex(8)  # which no client can have written
        self._long: list[RawString] = []
        self._key = b""
        """Of the value that comes, or of the list that it stands in."""
        self._last = b""
        """The last string, if it is short enough for a key that matters."""
        self._string: list[bytes] | None = None
        """What has come of the string that comes; None outside of one."""
        self._string_bytes = 0
        self._string_escapes = 0
        self._string_beside = 0
        """Of those bytes, what escapes of letters and of line ends take for nothing, were it base64."""
        self._slashes = 0
        """Backslashes at the end of those: an odd number of them takes a quote for the string."""

    @classmethod
    def whole(cls, content: bytes) -> JsonBody:
        """A body that is all there; small ones need no look."""
        body = cls()
        if len(content) < LONG_BYTES:
            body.json += content
        else:
            body.feed(content)
        return body

    def feed(self, piece: bytes) -> None:
        """Take more of the body.

        Raises:
            BadRequest: it holds more than could be parsed in no time.
            ContextLengthExceeded: its texts are longer than any model could read.
        """
        at = 0
        while at < len(piece):
            at = self._outside(piece, at) if self._string is None else self._go_on_with_string(piece, at)
        self._check()

    def find(self, text: str) -> str | RawString:
        """What a string of the parsed body stands for: itself, or what was kept apart."""
        if not text.endswith(self._mark):
            return text
        number = text.removesuffix(self._mark).rpartition("#")[2]
        return self._long[int(number)]

    def _outside(self, piece: bytes, at: int) -> int:
        """Take what stands before the next string; returns where that begins, behind its quote."""
        quote = piece.find(b'"', at)
        end = len(piece) if quote < 0 else quote
        between = piece[at:end]
        structure = between.translate(None, WHITESPACE)
        self._structure += len(structure)
        if structure.startswith(b":"):
            self._key = b"" if structure.endswith(b"{") else self._last
        self.json += MUCH_WHITESPACE.sub(b" ", between) if len(between) >= 64 else between
        if quote < 0:
            return end
        self.json += b'"'
        self._string = []
        return end + 1

    def _go_on_with_string(self, piece: bytes, at: int) -> int:
        """Take more of a string; returns where what follows it begins."""
        start = at
        while (quote := piece.find(b'"', at)) >= 0:
            if self._slashes_before(piece, start, quote) % 2 == 0:
                self._add_to_string(piece[start:quote])
                self._end_string()
                return quote + 1
            at = quote + 1
        self._slashes = self._slashes_before(piece, start, len(piece))
        self._add_to_string(piece[start:])
        return len(piece)

    def _slashes_before(self, piece: bytes, start: int, end: int) -> int:
        at = end
        while at > start and piece[at - 1] == BACKSLASH:
            at -= 1
        return end - at + (self._slashes if at == start else 0)

    def _add_to_string(self, part: bytes) -> None:
        assert self._string is not None  # noqa: S101
        self._string.append(part)
        self._string_bytes += len(part)
        if b"\\" in part:
            escapes = part.count(b"\\")
            self._string_escapes += escapes
            self._string_beside += escapes + sum(part.count(escape) * more for escape, more in BESIDE.items())

    def _end_string(self) -> None:
        pieces, size = self._string or [], self._string_bytes
        escapes, beside = self._string_escapes, self._string_beside
        self._string, self._slashes = None, 0
        self._string_bytes = self._string_escapes = self._string_beside = 0
        self._last = b"".join(pieces) if size <= LONGEST_KEY else b""
        if size >= LONG_BYTES and self._key in MEDIA_KEYS:
            self._keep_apart(RawString(tuple(pieces), size, escapes > 0, beside))
            return
        self.json += b"".join(pieces)
        self._text += size + ESCAPE_COST * escapes
        self.json += b'"'

    def _keep_apart(self, raw: RawString) -> None:
        found = PLAIN.match(raw.head(SHOWN_BYTES))
        shown = found[0] if found else b""
        self.json += b'%b#%d%b"' % (shown, len(self._long), self._mark.encode())
        self._long.append(raw)

    def _check(self) -> None:
        if self._structure > MAX_STRUCTURE_BYTES:
            raise BadRequest(
                f"The request body holds more than {MAX_STRUCTURE_BYTES >> 10} KiB of JSON besides its strings.",
                code="invalid_json",
            )
        held = 0 if self._key in MEDIA_KEYS else self._string_bytes + ESCAPE_COST * self._string_escapes
        if self._text + held > MAX_TEXT_COST:
            raise ContextLengthExceeded(
                "The texts of this request are longer than any model could read.", param="messages"
            )
