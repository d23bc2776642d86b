"""A JSON body is taken apart as it comes: what it costs is bounded, what it says is kept."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.core import RawString
from server.errors import BadRequest, ContextLengthExceeded
from server.openai.json_body import LONG_BYTES, MAX_STRUCTURE_BYTES, MAX_TEXT_COST, MEDIA_KEYS, JsonBody

LONG = "data:image/png;base64," + base64.b64encode(os.urandom(LONG_BYTES)).decode()


def fed(content: bytes, *cuts: int) -> JsonBody:
    body = JsonBody()
    for start, end in zip((0, *sorted(cuts)), (*sorted(cuts), len(content)), strict=True):
        body.feed(content[start:end])
    return body


def feed_all(body: JsonBody, pieces: Iterable[bytes]) -> None:
    for piece in pieces:
        body.feed(piece)


def said(raw: RawString) -> Any:
    """What a string that was kept apart says."""
    return json.loads(b'"%b"' % b"".join(raw.pieces))


def restored(body: JsonBody, value: Any = None) -> Any:
    """What the body says, with all that was kept apart in its place."""
    match json.loads(body.json) if value is None else value:
        case str(text):
            found = body.find(text)
            return found if isinstance(found, str) else said(found)
        case list(items):
            return [restored(body, item) if item is not None else None for item in items]
        case dict(fields):
            return {key: restored(body, item) if item is not None else None for key, item in fields.items()}
        case other:
            return other


texts = st.text() | st.text(alphabet='\\"\n/{}[]:, ') | st.sampled_from([LONG, "\\" * 5000, '"' * 5000, "س" * 3000])
keys = st.sampled_from(["url", "image", "video", "text", "a", 'q"', "\\"]) | st.text(max_size=5)
values = st.recursive(
    st.integers() | st.booleans() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)


@given(value=st.dictionaries(keys, values, max_size=4), data=st.data(), ascii_only=st.booleans(), indent=st.booleans())
def test_whatever_it_says_and_wherever_it_is_cut_it_says_the_same(
    value: Any, data: st.DataObject, ascii_only: bool, indent: bool
) -> None:
    content = json.dumps(value, ensure_ascii=ascii_only, indent=70 if indent else None)
    encoded = content.encode("utf-8", "surrogatepass")
    cuts = data.draw(st.lists(st.integers(0, len(encoded)), max_size=5))
    body = fed(encoded, *cuts)
    assert restored(body) == (value or {})


@pytest.mark.parametrize("key", sorted(key.decode() for key in MEDIA_KEYS))
@pytest.mark.parametrize("in_list", [False, True])
def test_long_media_are_kept_apart(key: str, in_list: bool) -> None:
    body = JsonBody.whole(json.dumps({key: [LONG, LONG] if in_list else LONG, "stop": "x"}).encode())
    assert len(body.json) < 500
    assert restored(body)[key] == ([LONG, LONG] if in_list else LONG)


@pytest.mark.parametrize("key", ["stop", "model", "user", "text", "content", "x"])
def test_other_long_strings_are_parsed_as_they_are(key: str) -> None:
    body = JsonBody.whole(json.dumps({"url": "x", key: LONG, "list": [LONG]}).encode())
    assert json.loads(body.json) == {"url": "x", key: LONG, "list": [LONG]}


def test_no_client_can_name_what_was_kept_apart() -> None:
    body = JsonBody.whole(json.dumps({"url": LONG, "image": "data:image/png;base64,#0"}).encode())
    assert body.find("data:image/png;base64,#0") == "data:image/png;base64,#0"
    assert JsonBody.whole(b"{}").find(json.loads(body.json)["url"]) == json.loads(body.json)["url"]


SHAPES = {
    "lists": b"[],",
    "objects": b"{},",
    "objects in fields": b'"a":{},',
    "numbers": b"1,",
    "keys": b'"k":1,',
    "true": b"true,",
    "digits": b"9",
    "depth": b"[",
    "open objects": b'{"a":',
    "commas": b",",
    "empty strings": b'"",',
    "no JSON at all": b"x",
    "bytes": b"\xff",
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [1000, 65_536])
def test_what_stands_outside_of_strings_is_bounded_whatever_it_is(shape: str, size: int) -> None:
    body = JsonBody()
    piece = SHAPES[shape] * (size // len(SHAPES[shape]))
    with pytest.raises(BadRequest) as caught:
        feed_all(body, [piece] * (64 * MAX_STRUCTURE_BYTES // size))
    assert caught.value.code == "invalid_json"
    assert len(body.json) < 4 * MAX_STRUCTURE_BYTES


@pytest.mark.parametrize("text", [b"a", b"\\n", b"\\u0633", b"\xd8\xb3", b'\\"'])
@pytest.mark.parametrize("key", [b"text", b"user"])
def test_texts_are_bounded_by_what_they_cost(text: bytes, key: bytes) -> None:
    body = JsonBody()
    body.feed(b'{"%b":"' % key)
    with pytest.raises(ContextLengthExceeded):
        feed_all(body, [*[text * 1000] * (2 * MAX_TEXT_COST // len(text) // 1000), b'"'])


def test_white_space_costs_nothing() -> None:
    body = fed(b'{"a"' + b" \n\t\r" * 500_000 + b":1}", 70_000, 1_000_000)
    assert json.loads(body.json) == {"a": 1}
    assert len(body.json) < 100


def test_a_body_of_the_largest_size_with_media_is_a_short_one() -> None:
    content = b'{"url":"' + b"A" * (60 << 20) + b'"}'
    body = JsonBody()
    for start in range(0, len(content), 1 << 16):
        body.feed(content[start : start + (1 << 16)])
    assert len(body.json) < 200
    found = body.find(json.loads(body.json)["url"])
    assert isinstance(found, RawString)
    assert found.size == 60 << 20
