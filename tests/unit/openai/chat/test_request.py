"""A Chat Completions body to a Conversation: everything that was asked is there, or refused."""

from __future__ import annotations

from typing import Any

import pytest

from server.core import DocumentSource, Message, PictureSource, PixelBudget, Sampling
from server.errors import BadRequest, UnsupportedParameter
from server.openai.media.content import PARTS
from tests.unit.openai.asking import conversation


def asks_for(name: str, value: object) -> dict[str, Any]:
    return {name: value}


def test_a_plain_message() -> None:
    made = conversation()
    assert made.request_id == "req-1"
    assert made.messages == (Message("user", ("Hello",)),)
    assert made.sampling == Sampling()


@pytest.mark.parametrize(
    ("role", "meant"), [("developer", "system"), ("system", "system"), ("user", "user"), ("assistant", "assistant")]
)
def test_roles(role: str, meant: str) -> None:
    assert conversation({"role": role, "content": "x"}).messages[0].role == meant


def test_media_keep_their_place_their_size_and_where_they_were_named() -> None:
    made = conversation(
        {"role": "system", "content": "s"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "a"},
                {"type": "image_url", "image_url": {"url": "u1", "detail": "high"}, "min_pixels": 5, "max_pixels": 6},
                {"type": "text", "text": "b"},
                {"type": "image", "image": "u2", "resized_height": 7, "resized_width": 8},
            ],
        },
        {"role": "assistant", "content": [{"type": "file", "file": {"file_data": "data:u3"}, "dpi": 100}]},
    )
    first = PictureSource("u1", "messages[1].content[1].image_url.url", PixelBudget(5, 6, None, None))
    second = PictureSource("u2", "messages[1].content[3].image", PixelBudget(None, None, 7, 8))
    assert made.messages[1] == Message("user", ("a", first, "b", second))
    third = DocumentSource("data:u3", "messages[2].content[0].file.file_data", dpi=100.0)
    assert made.sources == (first, second, third)


def test_sampling_is_taken_over_as_it_is() -> None:
    asked: dict[str, Any] = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 5,
        "min_p": 0.1,
        "presence_penalty": 1,
        "frequency_penalty": -1,
        "repetition_penalty": 1.2,
        "max_tokens": 9,
        "seed": 7,
        "n": 3,
    }
    assert conversation(stop=["a", "b"], **asked).sampling == Sampling(stop=("a", "b"), **asked)


def test_a_nucleus_of_nothing_is_the_likeliest_token() -> None:
    sampling = conversation(top_p=0, top_k=50, temperature=1).sampling
    assert (sampling.top_p, sampling.top_k) == (None, 1)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, ("No.",)),
        ("", ("", "No.")),
        ("But", ("But", "No.")),
        ([{"type": "text", "text": "But"}], ("But", "No.")),
    ],
    ids=str,
)
def test_what_an_assistant_refused_is_said_to_the_model(content: Any, said: tuple[str, ...]) -> None:
    assert conversation({"role": "assistant", "content": content, "refusal": "No."}).messages[0].content == said
    assert conversation({"role": "assistant", "content": content, "refusal": None}).messages[0].content == said[:-1]


def test_a_refusal_may_be_a_part_and_is_an_assistants() -> None:
    part = {"type": "refusal", "refusal": "No."}
    assert conversation({"role": "assistant", "content": [part]}).messages[0].content == ("No.",)
    assert conversation({"role": "user", "content": "x", "refusal": ""}).messages[0].content == ("x",)
    with pytest.raises(UnsupportedParameter) as caught:
        conversation({"role": "user", "content": "x", "refusal": "No."})
    assert caught.value.param == "messages[0].refusal"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ({"stop": ""}, {}),
        ({"stop": []}, {}),
        ({"max_tokens": 7.0, "seed": 5.0, "n": 2.0, "top_k": 3.0}, {"max_tokens": 7, "seed": 5, "n": 2, "top_k": 3}),
        ({"priority": 1.0, "stream_options": {"include_usage": False}}, {"priority": 1}),
        ({"timeout": "30"}, {}),
        ({"stream_options": {}}, {}),
    ],
    ids=str,
)
def test_what_asks_for_nothing_and_whole_numbers_with_a_point_pass(written: Any, meant: Any) -> None:
    assert conversation(**written) == conversation(**meant)


def test_plain_strings_in_a_list_are_texts() -> None:
    parts = ["a", {"type": "text", "text": "b"}, "c"]
    assert conversation({"role": "user", "content": parts}).messages[0].content == ("a", "b", "c")


@pytest.mark.parametrize(("tier", "flex"), [("flex", True), ("default", False), ("auto", False), (None, False)])
def test_only_the_tier_flex_stands_back(tier: str | None, flex: bool) -> None:
    assert conversation(service_tier=tier).flex == flex
    assert not conversation().flex


def test_a_priority_is_taken_over_and_nought_without_one() -> None:
    assert [conversation(priority=value).priority for value in (-5, 0, 7, None)] == [-5, 0, 7, 0]


@pytest.mark.parametrize(
    ("name", "value"),
    [("timeout", 0), ("timeout", -1), ("timeout", "soon"), ("priority", 1 << 31), ("priority", 0.5)],
)
def test_terms_that_make_no_sense_are_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(BadRequest) as caught:
        conversation(**asks_for(name, value))
    assert caught.value.param == name


def test_zero_is_a_value_and_not_an_absence() -> None:
    sampling = conversation(temperature=0, presence_penalty=0, seed=0, top_k=0).sampling
    assert (sampling.temperature, sampling.presence_penalty, sampling.seed, sampling.top_k) == (0, 0, 0, 0)


def test_the_operators_cap_of_choices_holds() -> None:
    assert conversation(n=4, max_choices=4).sampling.n == 4
    with pytest.raises(BadRequest) as caught:
        conversation(n=5, max_choices=4)
    assert caught.value.param == "n"
    assert "4" in caught.value.message


def test_an_assistant_alone_may_have_said_nothing() -> None:
    assert conversation({"role": "assistant", "content": None}).messages == (Message("assistant", ()),)
    with pytest.raises(BadRequest) as caught:
        conversation({"role": "user"})
    assert (caught.value.param, caught.value.code) == ("messages[0].content", "missing_required_parameter")


def test_an_unknown_part_is_refused_by_its_place_with_what_is_known() -> None:
    with pytest.raises(BadRequest) as caught:
        conversation({"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]})
    assert caught.value.param == "messages[0].content[0].type"
    for known in PARTS:
        assert f"'{known}'" in caught.value.message
