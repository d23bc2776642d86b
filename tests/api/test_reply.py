"""POST /v1/chat/completions, answered whole."""

from __future__ import annotations

import time

import pytest

from server.engine.scripted import Script
from tests.api.house import House, body, open_house
from tests.model import NAME

ANSWER = "Scripted answer مرحبا."


def test_a_reply_has_every_field_that_clients_require(house: House) -> None:
    before = int(time.time())
    reply = house.ask().json()
    assert set(reply) >= {"id", "object", "created", "model", "choices", "usage"}
    assert reply["id"].startswith("chatcmpl-")
    assert reply["object"] == "chat.completion"
    assert before <= reply["created"] <= time.time()
    assert reply["model"] == NAME
    assert reply["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": ANSWER, "refusal": None, "annotations": []},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]


def test_usage_counts_the_prompt_and_the_answer(house: House) -> None:
    usage = house.ask().json()["usage"]
    prompt = len(house.last_request.prompt.token_ids)
    assert usage == {
        "prompt_tokens": prompt,
        "completion_tokens": 4,
        "total_tokens": prompt + 4,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0, "image_tokens": 0, "video_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def test_a_reply_is_json_in_utf_8(house: House) -> None:
    response = house.ask()
    assert response.headers["content-type"] == "application/json"
    assert "مرحبا".encode() in response.content


def test_every_reply_has_an_id_of_its_own(house: House) -> None:
    assert house.ask().json()["id"] != house.ask().json()["id"]


def test_an_answer_that_is_cut_says_length(house: House) -> None:
    reply = house.ask(max_tokens=2).json()
    assert reply["choices"][0]["message"]["content"] == "Scripted answer"
    assert reply["choices"][0]["finish_reason"] == "length"
    assert reply["usage"]["completion_tokens"] == 2


def test_max_completion_tokens_wins_over_max_tokens(house: House) -> None:
    assert house.ask(max_tokens=3, max_completion_tokens=1).json()["usage"]["completion_tokens"] == 1


def test_several_choices_come_in_the_order_of_their_indices(house: House) -> None:
    reply = house.ask(n=3).json()
    assert [choice["index"] for choice in reply["choices"]] == [0, 1, 2]
    assert {choice["message"]["content"] for choice in reply["choices"]} == {ANSWER}
    assert reply["usage"]["completion_tokens"] == 3 * 4


def test_an_empty_answer_is_an_empty_string_and_not_null(house: House) -> None:
    house.engine.script = Script(words=())
    assert house.ask().json()["choices"][0]["message"]["content"] == ""


def test_without_max_tokens_an_answer_may_fill_the_context(house: House) -> None:
    house.ask()
    request = house.last_request
    assert request.sampling.max_tokens == house.engine.max_model_len - len(request.prompt.token_ids)


def test_the_operator_can_set_another_default_length() -> None:
    with open_house(default_max_tokens=3) as house:
        house.ask()
        assert house.last_request.sampling.max_tokens == 3
        house.ask(max_tokens=100)
        assert house.last_request.sampling.max_tokens == 100


def test_sampling_parameters_reach_the_engine(house: House) -> None:
    asked = {
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.05,
        "presence_penalty": -1.5,
        "frequency_penalty": 1.5,
        "repetition_penalty": 1.1,
        "max_tokens": 7,
        "seed": -(2**63),
        "n": 2,
    }
    house.ask(stop=["END", "قف"], **asked)
    sampling = house.last_request.sampling
    assert {name: getattr(sampling, name) for name in asked} == asked
    assert sampling.stop == ("END", "قف")


def test_what_is_not_asked_for_is_left_to_the_model(house: House) -> None:
    house.ask()
    sampling = house.last_request.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.seed) == (None, None, None, None)
    assert sampling.stop == ()
    assert sampling.n == 1


def test_one_stop_string_needs_no_list(house: House) -> None:
    house.ask(stop="END")
    assert house.last_request.sampling.stop == ("END",)


def test_stop_strings_are_compared_in_the_form_that_the_model_writes(house: House) -> None:
    house.ask(stop="caf" + "e\u0301")
    assert house.last_request.sampling.stop == ("caf\u00e9",)


NULLABLE = (
    "max_completion_tokens",
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "stop",
    "seed",
    "n",
    "stream",
    "stream_options",
)


@pytest.mark.parametrize("name", NULLABLE)
def test_an_explicit_null_is_not_given(house: House, name: str) -> None:
    assert house.ask(**{name: None}).status_code == 200


def test_a_false_stream_is_none(house: House) -> None:
    assert house.ask(stream=False).json()["object"] == "chat.completion"


@pytest.mark.parametrize(
    "field",
    [
        {"user": "someone"},
        {"user": {"id": 7}},
        {"metadata": {"a": "b"}},
        {"store": True},
        {"service_tier": "auto"},
        {"reasoning_effort": "high"},
        {"prompt_cache_key": "k"},
        {"safety_identifier": "s"},
        {"verbosity": "low"},
        {"prediction": {"type": "content", "content": "x"}},
        {"parallel_tool_calls": True},
        {"nobody_knows_this": [1, {"a": None}]},
    ],
    ids=str,
)
def test_fields_that_do_not_change_the_answer_are_accepted(house: House, field: dict[str, object]) -> None:
    reply = house.ask(**field)
    assert reply.status_code == 200
    assert reply.json()["service_tier"] == "default"


def test_names_of_messages_and_other_extras_are_accepted(house: House) -> None:
    request = body()
    request["messages"][0] |= {"name": "Huda", "cache_control": {"type": "ephemeral"}}
    assert house.post(request).status_code == 200


def test_replies_carry_the_first_of_the_servers_names() -> None:
    with open_house(served_model_name=["first", "org/second"]) as house:
        for name in ("first", "org/second"):
            assert house.post(body() | {"model": name}).json()["model"] == "first"


def test_a_text_of_a_hundred_thousand_characters_is_taken(house: House) -> None:
    house.engine.script = Script(max_model_len=1 << 20)
    text = "كلمة word " * 10_000
    house.ask(text)
    assert text in house.last_prompt
