"""Compressed bodies: the same bytes come out as went in, in bounded pieces, or an error."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.errors import ApiError, BadRequest, ContentCodingUnknown
from server.routes.inflate import PIECE_BYTES, Inflate

CODINGS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}


def received(pieces: list[bytes], coding: str | None) -> list[bytes]:
    """What an app behind it gets of a body that comes in such pieces."""
    got: list[bytes] = []
    coming = [
        {"type": "http.request", "body": piece, "more_body": number < len(pieces)}
        for number, piece in enumerate(pieces, 1)
    ]

    async def receive() -> Any:
        return coming.pop(0) if coming else {"type": "http.disconnect"}

    async def app(_: Any, receive: Any, __: Any) -> None:
        while True:
            message = await receive()
            got.append(message["body"])
            if not message["more_body"]:
                break
        assert (await receive())["type"] == "http.disconnect"

    async def send(_: Any) -> None: ...

    headers = [] if coding is None else [(b"content-encoding", coding.encode())]
    asyncio.run(Inflate(app)({"type": "http", "headers": headers}, receive, send))
    return got


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)] or [b""]


@settings(max_examples=60, deadline=None)
@given(
    st.binary(max_size=2000) | st.integers(0, 300_000).map(bytes),
    st.sampled_from(sorted(CODINGS)),
    st.integers(1, 70_000),
)
def test_what_was_compressed_comes_out_whole_and_in_pieces_of_bounded_size(data: bytes, coding: str, size: int) -> None:
    got = received(cut(CODINGS[coding](data), size), coding)
    assert b"".join(got) == data
    assert max(map(len, got)) <= PIECE_BYTES


@pytest.mark.parametrize("coding", [None, "identity", "Identity"])
def test_what_is_not_compressed_passes(coding: str | None) -> None:
    assert received([b"ab", b"c"], coding) == [b"ab", b"c"]


WHOLE = gzip.compress(b"hello" * 1000)


@pytest.mark.parametrize(
    "sent",
    [b"", b"hello", WHOLE[:-1], WHOLE[:20], WHOLE + b"x", WHOLE + WHOLE, WHOLE[:30] + b"\0" + WHOLE[31:]],
    ids=["nothing", "plain", "torn", "a beginning", "a tail", "two", "damaged"],
)
@pytest.mark.parametrize("size", [1, 7, 100_000], ids=["byte by byte", "in sevens", "at once"])
def test_what_is_no_such_body_is_refused(sent: bytes, size: int) -> None:
    with pytest.raises(BadRequest, match="gzip") as caught:
        received(cut(sent, size), "gzip")
    assert caught.value.code == "invalid_content_encoding"


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "x"])
def test_a_coding_that_nobody_knows_is_refused_in_words(coding: str) -> None:
    with pytest.raises(ContentCodingUnknown, match="gzip, deflate") as caught:
        received([b"x"], coding)
    assert isinstance(caught.value, ApiError)
    assert caught.value.status == 415
