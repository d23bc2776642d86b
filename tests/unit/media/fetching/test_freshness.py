"""How long a reply may be used again: what RFC 9111 says of a private cache, and nothing guessed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from email.utils import formatdate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.media.fetching.freshness import LONGEST_S, NOTHING, Freshness, read_freshness

NOW = 1000.0
"""A moment on some clock of the server's own, and ..."""
WALL = 784_111_777.0
"""... the time of day then: Sun, 06 Nov 1994 08:49:37 GMT, as in RFC 9110, 5.6.7."""
SOON = formatdate(WALL + 60, usegmt=True)
THEN = formatdate(WALL, usegmt=True)


def fresh_for(**headers: str) -> float:
    """Seconds for which a reply with these headers may be used without asking."""
    until = read(**headers).until
    return until - NOW if until else 0.0


def read(**headers: str) -> Freshness:
    return read_freshness({name.replace("_", "-"): value for name, value in headers.items()}, NOW, WALL)


@pytest.mark.parametrize(
    ("control", "seconds"),
    [
        ("max-age=60", 60),
        ("MAX-AGE=60", 60),
        ("private, max-age=60", 60),
        ("public,max-age=60,immutable", 60),
        (" ,, max-age=60 ,", 60),
        ("max-age=60, must-revalidate", 60),
        ("max-age=99999999999999999999", LONGEST_S),
        # an older cache may quote what needs no quotes (5.2)
        ('max-age="60"', 60),
        # the first of two counts (4.2.1)
        ("max-age=60, max-age=600", 60),
        # for shared caches only (5.2.2.10)
        ("s-maxage=600", 0),
        ("max-age=60, s-maxage=600", 60),
        # what cannot be read is stale (4.2.1)
        ("max-age", 0),
        ("max-age=", 0),
        ("max-age=soon", 0),
        ("max-age=-60", 0),
        ("max-age=60.5", 0),
        ("max-age=1e9", 0),
        ("max-age=\u0666\u0660", 0),
        ("max-age=60 seconds", 0),
        ("max-age=0", 0),
        # to be asked each time
        ("no-cache, max-age=60", 0),
        ('no-cache="set-cookie, x-mine", max-age=60', 0),
        # a comma in quotes separates nothing
        ('mine="then, max-age=60"', 0),
        ('mine="then, no-store", max-age=60', 60),
        # nothing said, nothing guessed
        ("", 0),
        ("public", 0),
        ("immutable", 0),
        ("max-stale=60", 0),
    ],
)
def test_cache_control_says_how_long(control: str, seconds: float) -> None:
    assert fresh_for(cache_control=control) == seconds


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"expires": SOON, "date": THEN}, 60),
        # against the server's own date, not against ours, which may be off
        ({"expires": formatdate(WALL + 9060, usegmt=True), "date": formatdate(WALL + 9000, usegmt=True)}, 60),
        ({"expires": SOON}, 60),
        ({"expires": SOON, "date": "yesterday"}, 60),
        # all three forms of a date (RFC 9110, 5.6.7)
        ({"expires": "Sun, 06 Nov 1994 08:50:37 GMT"}, 60),
        ({"expires": "Sunday, 06-Nov-94 08:50:37 GMT"}, 60),
        ({"expires": "Sun Nov  6 08:50:37 1994"}, 60),
        # max-age wins (5.3)
        ({"cache-control": "max-age=10", "expires": SOON, "date": THEN}, 10),
        ({"cache-control": "max-age=0", "expires": SOON, "date": THEN}, 0),
        ({"cache-control": "no-cache", "expires": SOON, "date": THEN}, 0),
        # in the past, or no date at all (5.3 names "0")
        ({"expires": THEN, "date": SOON}, 0),
        ({"expires": THEN, "date": THEN}, 0),
        ({"expires": "0", "date": THEN}, 0),
        ({"expires": "-1"}, 0),
        ({"expires": ""}, 0),
        ({"expires": "Sun, 06 Nov 99999999999 08:50:37 GMT"}, 0),
        ({"expires": "Sun, 99 Nov 1994 08:50:37 GMT"}, 0),
        ({"date": THEN}, 0),
        ({"last-modified": THEN, "date": THEN}, 0),
    ],
)
def test_expires_says_until_when(headers: dict[str, str], seconds: float) -> None:
    assert fresh_for(**headers) == seconds


