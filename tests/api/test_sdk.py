"""What users of OpenAI's Python SDK do, and what they catch."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel, Field

from server.engine.scripted import Script
from tests.api.house import RED, House, body, image_url, open_house, plain
from tests.model import NAME
from tests.waiting import eventually

ANSWER = "Scripted answer مرحبا."
KEY = "ain-0123456789abcdefghijkl"


def sdk(house: House, key: str = "none", retries: int = 0) -> OpenAI:
    return OpenAI(base_url=f"{house.url}/v1", api_key=key, max_retries=retries)


@pytest.fixture
def client(house: House) -> Iterator[OpenAI]:
    with sdk(house) as client:
        yield client


def test_an_answer(client: OpenAI) -> None:
    reply = client.chat.completions.create(model=NAME, messages=[{"role": "user", "content": "Hello"}])
    assert reply.choices[0].message.content == ANSWER
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 4
    assert reply._request_id is not None
    assert reply._request_id.startswith("req-")


def test_an_answer_about_a_picture(client: OpenAI, house: House) -> None:
    url = "data:image/png;base64," + base64.b64encode(plain(RED)).decode()
    reply = client.chat.completions.create(
        model=NAME,
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": url, "detail": "auto"}},
                    {"type": "text", "text": "ما لون هذه الصورة؟"},
                ],
            }
        ],
    )
    assert reply.choices[0].message.content == ANSWER
    assert len(house.last_request.prompt.pictures) == 1


def test_a_stream(client: OpenAI) -> None:
    parts, usages = [], []
    for chunk in client.chat.completions.create(
        model=NAME,
        messages=[{"role": "user", "content": "Hello"}],
        stream=True,
        stream_options={"include_usage": True},
    ):
        parts += [choice.delta.content or "" for choice in chunk.choices]
        usages += [chunk.usage] if chunk.usage else []
    assert "".join(parts) == ANSWER
    assert [usage.completion_tokens for usage in usages] == [4]


def test_the_sdks_own_gathering_of_a_stream_gives_the_whole_reply(client: OpenAI) -> None:
    with client.chat.completions.stream(model=NAME, messages=[{"role": "user", "content": "Hello"}], n=2) as stream:
        stream.until_done()
        final = stream.get_final_completion()
    assert [choice.message.content for choice in final.choices] == [ANSWER, ANSWER]
    assert [choice.message.role for choice in final.choices] == ["assistant", "assistant"]
    assert [choice.finish_reason for choice in final.choices] == ["stop", "stop"]


async def test_the_asynchronous_client(house: House) -> None:
    async with AsyncOpenAI(base_url=f"{house.url}/v1", api_key="none", max_retries=0) as client:
        stream = await client.chat.completions.create(
            model=NAME, messages=[{"role": "user", "content": "Hello"}], stream=True
        )
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        assert text == ANSWER


class Page(BaseModel):
    """What a user of the SDK wants of a page."""

    title: str = Field(alias="العنوان")
    lines: list[str]


def test_an_answer_of_a_type_is_parsed_by_the_sdk() -> None:
    with open_house(Script(words=('{"العنوان":"كتاب",', '"lines":[', '"سطر"]}'))) as house, sdk(house) as client:
        reply = client.chat.completions.parse(
            model=NAME, messages=[{"role": "user", "content": "Read this."}], response_format=Page
        )
        assert reply.choices[0].message.parsed == Page.model_validate({"العنوان": "كتاب", "lines": ["سطر"]})
        constraint = house.last_request.sampling.constraint
        assert constraint is not None
        assert constraint.kind == "json_schema"
        assert json.loads(constraint.text)["required"] == ["العنوان", "lines"]
        assert "العنوان" in constraint.text


def test_logprobs_whole_and_streamed(client: OpenAI) -> None:
    asked: dict[str, Any] = {
        "model": NAME,
        "messages": [{"role": "user", "content": "Hello"}],
        "logprobs": True,
        "top_logprobs": 2,
    }
    told = client.chat.completions.create(**asked).choices[0].logprobs
    assert told is not None
    assert told.content is not None
    assert b"".join(bytes(token.bytes or ()) for token in told.content).decode() == ANSWER
    assert [len(token.top_logprobs) for token in told.content] == [2] * 4
    with client.chat.completions.stream(**asked) as stream:
        stream.until_done()
        streamed = stream.get_final_completion().choices[0].logprobs
    assert streamed is not None
    assert streamed.content == told.content


def test_a_schema_that_no_answer_can_be_held_to_is_a_bad_request_error(client: OpenAI, house: House) -> None:
    schema = {"type": "object", "properties": {"x": {"not": {}}}}
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model=NAME,
            messages=[{"role": "user", "content": "Hello"}],
            response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": schema}},
        )
    assert caught.value.param == "response_format.json_schema.schema.properties.x.not"
    assert caught.value.code == "unsupported_parameter"


def test_models(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [NAME]
    assert client.models.retrieve(NAME).owned_by == "vllm"


def test_a_bad_request_is_a_bad_request_error(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=NAME, messages=[{"role": "user", "content": "Hello"}], temperature=3)
    assert caught.value.param == "temperature"
    assert caught.value.code == "invalid_value"
    assert caught.value.type == "invalid_request_error"
    assert caught.value.request_id is not None


def test_an_unknown_model_is_a_not_found_error(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-5", messages=[{"role": "user", "content": "Hello"}])
    assert caught.value.code == "model_not_found"


def test_a_wrong_key_is_an_authentication_error() -> None:
    with open_house(api_keys=[KEY]) as house:
        with sdk(house, "ain-wrong") as client, pytest.raises(openai.AuthenticationError) as caught:
            client.models.list()
        assert caught.value.code == "invalid_api_key"
        with sdk(house, KEY) as client:
            assert client.models.list().data


def test_a_refused_request_is_sent_again_after_a_moment_and_answered() -> None:
    with open_house(max_requests=1) as house, sdk(house, retries=1) as client:
        house.engine.script = Script(stall_after=0)
        guest = house.raw_chat(body())
        assert eventually(lambda: house.engine.running == 1)
        with pytest.raises(openai.InternalServerError) as caught:
            client.with_options(max_retries=0).chat.completions.create(
                model=NAME, messages=[{"role": "user", "content": "Hello"}]
            )
        assert caught.value.code == "overloaded"
        house.engine.script = Script(first_delay=0.3)  # for the next request
        guest.close()
        assert eventually(lambda: house.at_rest)
        house.engine.requests.clear()
        guest = house.raw_chat(body())
        assert eventually(lambda: house.engine.requests)
        patient = client.with_options(max_retries=10)  # as often as the guest needs on a busy machine
        reply = patient.chat.completions.create(model=NAME, messages=[{"role": "user", "content": "Hello"}])
        assert reply.choices[0].message.content == ANSWER
        guest.close()


def test_an_error_in_mid_stream_is_an_api_error() -> None:
    with open_house() as house, sdk(house) as client:
        house.engine.script = Script(fail_after=1)
        stream = client.chat.completions.create(
            model=NAME, messages=[{"role": "user", "content": "Hello"}], stream=True
        )
        with pytest.raises(openai.APIError, match="died"):
            list(stream)


def test_a_broken_picture_is_a_bad_request_error_with_a_code_of_the_sdk(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.post("/chat/completions", body=body([image_url(b"no picture")]), cast_to=object)
    assert caught.value.code == "invalid_image_format"
