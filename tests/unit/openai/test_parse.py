"""Bytes of a body to a wire type: errors name the field as the client wrote it."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from server.errors import BadRequest
from server.openai.chat.body import ChatCompletionRequest
from server.openai.chat.request import to_conversation
from server.openai.json_body import JsonBody
from server.openai.media.content import PARTS
from server.openai.parse import MAX_SHOWN, parse, path


class Inner(BaseModel):
    size: Annotated[int, Field(ge=1)]


class Outer(BaseModel):
    name: str
    items: list[Inner] = []


def refusal(body: bytes, kind: type[BaseModel] = Outer) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        parse(kind, JsonBody.whole(body))
    return caught.value


def test_a_good_body_is_its_type() -> None:
    assert parse(Outer, JsonBody.whole(b'{"name": "a", "items": [{"size": 2}]}')) == Outer(
        name="a", items=[Inner(size=2)]
    )


@pytest.mark.parametrize(
    ("body", "code", "param", "message"),
    [
        (b"{", "invalid_json", None, "The request body is not valid JSON: "),
        (b"[]", "invalid_type", None, "Invalid the request body: "),
        (b"{}", "missing_required_parameter", "name", "Missing required parameter: 'name'."),
        (b'{"name": 5}', "invalid_type", "name", "Invalid 'name': "),
        (b'{"name": "a", "items": [{"size": 1}, {"size": 0}]}', "invalid_value", "items[1].size", "Invalid 'items[1]"),
        (b'{"name": "a", "items": [{}]}', "missing_required_parameter", "items[0].size", "Missing required parameter"),
    ],
)
def test_an_error_says_what_is_wrong_and_where(body: bytes, code: str, param: str | None, message: str) -> None:
    error = refusal(body)
    assert (error.code, error.param) == (code, param)
    assert error.message.startswith(message)
    assert error.status == 400


@pytest.mark.parametrize(
    ("location", "written"),
    [
        ((), ""),
        (("model",), "model"),
        (("messages", 0), "messages[0]"),
        (
            ("messages", 0, "content", 1, "part:image_url", "image_url", "url"),
            "messages[0].content[1].image_url.url",
        ),
        (("messages", 0, "content", 1, "part:video", "video", "part:list", 3), "messages[0].content[1].video[3]"),
        ((0, "a"), "[0].a"),
    ],
)
def test_paths_are_as_clients_write_them(location: tuple[int | str, ...], written: str) -> None:
    assert path(location) == written


def test_a_message_is_short_whatever_came_in() -> None:
    body = {"model": "m", "messages": [{"role": "x" * 10_000, "content": "y" * 10_000}]}
    assert len(refusal(json.dumps(body).encode(), ChatCompletionRequest).message) < MAX_SHOWN + 100


@settings(max_examples=200)
@given(st.binary())
def test_any_bytes_at_all_are_a_bad_request_at_worst(body: bytes) -> None:
    refusal(body, ChatCompletionRequest)


def param_of_refusal(body: dict[str, Any]) -> str | None:
    """None also where the body is a good one."""
    try:
        sent = JsonBody.whole(json.dumps(body).encode())
        to_conversation(parse(ChatCompletionRequest, sent), sent.find, "req-1", 8)
    except BadRequest as error:
        return error.param
    return None


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from([*ChatCompletionRequest.model_fields, "unknown"])


@settings(max_examples=300)
@given(st.dictionaries(fields, json_values, max_size=5))
def test_any_json_at_all_is_a_request_or_a_bad_request(changes: dict[str, Any]) -> None:
    body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
    param = param_of_refusal(body | changes)
    assert param is None or re.split(r"[\[.]", param)[0] in ChatCompletionRequest.model_fields


CONTROLS = ("url", "file_data", "detail", "pages", "dpi", "fps", "nframes", "max_pixels", "sample_fps", "video_end")
in_parts = st.sampled_from([*PARTS, *CONTROLS])
part_values = json_values | st.dictionaries(in_parts, json_values, max_size=3) | st.lists(st.text(max_size=3))


@settings(max_examples=500)
@given(st.sampled_from(list(PARTS)), st.dictionaries(in_parts, part_values, max_size=4))
def test_any_part_at_all_is_a_part_or_a_bad_request(kind: str, part: dict[str, Any]) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": [{**part, "type": kind}]}]}
    param = param_of_refusal(body)
    assert param is None or param.startswith("messages[0].content[0]")
    assert param is None or "part:" not in param