@pytest.fixture(params=["UTC", "Asia/Dubai", "America/Lima"])
def _zone(request: pytest.FixtureRequest) -> Iterator[None]:
    """A server that stands somewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("_zone")
def test_a_date_without_a_zone_is_one_in_greenwich() -> None:
    assert fresh_for(expires="Sun Nov  6 08:50:37 1994") == 60


@pytest.mark.parametrize(
    ("age", "seconds"),
    [
        ("0", 60),
        ("45", 15),
        ("59", 1),
        ("60", 0),
        ("61", 0),
        ("99999999999999999999", 0),
        # the first of a list counts, and what is none is ignored (5.1)
        ("45, 10", 15),
        ("old", 60),
        ("-10", 60),
        ("", 60),
    ],
)
def test_age_is_how_much_of_it_other_caches_have_used_up(age: str, seconds: float) -> None:
    assert fresh_for(cache_control="max-age=60", age=age) == seconds
    assert fresh_for(expires=SOON, date=THEN, age=age) == seconds


def test_age_counts_from_the_longest_that_anything_is_kept() -> None:
    assert fresh_for(cache_control="max-age=9999999999", age="100") == LONGEST_S - 100


@pytest.mark.parametrize(
    "headers",
    [
        {"cache-control": "no-store"},
        {"cache-control": "NO-STORE"},
        {"cache-control": "max-age=60, no-store"},
        {"cache-control": "no-store, max-age=60"},
        {"cache-control": 'max-age=60, mine="without an end, no-store'},
        {"vary": "*"},
        {"vary": " * "},
        {"vary": "accept, *"},
    ],
)
def test_what_must_not_be_kept_is_not(headers: dict[str, str]) -> None:
    freshness = read(**({"cache-control": "max-age=60", "etag": '"1"'} | headers))
    assert freshness == NOTHING
    assert not freshness.worth_keeping


@pytest.mark.parametrize("vary", ["accept", "accept-encoding, user-agent", "origin"])
def test_what_varies_with_headers_that_we_never_change_is_kept(vary: str) -> None:
    assert fresh_for(cache_control="max-age=60", vary=vary) == 60


@pytest.mark.parametrize(
    ("headers", "worth"),
    [
        ({"cache-control": "max-age=60"}, True),
        ({"etag": '"1"'}, True),
        ({"last-modified": THEN}, True),
        ({"cache-control": "no-cache", "etag": '"1"'}, True),
        ({"cache-control": "max-age=0", "last-modified": THEN}, True),
        ({"cache-control": "no-cache"}, False),
        ({"cache-control": "max-age=0"}, False),
        ({"date": THEN}, False),
        ({}, False),
    ],
)
def test_it_is_worth_keeping_what_is_fresh_or_can_be_asked_about(headers: dict[str, str], worth: bool) -> None:
    assert read(**headers).worth_keeping is worth


@pytest.mark.parametrize(
    ("headers", "asked"),
    [
        ({"etag": '"1"'}, [(b"If-None-Match", b'"1"')]),
        ({"etag": 'W/"1"'}, [(b"If-None-Match", b'W/"1"')]),
        ({"last-modified": THEN}, [(b"If-Modified-Since", THEN.encode())]),
        (
            {"etag": '"1"', "last-modified": THEN},
            [(b"If-None-Match", b'"1"'), (b"If-Modified-Since", THEN.encode())],
        ),
        ({"cache-control": "max-age=60"}, []),
        # what could break out of a header, or make it huge, is dropped
        ({"etag": '"1"\r\nX: y'}, []),
        ({"etag": '"1\0"'}, []),
        ({"etag": '"\u0661"'}, []),
        ({"etag": '"' + "1" * 600 + '"'}, []),
        ({"last-modified": THEN + "\r\n"}, []),
    ],
)
def test_validators_ask_whether_the_bytes_still_hold(headers: dict[str, str], asked: list[tuple[bytes, bytes]]) -> None:
    assert read(**headers).validators() == asked


HEADERS = st.text(st.sampled_from('abc="\\,; *-0123456789maxgenostr') | st.characters(), max_size=60)
NAMES = ("cache-control", "expires", "date", "age", "etag", "last-modified", "vary")


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), HEADERS | st.sampled_from([SOON, THEN, "max-age=60", "no-store"])))
def test_whatever_comes_is_read_and_nothing_is_fresh_for_longer_than_a_year(headers: dict[str, str]) -> None:
    freshness = read(**headers)
    assert freshness.until == 0 or NOW < freshness.until <= NOW + LONGEST_S
    assert all(value.isascii() and b"\r" not in value and b"\n" not in value for _, value in freshness.validators())


@settings(deadline=None)
@given(st.integers(0, 10**7), st.integers(0, 10**7))
def test_freshness_ends_when_age_reaches_max_age(max_age: int, age: int) -> None:
    assert fresh_for(cache_control=f"max-age={max_age}", age=str(age)) == max(0, max_age - age)


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "control",
    [
        "a=" + " " * 90_000 + '""x',
        "a" + " " * 90_000 + '"',
        '"' * 90_000,
        '\\"' * 45_000,
        "," * 90_000,
        "=" * 90_000,
        "max-age=" + "9" * 90_000,
    ],
    ids=["spaces in a value", "spaces after a name", "quotes", "escaped quotes", "commas", "equal signs", "digits"],
)
def test_a_header_made_to_be_slow_is_not(control: str) -> None:
    read(cache_control=control, age=control, vary=control, etag=control, expires=control, date=control)
