"""Which pages of a document a client asks for."""

from __future__ import annotations

import re

from server.errors import BadRequest

Ranges = tuple[tuple[int, int | None], ...]

_RANGE = re.compile(r"\s*(\d{1,7})\s*(?:(-)\s*(\d{1,7})?\s*)?")
"""Digits of every script: `int` reads them as well."""
_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2212\u0640\uff0d"
"""Hyphens, dashes, the minus, the stroke that lengthens an Arabic word, and the wide hyphen."""
_COMMAS = "\u060c\uff0c\u3001"
"""The Arabic comma and those of Chinese and Japanese."""
_MARKS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff"
"""Directions, which come along when text is copied."""
_PLAIN = str.maketrans(dict.fromkeys(_DASHES, "-") | dict.fromkeys(_COMMAS, ",") | dict.fromkeys(_MARKS, ""))


def page_ranges(pages: str | int | list[int], param: str) -> Ranges:
    """Inclusive ranges in the order in which they were named: "1-3,7,9-" is ((1, 3), (7, 7), (9, None)).

    A range without an end goes to the last page. White space around numbers is allowed, and so are the digits, commas
    and dashes of other scripts: "١–٣، ٧" is ((1, 3), (7, 7)).

    Raises:
        BadRequest: with `param`, for what is no such list, for page 0, and for a range that ends before it begins.
    """
    if isinstance(pages, str):
        return tuple(_range(piece, param) for piece in pages.translate(_PLAIN).split(","))
    numbers = [pages] if isinstance(pages, int) else pages
    if not numbers:
        raise BadRequest(f"Invalid '{param}': the list names no page. Leave it out for all pages.", param=param)
    return tuple((number, number) for number in numbers)


def _range(piece: str, param: str) -> tuple[int, int | None]:
    match = _RANGE.fullmatch(piece)
    if match is None:
        raise BadRequest(
            f"Invalid '{param}': write page numbers and ranges with commas between them, such as '1-3,7,9-' (9- goes "
            "to the last page).",
            param=param,
        )
    first, dash, end = int(match[1]), match[2], match[3]
    last = int(end) if end else None if dash else first
    if first < 1:
        raise BadRequest(f"Invalid '{param}': pages are counted from 1.", param=param)
    if last is not None and last < first:
        raise BadRequest(f"Invalid '{param}': the range {first}-{last} ends before it begins.", param=param)
    return first, last
