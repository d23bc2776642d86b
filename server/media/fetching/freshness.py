"""How long a fetched picture may be used again: RFC 9111 (HTTP caching) for a private cache, as pictures need it.

A reply is fresh as long as its server says (`Cache-Control: max-age`, else `Expires`) and no longer: no age is guessed
where nothing is said. What is no longer fresh but has a validator is asked for again with it, and a reply of 304 makes
the kept bytes good anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

LONGEST_S = 365 * 86400


@dataclass(frozen=True, slots=True)
class Freshness:
    """What a reply says about being kept. Times are seconds on the clock that `read_freshness` was given."""

    until: float
    """It may be used without asking until then."""
    etag: str = ""
    last_modified: str = ""
    storable: bool = True
    """Whether it may be kept at all."""

    @property
    def worth_keeping(self) -> bool:
        """Whether keeping the bytes can ever spare anything."""
        return self.storable and (self.until > 0 or bool(self.etag or self.last_modified))

    def validators(self) -> list[tuple[bytes, bytes]]:
        """The headers that ask whether the bytes still hold."""
        headers = []
        if self.etag:
            headers.append((b"If-None-Match", self.etag.encode("latin-1")))
        if self.last_modified:
            headers.append((b"If-Modified-Since", self.last_modified.encode("latin-1")))
        return headers


NOTHING = Freshness(until=0.0, storable=False)


def read_freshness(headers: Mapping[str, str], now: float, wall: float) -> Freshness:
    """What the headers of a reply (names in lower case) that came at `now` say; `wall` is the time of day then.

    `now` is any clock in seconds, usually a monotonic one; only `Expires` without `Date` is held against `wall`. A
    reply that varies with the request's headers in general (`Vary: *`) is not kept.
    """
    control = _directives(headers.get("cache-control", ""))
    if "no-store" in control or "*" in headers.get("vary", ""):
        return NOTHING
    etag, last_modified = _text(headers.get("etag", "")), _text(headers.get("last-modified", ""))
    lifetime = 0.0 if "no-cache" in control else _lifetime(control, headers, wall)
    left = min(lifetime, LONGEST_S) - _seconds(headers.get("age", "").partition(",")[0])
    return Freshness(now + left if left > 0 else 0.0, etag, last_modified)


def _lifetime(control: Mapping[str, str], headers: Mapping[str, str], wall: float) -> float:
    if "max-age" in control:
        return _seconds(control["max-age"])
    expires = _date(headers.get("expires", ""))
    if expires is None:
        return 0.0
    date = _date(headers.get("date", ""))
    return expires - (wall if date is None else date)


def _directives(value: str) -> dict[str, str]:
    pieces = value.split('"')
    if len(pieces) % 2 == 0:  # a quotation without an end: nobody can tell what else it says
        return {"no-store": ""}
    pieces[1::2] = [quoted.replace(",", " ") for quoted in pieces[1::2]]  # a comma in quotes separates nothing
    found: dict[str, str] = {}
    for part in "".join(pieces).split(","):
        name, _, argument = part.partition("=")
        found.setdefault(name.strip().lower(), argument.strip())  # the first of its name counts (4.2.1)
    return found


def _seconds(value: str) -> float:
    """A delta-seconds; 0 for what is none, which is the stale and so the safe reading (RFC 9111, 4.2.1)."""
    value = value.strip()
    return float(value[:12]) if value.isascii() and value.isdecimal() else 0.0


def _date(value: str) -> float | None:
    try:
        date = parsedate_to_datetime(value)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()  # the zone is GMT where none is named
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _text(value: str) -> str:
    return value if len(value) <= 512 and value.isprintable() and value.isascii() else ""
