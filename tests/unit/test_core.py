"""The nouns that compute something."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from server.core import RawString


@given(st.lists(st.binary(max_size=5), max_size=8), st.integers(0, 50))
def test_what_stands_behind_the_beginning_of_a_long_string(pieces: list[bytes], start: int) -> None:
    whole = b"".join(pieces)
    assert b"".join(RawString(tuple(pieces), len(whole)).after(start)) == whole[start:]
