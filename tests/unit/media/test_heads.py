"""The first bytes of a file in base64, in every spelling, are those of the file; or it is none."""

from __future__ import annotations

import base64
import itertools
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.media.heads import first_bytes

SPELLINGS = {
    "as it is": lambda encoded: encoded,
    "of URLs": lambda encoded: encoded.replace("+", "-").replace("/", "_"),
    "without padding": lambda encoded: encoded.rstrip("="),
    "in lines": lambda encoded: "\r\n".join(encoded[at : at + 76] for at in range(0, len(encoded), 76)),
    "percent-encoded": lambda encoded: quote(encoded, safe=""),
}


@given(st.binary(min_size=1, max_size=4000), st.sampled_from(sorted(SPELLINGS)))
def test_they_are_the_files_own_however_it_is_spelt(data: bytes, spelling: str) -> None:
    content = SPELLINGS[spelling](base64.b64encode(data).decode()).encode()
    head = first_bytes((content,), 1000, base64=True)
    assert head is not None
    assert data.startswith(head)
    assert len(head) >= min(len(data), 330)


@given(st.binary(min_size=1, max_size=4000))
def test_escapes_of_json_are_read(data: bytes) -> None:
    content = base64.b64encode(data).replace(b"/", b"\\/").replace(b"+", b"\\u002B")
    head = first_bytes((content,), 1000, base64=True, escaped=True)
    assert head is not None
    assert data.startswith(head)
    assert len(head) >= min(len(data), 160)


@given(st.binary(max_size=200))
def test_no_bytes_break_it(content: bytes) -> None:
    for escaped in (False, True):
        first_bytes((content,), 100, base64=True, escaped=escaped)


@pytest.mark.parametrize("content", [b"====", b"=", b"AA==AAAA", b"!!!!", b"%%%%", b"A", b"\xff\xff"])
def test_what_is_no_base64_has_none(content: bytes) -> None:
    assert first_bytes((content,), 100, base64=True) is None


def test_nothing_begins_with_nothing() -> None:
    assert first_bytes((b"",), 100, base64=True) == first_bytes((b" \n",), 100, base64=True) == b""
    assert first_bytes((b"abcdef",), 4, base64=False) == b"abcd"


@given(st.binary(max_size=300), st.lists(st.integers(1, 50), min_size=300), st.booleans())
def test_it_is_the_same_in_pieces_of_any_length(data: bytes, lengths: list[int], encoded: bool) -> None:
    content = base64.b64encode(data) if encoded else data
    ends = list(itertools.accumulate(lengths, initial=0))
    pieces = [content[start:end] for start, end in itertools.pairwise(ends) if start < len(content)]
    assert b"".join(pieces) == content
    assert first_bytes(pieces, 40, base64=encoded) == first_bytes((content,), 40, base64=encoded)
