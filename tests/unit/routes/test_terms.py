"""On what terms a client wants its answer."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import BadRequest
from server.routes.terms import TIMEOUT_HEADER, seconds_allowed

SECONDS = st.floats(min_value=0, exclude_min=True, max_value=1e9)


def test_without_a_wish_the_operators_limit_holds() -> None:
    assert seconds_allowed(None, None, 3600.0) == 3600.0


@given(st.none() | SECONDS, st.none() | SECONDS, SECONDS)
def test_the_shortest_of_all_that_was_said_holds(header: float | None, field: float | None, most: float) -> None:
    said = [value for value in (header, field, most) if value is not None]
    assert seconds_allowed(None if header is None else repr(header), field, most) == min(said)


@pytest.mark.parametrize("header", ["30", "30.0", " 30 ", "3e1"])
def test_the_header_is_any_number_of_seconds(header: str) -> None:
    assert seconds_allowed(header, None, 3600.0) == 30.0


@pytest.mark.parametrize("header", ["", "soon", "30s", "0", "-1", "-0.0", "nan", "inf", "-inf", "1e999", "1,5", "٣٠s"])
def test_a_header_that_is_no_number_of_seconds_is_refused_by_name(header: str) -> None:
    with pytest.raises(BadRequest) as caught:
        seconds_allowed(header, 5.0, 3600.0)
    assert (caught.value.status, caught.value.param) == (400, TIMEOUT_HEADER)


@given(st.text())
def test_no_header_breaks_anything(header: str) -> None:
    with suppress(BadRequest):
        assert 0 < seconds_allowed(header, None, 60.0) <= 60.0
