"""Which pages a client asks for: printers' notation, read strictly, in every script."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import BadRequest
from server.openai.media.pages import page_ranges

PARAM = "messages[0].content[1].pages"
HIGHEST = 9_999_999


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("1-3,7,9-", ((1, 3), (7, 7), (9, None))),
        ("1", ((1, 1),)),
        ("2-", ((2, None),)),
        (" 1 - 3 , 7 ", ((1, 3), (7, 7))),
        ("007", ((7, 7),)),
        ("5,1,5", ((5, 5), (1, 1), (5, 5))),
        ("3-3", ((3, 3),)),
        ("9-,1", ((9, None), (1, 1))),
        ("1–3", ((1, 3),)),
        ("1—3,7−", ((1, 3), (7, None))),
        ("1‑3,5‐6", ((1, 3), (5, 6))),
        ("٣", ((3, 3),)),
        ("١-٣، ٧،٩-", ((1, 3), (7, 7), (9, None))),
        ("١–٣", ((1, 3),)),
        ("۱۰-۱۲", ((10, 12),)),
        ("１２－１４，１", ((12, 14), (1, 1))),
        ("\u200f١\u200f-\u200e٣\u202c", ((1, 3),)),
        (4, ((4, 4),)),
        ([2, 1], ((2, 2), (1, 1))),
    ],
)
def test_pages_are_ranges_in_the_order_in_which_they_were_named(
    written: str | int | list[int], meant: tuple[tuple[int, int | None], ...]
) -> None:
    assert page_ranges(written, PARAM) == meant


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("", "write page numbers"),
        (",", "write page numbers"),
        ("1,", "write page numbers"),
        ("-", "write page numbers"),
        ("-3", "write page numbers"),
        ("1--3", "write page numbers"),
        ("1-2-3", "write page numbers"),
        ("1 2", "write page numbers"),
        ("1;2", "write page numbers"),
        ("all", "write page numbers"),
        ("1.5", "write page numbers"),
        ("1e3", "write page numbers"),
        ("+1", "write page numbers"),
        ("²", "write page numbers"),
        ("Ⅳ", "write page numbers"),
        ("\u200f", "write page numbers"),
        ("1–3–5", "write page numbers"),
        ("٠", "counted from 1"),
        ("99999999", "write page numbers"),
        ("0", "counted from 1"),
        ("0-3", "counted from 1"),
        ("3-0", "ends before it begins"),
        ("3-1", "range 3-1 ends before it begins"),
        ([], "names no page"),
    ],
)
def test_anything_else_is_refused_by_the_name_of_the_field(written: str | list[int], message: str) -> None:
    with pytest.raises(BadRequest, match=message) as caught:
        page_ranges(written, PARAM)
    assert caught.value.param == PARAM
    assert f"'{PARAM}'" in caught.value.message


numbers = st.integers(1, HIGHEST)
ranges = st.one_of(
    st.tuples(numbers, st.none()),
    numbers.map(lambda number: (number, number)),
    st.tuples(numbers, numbers).map(lambda pair: (min(pair), max(pair))),
)
spaces = st.sampled_from(["", " ", "\t"])


@given(st.lists(st.tuples(ranges, spaces, spaces), min_size=1, max_size=30))
def test_what_was_written_is_what_is_read(asked: list[tuple[tuple[int, int | None], str, str]]) -> None:
    pieces = [f"{before}{first}{after}-{last or ''}{after}" for (first, last), before, after in asked]
    assert page_ranges(",".join(pieces), PARAM) == tuple(pages for pages, _, _ in asked)


@given(st.lists(numbers, min_size=1, max_size=30))
def test_a_list_of_numbers_and_the_same_with_commas_are_one(asked: list[int]) -> None:
    assert page_ranges(asked, PARAM) == page_ranges(",".join(map(str, asked)), PARAM)


def pages_or_none(written: str) -> tuple[tuple[int, int | None], ...] | None:
    try:
        return page_ranges(written, PARAM)
    except BadRequest:
        return None


@given(st.text(alphabet="0123456789-–,، ٣۷x\n", max_size=20) | st.text(max_size=20))
def test_any_text_is_pages_in_order_or_a_bad_request(written: str) -> None:
    pages = pages_or_none(written)
    if pages is not None:
        assert len(pages) == len(re.findall("[,،，、]", written)) + 1
        assert all(1 <= first <= (last or first) <= HIGHEST for first, last in pages)
        found = {int(number) for number in re.findall(r"\d+", written)}
        assert {number for pair in pages for number in pair if number} == found
